"""Handwritten digits included in scikit-learn: 1,797 pictures of 8 × 8 pixels, no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
"""

import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from dpmed.config.data import DigitsData
from dpmed.data.base import Info
from dpmed.data.storage.stored import ArrayDataset, Listing

# Pixels count ink in 4 × 4 blocks, 0 to 16. Mean and std are round numbers for ink on paper, not computed from the
# pictures, so that they contain nothing of the training split.
_LARGEST = 16.0
_MEAN, _STD = 0.3, 0.35


def read_digits(config: DigitsData) -> ArrayDataset:
    """All digits; every picture is its own unit, since scikit-learn's copy does not name the writers."""
    del config  # has nothing to choose from
    pixels, labels = _pixels_and_labels()
    info = Info(
        name="digits",
        task="classification",
        input_shape=(8, 8, 1),
        class_names=tuple("0123456789"),
        scale=_LARGEST,
        mean=(_MEAN,),
        std=(_STD,),
        unit="image",
    )
    targets = labels.astype(np.int32)
    listing = Listing(labels=targets, groups=[str(number) for number in range(len(targets))])
    return ArrayDataset(info, listing, inputs=pixels.reshape(-1, 8, 8, 1).astype(np.uint8), targets=targets)


def _pixels_and_labels() -> tuple[Shaped[np.ndarray, "sample 64"], Shaped[np.ndarray, " sample"]]:
    """`sklearn.datasets.load_digits`, whose import takes longer than all the rest of reading."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1]
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels
