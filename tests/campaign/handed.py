"""What reads folders that others hand on: bundles, runs, and the tables of attacks, as `tests.campaign.readers`.

Whoever changes a file of a bundle can change its checksum as well, so those are made anew for each hostile file; a
bundle whose checksums are hostile themselves is a reader of its own.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from tests.campaign import mutate
from tests.campaign.readers import Reader, built, phantom


def _bundle(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from dpmed.config.model import MlpModel
        from dpmed.inference.bundle.files import write_bundle
        from dpmed.inference.network import eqx_digest, named_arrays
        from tests.inference.made import ledger_bytes, make_network

        network, description = make_network(MlpModel(name="mlp", width=(5,)), (4, 5, 1))
        ledger = ledger_bytes(model_sha256=eqx_digest(named_arrays(network)))
        write_bundle(folder, description=description, network=network, ledger=ledger, card="# A card\n")
        return folder / file

    return make


def _read_bundle(path: Path) -> object:
    from dpmed.inference.bundle.files import read_bundle

    return read_bundle(path.parent).description.outputs


def _read_with_sums(path: Path) -> object:
    sums = path.with_name("checksums.sha256")
    lines = sums.read_text().splitlines()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text("".join(f"{found}  {path.name}\n" if line.endswith(f" {path.name}") else f"{line}\n"
                            for line in lines))  # fmt: skip
    return _read_bundle(path)


def _run(folder: Path) -> Path:
    from dpmed.config.load import config_to_toml, load_config

    (folder / "config.toml").write_text(config_to_toml(load_config("quickstart").config))
    return folder / "config.toml"


def _read_run_config(path: Path) -> object:
    from dpmed.inference.run_folder import read_config

    return read_config(path.parent).training.epochs


_SUMMARY = {"test": {"mcc": 0.5, "balanced_accuracy": 0.6}, "test_interval": {"mcc": [0.4, 0.6]}, "main_metric": "mcc",
            "epsilon": 8.0, "delta": 1e-5}  # fmt: skip


def _summary(folder: Path) -> Path:
    _run(folder)
    (folder / "summary.json").write_text(json.dumps(_SUMMARY))
    return folder / "summary.json"


def _read_summary(path: Path) -> object:
    from dpmed.workflows.compare import _read_run as read_run

    return read_run(path.parent, "a").intervals


def _exported(path: Path) -> object:
    from dpmed.config.load import load_config
    from dpmed.workflows.export import ExportSettings
    from dpmed.workflows.export import _metrics as metrics

    return metrics(ExportSettings(run=path.parent, include_metrics=True), load_config("quickstart").config)


def _split(folder: Path) -> Path:
    (folder / "split.json").write_text(json.dumps({"train": [0, 2, 4], "validation": [1], "test": [3, 5]}))
    return folder / "split.json"


def _read_split(path: Path) -> object:
    from dpmed.data.base import Split
    from dpmed.files import read_json

    return Split.from_json(read_json(path), where=str(path)).train.tolist()


def _bounds(folder: Path) -> Path:
    columns = "epsilon,noise_multiplier,sampling_rate,steps,prior,worst_case_upper,relaxed_upper,constant_sign_upper"
    (folder / "bounds.csv").write_text(f"{columns}\n8,1.1,0.1,10,0.01,0.5,0.25,\n1,2.2,0.1,10,0.01,0.1,0.05,0.02\n")
    return folder / "bounds.csv"


def _read_bounds(path: Path) -> object:
    from dpmed.workflows.visualize.report import read_bounds

    return read_bounds(path)


def _rows(folder: Path) -> Path:
    (folder / "predictions.csv").write_text("input,class,error\na.png,0,\nb.png,1,damaged\n")
    return folder / "predictions.csv"


def _read_rows(path: Path) -> object:
    from dpmed.inference.row_file import RowFile

    return RowFile(path, ["input", "class", "error"], first=["a.png", "b.png", "c.png"]).rows


_TREE, _TEXT, _BYTES = (mutate.json_, mutate.json_), (mutate.words, mutate.bytes_), (mutate.bytes_,)
_CELLS = (mutate.table, mutate.table)
READERS = {
    one.name: one
    for one in (
        Reader(name="bundle-model", make=_bundle("model.json"), ways=(*_TREE, *_TREE, *_TEXT), read=_read_with_sums),
        Reader(name="bundle-ledger", make=_bundle("privacy.json"), ways=(*_TREE, *_TEXT), read=_read_with_sums),
        Reader(name="bundle-weights", make=_bundle("model.safetensors"), ways=(*_BYTES, mutate.safetensors),
               read=_read_with_sums),
        Reader(name="bundle-sums", make=_bundle("checksums.sha256"), ways=_TEXT, read=_read_bundle),
        Reader(name="run-config", make=_run, ways=(mutate.toml, mutate.toml, *_TEXT), read=_read_run_config),
        Reader(name="run-summary", make=_summary, ways=(*_TREE, *_TEXT), read=_read_summary),
        Reader(name="run-metrics", make=_summary, ways=(*_TREE, *_TEXT), read=_exported),
        Reader(name="run-split", make=_split, ways=(*_TREE, *_TEXT), read=_read_split),
        Reader(name="bounds", make=_bounds, ways=(*_CELLS, *_TEXT), read=_read_bounds),
        Reader(name="predictions", make=_rows, ways=(*_CELLS, *_TEXT), read=_read_rows),
        Reader(name="medmnist", make=phantom("medmnist", "pathmnist.npz"), ways=_BYTES,
               read=lambda path: built(name="medmnist", dataset="pathmnist", root=path.parent, cache=False)),
        Reader(name="radimagenet", make=phantom("radimagenet", "RadiologyAI_train.csv"), ways=(*_CELLS, *_TEXT),
               read=lambda path: built(name="radimagenet", root=path.parent, size=[8, 8], cache=False)),
    )
}  # fmt: skip
