"""What reads files of others, each with a valid file to begin with and the ways in which it is made hostile."""

import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.data.build import build_dataset
from dpmed.data.layouts import write_phantom
from dpmed.progress import Silent
from tests.campaign import mutate


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One way in.

    Attributes:
        name: of the reader.
        make: writes a valid surrounding into a folder and gives the file that is changed.
        read: reads it.
        ways: of making it hostile.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    ways: tuple[mutate.Mutation, ...]


# Checked once: it is the same for all files of a reader, and takes longer than many a file.
@functools.cache
def _data(keys: str) -> Any:
    return TypeAdapter(DataConfig).validate_json(keys)


def built(**keys: Any) -> object:
    dataset = build_dataset(_data(json.dumps(keys, default=str)), progress=Silent())
    return len(dataset), list(dataset.groups)[:3]


def phantom(layout: str, file: str, num: int = 10) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_phantom(layout, folder, num=num, seed=0, progress=Silent())
        return folder / file

    return make


def _table(folder: Path) -> Path:
    for name in "abcd":
        (folder / f"{name}.png").touch()
    rows = ["image,patient,dx,age,part,t"]
    rows += [f"{name}.png,P{number // 2},{number % 2},{30 + number},train,{number}.5"
             for number, name in enumerate("abcd")]  # fmt: skip
    path = folder / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _read_table(path: Path, **keys: Any) -> object:
    return built(name="table", root=path.parent, table=path.name, patient="patient", size=[8, 8], cache=False, **keys)


def _metadata(folder: Path) -> Path:
    for name in ("x/a.png", "x/b.png", "y/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    path = folder / "metadata.csv"
    path.write_text("file,patient,sex,age\nx/a.png,P1,f,50\nx/b.png,P2,m,60\ny/c.png,P3,f,70\n")
    return path


def _dicom(folder: Path) -> Path:
    from tests.written_dicom import write_dicom

    values = np.arange(48, dtype=np.uint16).reshape(6, 8)
    return write_dicom(folder / "a.dcm", values, WindowCenter=10, WindowWidth=20, RescaleSlope=1, RescaleIntercept=-5)


def _series(folder: Path) -> Path:
    from tests.written_dicom import write_series

    return write_series(folder, np.arange(60, dtype=np.int16).reshape(3, 4, 5))[1]


def _nifti(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import nibabel

        nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)).to_filename(folder / name)
        return folder / name

    return make


def _decode(path: Path, source: Path | None = None, **keys: Any) -> object:
    from dpmed.data.decode.files import decode_file
    from dpmed.data.decode.preprocessing import Preprocessing

    return decode_file(source or path, Preprocessing(**keys)).values.shape


def _config(path: Path) -> object:
    from dpmed.config.load import load_config

    return load_config(str(path))


def _write_config(folder: Path) -> Path:
    path = folder / "c.toml"
    path.write_text((Path(__file__).resolve().parents[2] / "configs" / "ham10000_dp.toml").read_text())
    return path


def _manifest(folder: Path) -> Path:
    from tests.written_reconstructions import write_reconstructions

    write_reconstructions(folder, batches=1, batch_size=2)
    return folder / "manifest.json"


def _matches(folder: Path) -> Path:
    from dpmed.matching.table import MatchRow, write_matches

    row = MatchRow(batch=0, index=3, original="originals/0/3.png", nonzero_ratio=0.5, level="eps=1e+06", epsilon=1e6,
                   metric="ssim", distance=0.25, nearest=2, reconstruction="eps=1e+06/0/2.png", note="")  # fmt: skip
    write_matches(folder / "matches.csv", [row, row])
    return folder / "matches.csv"


_LEDGER = {
    "data": "digits", "version": "1", "created": "2026-01-01",
    "private": True, "epsilon": 7.9, "delta": 1e-5, "epsilon_pld": 7.9, "epsilon_rdp": 9.1, "accountant": "pld",
    "adjacency": "add-or-remove-one", "unit_of_privacy": "image", "status": "finished", "steps": 40,
    "steps_planned": 40, "noise_multiplier": 1.0, "sampling_rate": 0.1, "sampling": "poisson", "train_size": 640,
    "clipping": "flat", "clipping_norm": 0.5, "noise_source": "os-entropy", "sampling_source": "os-entropy",
    "outside_accounting": ["a"], "notes": ["b"], "siblings": [], "config_sha256": "0" * 64, "model_sha256": "0" * 64,
}  # fmt: skip


