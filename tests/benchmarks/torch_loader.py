"""The peer of the loading benchmark, run by an interpreter that has torch: DataLoader, two workers, Pillow.

`python torch_loader.py FOLDER BATCH PASSES` prints a JSON list of seconds per pass over all JPEGs of the folder, after
one pass that is not counted. It imports nothing of dpmed.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SIZE = (224, 224)
WORKERS = 2


class Pictures(Dataset):
    """Opens and resizes with Pillow, as most training scripts do."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR)))


def main() -> None:
    """Time the passes."""
    folder, batch, passes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    loader = DataLoader(Pictures(folder), batch_size=batch, num_workers=WORKERS, persistent_workers=True)
    seconds = []
    for turn in range(passes + 1):
        begun = time.perf_counter()
        count = sum(len(pictures) for pictures in loader)
        if turn:
            seconds.append(time.perf_counter() - begun)
    assert count == len(loader.dataset)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
