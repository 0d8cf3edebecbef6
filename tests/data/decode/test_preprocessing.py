import json

import numpy as np
import pytest

from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.errors import InputError

SOME = [
    Preprocessing(size=(8, 9), channels=3),
    Preprocessing(size=(8, 9), depth=16, narrow=True, window="header"),
    Preprocessing(size=(8, 9, 7), window=(-100.0, 250.5), spacing_mm=(1.0, 2.0, 3.0), channels=4),
    Preprocessing(size=(8, 9, 7), window="percentiles"),
    Preprocessing(size=(8, 9, 7), channels=2, files=2, windows=((0.0, 5.0), "header")),
]


@pytest.mark.parametrize("one", SOME)
def test_it_survives_json(one):
    assert Preprocessing.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "change",
    [
        {"size": [8]}, {"size": [8, 0]}, {"size": [8, 10**9]}, {"size": "xy"}, {"channels": 0}, {"window": "other"},
        {"window": [1]}, {"window": {}}, {"depth": 12}, {"narrow": 3}, {"spacing_mm": [1]}, {"more": 1},
        {"files": 2}, {"windows": ["header", "header"]}, {"window": [1, 2, 3]},
    ],
)  # fmt: skip
def test_what_is_no_description_is_refused(change):
    with pytest.raises(InputError, match=r"model\.json: is no description"):
        Preprocessing.from_json({**SOME[0].to_json(), **change}, where="model.json")
    with pytest.raises(InputError, match="is no description"):
        Preprocessing.from_json({})


def test_scale_type_and_range_follow_depth_and_window():
    eight, sixteen, ct, mr = (
        Preprocessing(size=(8, 8)),
        Preprocessing(size=(8, 8), depth=16, window=(0.0, 4095.0)),
        Preprocessing(size=(8, 8, 8)),
        Preprocessing(size=(8, 8, 8), window="percentiles"),
    )
    assert (eight.scale, eight.value_range, eight.dtype) == (255, (0, 255), np.uint8)
    assert (sixteen.scale, sixteen.value_range, sixteen.dtype) == (65535, (0, 65535), np.uint16)
    assert (ct.scale, ct.value_range, ct.dtype) == (1, (-1024, 3071), np.float32)
    assert (mr.scale, mr.value_range, mr.dtype) == (1, (0, 1), np.float16)
    for window, dtype in (
        ((-150.0, 250.0), np.float16),
        ((0.0, 80.0), np.float16),
        ((0.0, 0.003), np.float16),
        ((1000.0, 1001.0), np.float32),
        ((0.0, 3e-9), np.float32),
    ):
        made = Preprocessing(size=(8, 8, 8), window=window)
        assert made.dtype == dtype
        assert len(np.unique(np.linspace(*window, 1000).astype(made.dtype))) >= 256