def _ledger(folder: Path) -> Path:
    path = folder / "seed=1" / "privacy.json"
    path.parent.mkdir()
    path.write_text(json.dumps(_LEDGER))
    return path


def _read_ledger(path: Path) -> object:
    from dpmed.inference.ledger import read_ledger

    return read_ledger(path)


def _compose(path: Path) -> object:
    from dpmed.inference.composed_ledger import compose, read_spendings

    return compose(read_spendings(path.parent.parent).values()).epsilon


def _checkpoint(folder: Path) -> Path:
    from dpmed.training.checkpoint import Position, save_checkpoint

    row = {"epoch": 0.5, "step": 3, "epsilon": 0.5, "split": "train", "loss": 1.0}
    position = Position(config_digest="d", step=3, draws=4, microbatch=8, method="m", seconds=1.5, records=9,
                        rows=(row,), losses=(1.0, 2, 0, 1), watched={"best": 0.5})  # fmt: skip
    return save_checkpoint(folder, position, _tree())


def _tree() -> Any:
    return {"a": np.arange(6, dtype=np.float32), "b": np.int32(7)}


def _read_checkpoint(path: Path) -> object:
    from dpmed.training.checkpoint import read_position

    # Arrays are compared by digest and length; the rest of reading them needs the compiler, which forks badly.
    return read_position(path, config_digest="d")


def _journal(folder: Path) -> Path:
    from dpmed.training.checkpoint import DrawJournal

    journal = DrawJournal(folder / "draws")
    journal.begin(3)
    journal.begin(4)
    journal.close()
    return folder / "draws"


def _read_journal(path: Path) -> object:
    from dpmed.training.checkpoint import DrawJournal

    journal = DrawJournal(path)
    journal.close()
    return journal.draws


def _cohort(folder: Path) -> Path:
    from dpmed.privacy.cohort.file import Cohort
    from dpmed.privacy.cohort.records import Entry
    from dpmed.privacy.mechanism import SampledGaussian

    mechanism = SampledGaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=10)
    with Cohort(folder / "c.db", create=("image", 1e-5)) as cohort:
        cohort.enter([Entry(token="t", folder="f", config_sha256="0" * 64, data="d", mechanism=mechanism,
                            units=[("a",), ("b",)])])  # fmt: skip
    return folder / "c.db"


def _read_cohort(path: Path) -> object:
    from dpmed.privacy.cohort.file import Cohort

    with Cohort(path) as cohort:
        snapshot = cohort.snapshot()
    return snapshot.limit, [run.mechanism for run in snapshot.runs]


def _tensors(folder: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float16)}, folder / "w.safetensors")
    return folder / "w.safetensors"


def _read_tensors(path: Path) -> object:
    from dpmed.tensors import read_tensors

    return {name: array.shape for name, array in read_tensors(path).items()}


def _npz(folder: Path) -> Path:
    np.savez(folder / "w.npz", a=np.zeros((2, 3), np.float32), b=np.ones(4, np.float32))
    return folder / "w.npz"


def _weights(folder: Path) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3), np.float32))
    np.save(buffer, np.ones(4, np.float32))
    (folder / "model.eqx").write_bytes(buffer.getvalue())
    return folder / "model.eqx"


def _read_weights(path: Path) -> object:
    from dpmed.models.weights import read_arrays

    return [array.shape for array in read_arrays(path, at_least=1)]


def _inputs(folder: Path) -> Path:
    (folder / "a.png").touch()
    (folder / "t.csv").write_text("image,x\na.png,1\n./a.png,2\n")
    return folder / "t.csv"


def _read_inputs(path: Path) -> object:
    from dpmed.inference.inputs import list_inputs

    return list_inputs([path], kind="picture")


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "a.png")
    return folder / "a.png"


