"""Patches of real pictures included in scikit-image, for attack experiments without a download.

`retina`: fundus photograph (Häggström, Medical gallery, 2014, CC0). `tissue`: colon glands, immunohistochemistry
(Centre for Molecular Pathology, London). `cells`: quantitative phase picture of a cell. Patches do not overlap, so all
are distinct; those without structure, such as the black border of the fundus, are left out.
"""

import numpy as np
from jaxtyping import UInt8

from dpmed.config.data import PatchesData
from dpmed.data.base import Info
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError

_FILES = {"retina": "retina", "tissue": "immunohistochemistry", "cells": "cell"}
# A patch is uniform if the standard deviation of its grey values is below this, out of 255.
_FLAT = 4.0
# Centre and half spread of the range, not computed from the pictures.
_MEAN, _STD = 0.5, 0.25


def read_patches(config: PatchesData) -> ArrayDataset:
    """All patches of the chosen pictures, each picture a class.

    Raises:
        InputError: a patch is larger than the pictures, or a picture is named twice.
    """
    if len(set(config.pictures)) != len(config.pictures) or not config.pictures:
        raise InputError("names a picture twice, or none", where="data.pictures")
    parts = [cut_patches(_load(name), config.size) for name in config.pictures]
    pixels = np.concatenate(parts)
    if min(map(len, parts)) < 1:
        raise InputError(f"leaves no patch of {config.pictures}", where=f"data.size = {config.size}")
    labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    info = Info(
        name="patches",
        task="classification",
        input_shape=(config.size, config.size, 3),
        class_names=config.pictures,
        scale=255.0,
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
        unit="image",
    )
    listing = Listing(labels=labels, groups=[str(number) for number in range(len(labels))])
    return ArrayDataset(info, listing, inputs=pixels, targets=labels)


def cut_patches(picture: UInt8[np.ndarray, "height width 3"], size: int) -> UInt8[np.ndarray, "patch size size 3"]:
    """Cut a picture into non-overlapping squares, row by row; uniform ones are left out."""
    rows, columns = picture.shape[0] // size, picture.shape[1] // size
    grid = picture[: rows * size, : columns * size].reshape(rows, size, columns, size, 3)
    patches = grid.transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)
    spread = patches.mean(axis=-1).std(axis=(1, 2))
    return np.ascontiguousarray(patches[spread >= _FLAT])


def _load(name: str) -> UInt8[np.ndarray, "height width 3"]:
    from skimage import data

    picture = np.asarray(getattr(data, _FILES[name])(), np.uint8)
    return np.repeat(picture[..., None], 3, axis=-1) if picture.ndim == 2 else picture[..., :3]  # noqa: PLR2004 grey
