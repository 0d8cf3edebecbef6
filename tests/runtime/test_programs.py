"""Compiled programs are kept for their owner alone, found again, never trusted when damaged, and hold no data."""

import os
import shutil
import stat
import subprocess
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.runtime.programs import keep_programs
from tests.workflows.conftest import SMALL, command

SEEDED = ["--set", "privacy.noise_source=seeded", "--set", "training.epochs=2"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_its_owners_and_jax_is_told(tmp_path):
    environment = {}
    folder = keep_programs(environment, tmp_path / "dpmed")
    assert folder is not None and folder.parent == tmp_path / "dpmed" / "programs"
    assert mode(folder) == mode(folder.parent) == mode(folder.parent.parent) == 0o700
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    # JAX locks the folder only where its size is bounded.
    assert int(environment["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 0
    assert keep_programs({}, tmp_path / "dpmed") == folder


@pytest.mark.parametrize("name", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_what_the_user_has_set_for_jax_stays(tmp_path, name):
    environment = {name: "mine"}
    assert keep_programs(environment, tmp_path) is None
    assert environment == {name: "mine"} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_a_folder_that_others_could_have_written_into_is_not_used(tmp_path, which):
    folder = keep_programs({}, tmp_path)
    (folder if which == "folder" else folder.parent).chmod(0o770)
    environment = {}
    assert keep_programs(environment, tmp_path) is None
    assert environment == {}


def test_a_link_in_its_place_is_not_followed(tmp_path):
    folder = keep_programs({}, tmp_path)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert keep_programs({}, tmp_path) is None


def test_without_a_place_to_write_nothing_is_kept_and_nothing_fails(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {}
    assert keep_programs(environment, tmp_path / "file" / "dpmed") is None
    assert environment == {}


def test_a_folder_that_cannot_be_written_to_is_not_used(tmp_path, monkeypatch):
    # JAX would warn of each program.
    folder = keep_programs({}, tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder or not mode & os.W_OK)
    assert keep_programs({}, tmp_path) is None


def test_other_versions_are_forgotten_after_a_month(tmp_path):
    folder = keep_programs({}, tmp_path)
    old, recent = folder.parent / "jax-0.1", folder.parent / "jax-0.2"
    for other in (old, recent):
        other.mkdir()
        (other / "program").write_text("")
    os.utime(old, (0, time.time() - 31 * 24 * 3600))
    keep_programs({}, tmp_path)
    assert not old.exists() and recent.exists() and folder.exists()


def train(out: Path, cache: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """A training as a user starts it, with caches in a folder of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        command("train", "quickstart", *SMALL, *SEEDED, *settings, "--out", out),
        env=environment | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def programs_in(cache):
    return sorted((cache / "dpmed" / "programs").glob("*/*-cache"))


def last_use(program):
    """As JAX notes it, in nanoseconds."""
    return int.from_bytes(program.with_name(program.name.removesuffix("cache") + "atime").read_bytes(), "little")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run and the folder of caches that it left."""
    folder = tmp_path_factory.mktemp("programs")
    train(folder / "run", folder / "cache")
    return folder / "run", folder / "cache"


def test_a_second_run_finds_the_programs_of_the_first_and_gives_the_same_bits(trained, tmp_path):
    run, cache = trained
    kept = programs_in(cache)
    assert len(kept) > 2 and all(mode(path.parent) == 0o700 for path in kept)
    before = [last_use(path) for path in kept]
    train(tmp_path / "again", cache)
    # More may have come: whether a program is slow enough to be kept is the hour's luck.
    assert all(last_use(path) > earlier for path, earlier in zip(kept, before, strict=True))
    assert (tmp_path / "again" / "model.eqx").read_bytes() == (run / "model.eqx").read_bytes()


def test_damaged_programs_are_compiled_anew(trained, tmp_path):
    run, cache = trained[0], shutil.copytree(trained[1], tmp_path / "cache")
    for index, path in enumerate(programs_in(cache)):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content) if index % 2 else b"")
    train(tmp_path / "again", cache)
    assert (tmp_path / "again" / "model.eqx").read_bytes() == (run / "model.eqx").read_bytes()


def test_a_key_turns_it_off(tmp_path):
    train(tmp_path / "run", tmp_path / "cache", "--set", "training.keep_programs=false")
    assert not programs_in(tmp_path / "cache")


def decompressed(path):
    """A kept program: four bytes of the time that it took to compile, then what was compressed with it."""
    content = path.read_bytes()
    return zlib.decompress(content) if content[:1] == b"\x78" else pytest.fail(f"{path.name} is of another format")


def is_inside(image, content):
    """Whether a few rows of an image, by which one would know it, stand in these bytes."""
    return image.reshape(-1)[24:40].tobytes() in content


def test_no_image_is_inside_a_program(trained):
    arguments = [part for part in (*SMALL, *SEEDED) if part != "--set"]
    plan = make_plan(load_config("quickstart", arguments).config, Silent())
    images = np.stack([plan.dataset[int(number)].input for number in plan.split.train]).astype(np.float32)
    contents = b"".join(decompressed(path) for path in programs_in(trained[1]))
    assert len(contents) > 10_000
    # As read, as fractions, and as the network sees them.
    info = plan.dataset.info
    for version in (images, images / np.float32(16), (images - np.float32(info.mean)) / np.float32(info.std)):
        assert not any(is_inside(image, contents) for image in version)


def test_an_image_that_is_built_into_a_program_would_be_found():
    image = np.random.default_rng(0).random((8, 8, 1), np.float32)

    def planted(x):
        return jnp.tanh(x) * image

    jax.jit(planted)(jnp.ones((8, 8, 1))).block_until_ready()
    (kept,) = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("jit_planted-*-cache")
    assert is_inside(image, decompressed(kept))
