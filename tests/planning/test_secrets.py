"""Secrets: fresh for every release run, a function of the seed otherwise, and never shown."""

import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning import secrets as room
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.runtime.distributed import Processes

SMALL = ["data.limit=100", "training.batch_size=20", "training.epochs=2", "model.width=[4]"]


def plan_of(*settings, name="quickstart"):
    return make_plan(load_config(name, [*SMALL, *settings]).config, Silent())


def parts(secrets):
    return secrets.noise.words.tobytes(), secrets.augmentation


@pytest.fixture(scope="module")
def release_plan():
    return plan_of()


def test_release_runs_share_nothing(release_plan):
    first, second = (parts(draw_secrets(release_plan)) for _ in range(2))
    assert len({*first, *second}) == 4


def test_noise_batches_and_augmentation_are_made_of_different_bytes(release_plan, monkeypatch):
    monkeypatch.setattr(room.os, "urandom", lambda count: bytes(range(count)))
    monkeypatch.setattr(Processes, "first", lambda self, value: value)
    found = draw_secrets(release_plan, Processes(2, 0))
    assert found.noise.words.tobytes() == bytes(range(32))
    assert found.sampling == bytes(range(32, 64))
    assert found.augmentation == bytes(range(64, 96))
    # In a single process, the sampler asks the operating system anew for each batch.
    assert draw_secrets(release_plan).sampling is None


def test_other_processes_take_what_the_first_has_drawn(release_plan, monkeypatch):
    told = bytes(range(96)).hex()
    monkeypatch.setattr(Processes, "first", lambda self, value: told)
    assert draw_secrets(release_plan, Processes(2, 1)).noise.words.tobytes() == bytes(range(32))


@pytest.mark.parametrize(
    ("name", "settings"), [("quickstart", ["privacy.noise_source=seeded"]), ("quickstart_nonprivate", [])]
)
def test_seeded_secrets_are_the_seeds(name, settings):
    seven, again, eight = (draw_secrets(plan_of(*settings, f"training.seed={seed}", name=name)) for seed in (7, 7, 8))
    assert parts(seven) == parts(again)
    assert not set(parts(seven)) & set(parts(eight))
    assert seven.sampling is None


def test_the_text_of_secrets_shows_nothing_of_them(release_plan, monkeypatch):
    monkeypatch.setattr(room.os, "urandom", lambda count: b"A" * count)
    text = repr(draw_secrets(release_plan))
    assert "AAAA" not in text and str(np.frombuffer(b"AAAA", np.uint32)[0]) not in text
