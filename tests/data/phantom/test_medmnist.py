import io

import numpy as np
import pytest

from dpmed.data.phantom.medmnist import encode_npz, write_medmnist
from dpmed.progress import Silent


def test_numpy_reads_what_was_encoded():
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.zeros((0, 2), np.uint8)}
    found = np.load(io.BytesIO(encode_npz(arrays)), allow_pickle=False)
    assert set(found) == {"a", "b"} and all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("volumes", "name", "shape"), [(False, "pathmnist", (28, 28, 3)), (True, "organmnist3d", (28, 28, 28))]
)
def test_parts_have_their_shares_and_the_real_shapes(tmp_path, volumes, name, shape):
    write_medmnist(tmp_path, num=20, seed=0, progress=Silent(), volumes=volumes)
    found = np.load(tmp_path / f"{name}.npz", allow_pickle=False)
    assert [found[f"{part}_images"].shape for part in ("train", "val", "test")] == [(n, *shape) for n in (14, 2, 4)]
    assert found["train_labels"].shape == (14, 1) and found["train_images"].dtype == np.uint8
