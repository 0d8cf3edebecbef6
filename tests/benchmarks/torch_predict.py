"""The peer of the prediction benchmark, run by an interpreter that has torch: DataLoader, two workers, Pillow.

`python torch_predict.py FOLDER BATCH PASSES` prints a JSON list of seconds per pass over all JPEGs of the folder:
decode, resize to 32 × 32, normalise, ResNet-9 of 8, 16, 32 and 32 channels, softmax, a row per picture in a CSV. One
pass before is not counted. It imports nothing of dpmed.
"""

import csv
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

SIZE = (32, 32)
WORKERS = 2
CHANNELS = (8, 16, 32, 32)


class Pictures(Dataset):
    """Opens and resizes with Pillow, as most scripts do."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(Path(folder).rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = np.array(image.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels), index


def norm(channels: int) -> nn.Module:
    """Group norm of at most 8 groups."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


def unit(channels_in: int, channels_out: int) -> nn.Module:
    """Convolution, group norm, Mish."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), norm(channels_out), nn.Mish())


class Resnet9(nn.Module):
    """dpmed's ResNet-9, without centring, which at prediction is done once."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = CHANNELS
        self.early = nn.Sequential(unit(3, a), unit(a, b), nn.MaxPool2d(2))
        self.first = nn.Sequential(unit(b, b), unit(b, b))
        self.first_norm = norm(b)
        self.later = nn.Sequential(unit(b, c), nn.MaxPool2d(2), unit(c, d), nn.MaxPool2d(2))
        self.second = nn.Sequential(unit(d, d), unit(d, d))
        self.second_norm = norm(d)
        self.head = nn.Linear(4 * d, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.early(x)
        x = self.later(self.first_norm(x + self.first(x)))
        x = self.second_norm(x + self.second(x))
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


def main() -> None:
    """Time the passes."""
    folder, batch, passes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pictures, model = Pictures(folder), Resnet9().eval()
    seconds = []
    for turn in range(passes + 1):
        begun = time.perf_counter()
        loader = DataLoader(pictures, batch_size=batch, num_workers=WORKERS)
        with torch.inference_mode(), tempfile.NamedTemporaryFile("w") as file:
            writer = csv.writer(file)
            for pixels, numbers in loader:
                x = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
                for number, row in zip(numbers.tolist(), model(x).softmax(1).tolist(), strict=True):
                    writer.writerow([pictures.paths[number], *row])
        if turn:
            seconds.append(time.perf_counter() - begun)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
