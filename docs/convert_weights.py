"""Converts published weights of torch to safetensors or npz, which dpmed reads without running any code in them.

    python convert_weights.py network resnet50.pth resnet50.safetensors
    python convert_weights.py lpips alexnet.pth lpips_alex.pth lpips.npz
    python convert_weights.py inception pt_inception-2015-12-05-6726825d.pth inception.npz

Needs torch (and safetensors for files of that kind), which dpmed itself does not. Files are opened with
`weights_only=True`, so that what is in them is not run. Where they come from: docs/your-model.md and docs/matching.md.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

# Under which names checkpoints of training keep the network, and what stands before the names of its arrays.
WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher", "student")
PREFIXES = ("module.", "backbone.", "model.")


def load(path: Path) -> dict[str, np.ndarray]:
    """The floating-point arrays of a state dict, by name."""
    state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 unpickles arrays alone
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    arrays = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: array.float().numpy() for name, array in arrays.items() if array.is_floating_point()}


def network(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All arrays by the network's own names; a head that a checkpoint keeps beside a backbone is left out."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    return state


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As safetensors or npz, by the file's ending."""
    if path.suffix != ".safetensors":
        np.savez(path, **arrays)
        return
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def lpips(backbone: dict[str, np.ndarray], linear: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """AlexNet's convolutions and LPIPS's weights of their channels."""
    kept = {name: array for name, array in backbone.items() if name.startswith("features.")}
    return kept | {name: array for name, array in linear.items() if name.startswith("lin")}


def inception(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All but the classifier, which the features do not need."""
    return {name: array for name, array in state.items() if not name.startswith(("fc.", "AuxLogits."))}


def main() -> None:
    """Read what the command line names, write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, names in (
        ("network", ("weights", "target")),
        ("lpips", ("alexnet", "linear", "target")),
        ("inception", ("weights", "target")),
    ):
        command = kinds.add_parser(kind)
        for source in names:
            command.add_argument(source, type=Path)
    arguments = parser.parse_args()
    if arguments.kind == "network":
        arrays = network(load(arguments.weights))
    elif arguments.kind == "lpips":
        arrays = lpips(load(arguments.alexnet), load(arguments.linear))
    else:
        arrays = inception(load(arguments.weights))
    save(arguments.target, arrays)


if __name__ == "__main__":
    main()
