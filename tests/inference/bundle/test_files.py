"""Bundles: every shipped network comes back as it was, and hostile ones are refused before anything is allocated."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest

from dpmed.config.model import (
    LoraTable,
    MlpModel,
    Resnet9Model,
    Resnet18Model,
    Resnet34Model,
    Resnet50Model,
    SmallCnnModel,
    UnetModel,
    VitModel,
    WideResnetModel,
)
from dpmed.errors import InputError
from dpmed.inference.bundle import files as bundle
from dpmed.inference.network import eqx_digest, named_arrays
from tests.inference.made import ledger_bytes, make_description, make_network

NINE = {"channels": (4, 4, 4, 4), "groups": 2}
NETWORKS = {
    "mlp": (MlpModel(name="mlp", width=(5,)), (4, 5, 1)),
    "small_cnn": (SmallCnnModel(name="small_cnn", channels=(4,), groups=2), (8, 9, 3)),
    "resnet9": (Resnet9Model(name="resnet9", **NINE, members=2), (9, 8, 3)),
    "batch norm": (Resnet9Model(name="resnet9", **NINE, normalisation="batch"), (8, 8, 1)),
    "wide_resnet": (WideResnetModel(name="wide_resnet", depth=10, width=1), (8, 9, 2)),
    "resnet18": (Resnet18Model(name="resnet18", channels=(4, 4, 4, 4)), (33, 32, 1)),
    "resnet34": (Resnet34Model(name="resnet34", channels=(2, 2, 2, 4)), (8, 8, 3)),
    "resnet50": (Resnet50Model(name="resnet50", channels=(2, 2, 2, 4), normalisation="frozen"), (8, 8, 3)),
    "vit": (VitModel(name="vit", patch=4, width=6, depth=1, heads=2), (8, 8, 3)),
    "adapters": (MlpModel(name="mlp", width=(5,), train_only="lora", lora=LoraTable(rank=2)), (4, 5, 1)),
    "unet": (UnetModel(name="unet", channels=(4, 6)), (5, 4, 6, 2)),
}


def write(folder, network, description, **changes):
    folder.mkdir()
    facts = {
        "description": description,
        "network": network,
        "ledger": ledger_bytes(model_sha256=eqx_digest(named_arrays(network))),
        "card": "# A card\n",
        **changes,
    }
    bundle.write_bundle(folder, **facts)
    return folder


@pytest.fixture
def mlp(tmp_path):
    return write(tmp_path / "bundle", *make_network(*NETWORKS["mlp"]))


def seal(folder):
    """Checksums that fit, as somebody would write them who changed a file on purpose."""
    names = sorted(path.name for path in folder.iterdir() if path.name != bundle.CHECKSUMS_FILE)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / bundle.CHECKSUMS_FILE).write_text("".join(lines))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_comes_back_bit_for_bit(name, tmp_path):
    network, description = make_network(*NETWORKS[name])
    read = bundle.read_bundle(write(tmp_path / "bundle", network, description))
    assert read.description == description
    before, after = named_arrays(network), named_arrays(read.network)
    assert list(before) == list(after)
    for key, array in before.items():
        assert array.dtype == after[key].dtype
        np.testing.assert_array_equal(array, after[key])


@pytest.mark.parametrize("file", bundle.NEEDED)
def test_a_flipped_bit_is_found_in_every_file(mlp, file):
    content = bytearray((mlp / file).read_bytes())
    content[len(content) // 2] ^= 1
    (mlp / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file}: was damaged or changed"):
        bundle.read_bundle(mlp)


@pytest.mark.parametrize("file", bundle.NEEDED)
def test_a_missing_file_is_named(mlp, file):
    (mlp / file).unlink()
    with pytest.raises(InputError, match=f"{file}: is missing from the bundle"):
        bundle.read_bundle(mlp)


@pytest.mark.parametrize("file", bundle.NEEDED)
def test_a_file_that_no_checksum_vouches_for_is_not_read(mlp, file):
    sums = mlp / bundle.CHECKSUMS_FILE
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if file not in line))
    with pytest.raises(InputError, match=f"does not list {file}"):
        bundle.read_bundle(mlp)


@pytest.mark.parametrize(
    "line",
    [f"{'0' * 64}  ../outside", f"{'0' * 64}  /etc/passwd", f"{'0' * 64}  a/b", "0  model.json", "", f"{'0' * 64}  ..",
     f"{'0' * 64}  checksums.sha256", "\0"],
)  # fmt: skip
def test_checksums_name_plain_files_of_the_folder_alone(mlp, line):
    with (mlp / bundle.CHECKSUMS_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"checksums\.sha256: line 5"):
        bundle.read_bundle(mlp)


def test_a_link_out_of_the_folder_is_not_followed(mlp, tmp_path):
    outside = tmp_path / "outside.json"
    os.rename(mlp / "model.json", outside)
    (mlp / "model.json").symlink_to(outside)
    with pytest.raises(InputError, match=r"model\.json: is a link"):
        bundle.read_bundle(mlp)


def tensors(header, content=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(shape, end, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize(
    "content",
    [
        tensors({"hidden.0.weight": entry([10**12], 4 * 10**12)}),
        tensors({"hidden.0.weight": entry([10**6, 10**6], 4 * 10**12)}),
        tensors({"hidden.0.weight": entry([10**12], 0)}),
        tensors({"hidden.0.weight": entry([-1], 4)}, b"0000"),
        struct.pack("<Q", 10**12) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        b"",
        b"\x80\x04cos\nsystem\n",
    ],
)
def test_a_header_that_declares_too_much_is_refused_before_anything_is_allocated(mlp, content):
    (mlp / bundle.WEIGHTS_FILE).write_bytes(content)
    seal(mlp)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        bundle.read_bundle(mlp)


def test_a_network_far_larger_than_its_file_is_refused_before_anything_is_allocated(mlp):
    # A hundred terabytes of weights.
    description = make_description(MlpModel(name="mlp", width=(65_536,) * 12), (4096, 4096, 1)).to_json()
    (mlp / "model.json").write_text(json.dumps(description))
    seal(mlp)
    with pytest.raises(InputError, match=r"has float32\[5, 20\] for the array 'hidden\.0\.weight', but .* is needed"):
        bundle.read_bundle(mlp)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda arrays: arrays.pop("head.bias"), "has nothing for the array 'head.bias'"),
        (lambda arrays: arrays.update(more=np.zeros(3, np.float32)), "holds an array 'more'"),
        (lambda arrays: arrays.update({"head.bias": np.zeros(4, np.float32)}), r"has float32\[4\]"),
        (lambda arrays: arrays.update({"head.bias": np.zeros(3, np.float64)}), r"has float64\[3\]"),
        (lambda arrays: arrays.update({"head.bias": np.full(3, np.nan, np.float32)}), "not finite"),
        (lambda arrays: arrays.update({"head.bias": np.ones(3, np.float32)}), "belongs to other weights"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(mlp, change, words):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(mlp / bundle.WEIGHTS_FILE)
    change(arrays)
    save_file(arrays, mlp / bundle.WEIGHTS_FILE)
    seal(mlp)
    with pytest.raises(InputError, match=words):
        bundle.read_bundle(mlp)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.update(format_version=2), "format_version"),
        (lambda facts: facts.update(more=1), "more"),
        (lambda facts: facts["architecture"].update(name="os"), "architecture"),
        (lambda facts: facts["preprocessing"].update(size=[10**9, 10**9]), "size"),
        (lambda facts: facts["preprocessing"].update(size=[65_000, 65_000]), "too large to compute with"),
        (lambda facts: facts["preprocessing"].update(std=[0.0]), "std"),
        (lambda facts: facts.update(outputs=7), "3 classes for 7 outputs"),
        (lambda facts: facts.update(threshold=0.5), "threshold"),
        (lambda facts: facts["architecture"].update(pretrained="/etc/passwd"), "pretrained names a file"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(mlp, change, words):
    facts = json.loads((mlp / "model.json").read_text())
    change(facts)
    (mlp / "model.json").write_text(json.dumps(facts))
    seal(mlp)
    with pytest.raises(InputError, match=words):
        bundle.read_bundle(mlp)


def test_a_json_bomb_is_refused(mlp):
    (mlp / "model.json").write_text("[" * 100_000)
    seal(mlp)
    with pytest.raises(InputError, match="not a valid model description"):
        bundle.read_bundle(mlp)