def _read_manifest(path: Path) -> object:
    from dpmed.reconstructions.manifest import read_manifest

    return read_manifest(path.parent)


def _read_matches(path: Path) -> object:
    from dpmed.matching.table import read_matches

    return read_matches(path)


_BYTES, _TEXT, _CELLS, _TREE = (mutate.bytes_,), (mutate.words, mutate.bytes_), mutate.table, mutate.json_
READERS = {
    one.name: one
    for one in (
        Reader(name="table", make=_table, ways=(_CELLS, _CELLS, *_TEXT),
               read=lambda path: _read_table(path, labels="dx", split="part")),
        Reader(name="table-targets", make=_table, ways=(_CELLS, _CELLS, *_TEXT),
               read=lambda path: _read_table(path, targets=["age", "t"], target_mean=[0, 0], target_std=[1, 1])),
        Reader(name="metadata", make=_metadata, ways=(_CELLS, _CELLS, *_TEXT),
               read=lambda path: built(name="folder", root=path.parent, size=[8, 8], cache=False)),
        Reader(name="nnunet", make=phantom("nnunet", "dataset.json"), ways=(_TREE, _TREE, *_TEXT),
               read=lambda path: built(name="nnunet", root=path.parent, shape=[4, 4, 4], cache=False)),
        Reader(name="ham10000", make=phantom("ham10000", "HAM10000_metadata.csv"), ways=(_CELLS, *_TEXT),
               read=lambda path: built(name="ham10000", root=path.parent, size=[8, 8], cache=False)),
        Reader(name="msd", make=phantom("msd-liver", "Task03_Liver/dataset.json"), ways=(_TREE, *_TEXT),
               read=lambda path: built(name="msd", root=path.parents[1], task="liver", shape=[4, 4, 4], cache=False)),
        Reader(name="inputs", make=_inputs, read=_read_inputs, ways=(_CELLS, *_TEXT)),
        Reader(name="dicom", make=_dicom, ways=(mutate.dicom, mutate.bytes_),
               read=lambda path: _decode(path, size=(6, 8), depth=16)),
        Reader(name="series", make=_series, ways=(mutate.dicom, mutate.bytes_),
               read=lambda path: _decode(path, path.parent, size=(5, 4, 3), window="percentiles")),
        Reader(name="nifti", make=_nifti("a.nii"), ways=(mutate.nifti, mutate.bytes_),
               read=lambda path: _decode(path, size=(3, 4, 5), window=(0.0, 60.0))),
        Reader(name="nifti-gz", make=_nifti("a.nii.gz"), ways=_BYTES,
               read=lambda path: _decode(path, size=(3, 4, 5), window=(0.0, 60.0))),
        Reader(name="picture", make=_picture, ways=_BYTES, read=lambda path: _decode(path, size=(8, 8), channels=3)),
        Reader(name="config", make=_write_config, ways=(mutate.toml, mutate.toml, *_TEXT), read=_config),
        Reader(name="manifest", make=_manifest, ways=(_TREE, *_TEXT), read=_read_manifest),
        Reader(name="matches", make=_matches, ways=(_CELLS, *_TEXT), read=_read_matches),
        Reader(name="ledger", make=_ledger, ways=(_TREE, *_TEXT), read=_read_ledger),
        Reader(name="ledgers", make=_ledger, ways=(_TREE, *_TEXT), read=_compose),
        Reader(name="checkpoint", make=_checkpoint, ways=(*_BYTES, mutate.checkpoint, mutate.words),
               read=_read_checkpoint),
        Reader(name="journal", make=_journal, ways=_BYTES, read=_read_journal),
        Reader(name="cohort", make=_cohort, ways=_BYTES, read=_read_cohort),
        Reader(name="safetensors", make=_tensors, ways=(*_BYTES, mutate.safetensors), read=_read_tensors),
        Reader(name="npz", make=_npz, ways=_BYTES, read=_read_tensors),
        Reader(name="weights", make=_weights, ways=_BYTES, read=_read_weights),
    )
}  # fmt: skip
