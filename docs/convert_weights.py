"""Converts published weights of LPIPS and Inception to npz, which dpmed reads without running any code in them.

    python convert_weights.py lpips alexnet.pth lpips_alex.pth lpips.npz
    python convert_weights.py inception pt_inception-2015-12-05-6726825d.pth inception.npz

Needs torch, which dpmed itself does not. Files are opened with `weights_only=True`, so that what is in them is not run.
Where they come from: docs/matching.md.
"""

import argparse
from pathlib import Path

import numpy as np
import torch


def load(path: Path) -> dict[str, np.ndarray]:
    """The floating-point arrays of a state dict, by name."""
    state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 unpickles arrays alone
    return {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}


def lpips(backbone: dict[str, np.ndarray], linear: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """AlexNet's convolutions and LPIPS's weights of their channels."""
    kept = {name: array for name, array in backbone.items() if name.startswith("features.")}
    return kept | {name: array for name, array in linear.items() if name.startswith("lin")}


def inception(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All but the classifier, which the features do not need."""
    return {name: array for name, array in state.items() if not name.startswith(("fc.", "AuxLogits."))}


def main() -> None:
    """Read what the command line names, write one npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, sources in (("lpips", ("alexnet", "linear")), ("inception", ("weights",))):
        command = kinds.add_parser(kind)
        for source in (*sources, "npz"):
            command.add_argument(source, type=Path)
    arguments = parser.parse_args()
    if arguments.kind == "lpips":
        arrays = lpips(load(arguments.alexnet), load(arguments.linear))
    else:
        arrays = inception(load(arguments.weights))
    np.savez(arguments.npz, **arrays)


if __name__ == "__main__":
    main()
