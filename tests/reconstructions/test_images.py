import numpy as np
import pytest

from dpmed.data.base import Info, Sample, Split
from dpmed.matching.images import read_images
from dpmed.reconstructions.images import ImageFiles, image_files


def info(shape, *, scale, mean=None, std=None):
    channels = shape[-1]
    return Info(
        name="made-up",
        task="classification",
        input_shape=shape,
        class_names=("a", "b"),
        scale=scale,
        mean=mean or (0.3,) * channels,
        std=std or (0.2,) * channels,
        unit="image",
    )


@pytest.mark.parametrize(
    ("shape", "scale", "value_range", "stored", "tolerance"),
    [
        ((6, 5, 3), 255.0, (0.0, 255.0), "png", 0.5 / 255),
        ((6, 5, 1), 16.0, (0.0, 16.0), "png", 0.5 / 255),
        ((6, 5, 2), 1.0, (-2.0, 3.0), "npy", 1e-6),
        ((6, 5, 4, 1), 1.0, (-150.0, 200.0), "npy", 1e-6),
    ],
)
def test_normalised_images_survive_the_way_to_the_disk_and_back(tmp_path, shape, scale, value_range, stored, tolerance):
    random = np.random.default_rng(0)
    mean = tuple(random.uniform(0.2, 0.8, shape[-1]).tolist())
    files = ImageFiles(info=info(shape, scale=scale, mean=mean), value_range=value_range)
    assert files.stored == stored
    low, high = value_range
    images = random.uniform(low, high, (3, *shape)).astype(np.float32)
    normalised = (images / scale - np.asarray(mean)) / 0.2
    names = [f"originals/0/{index}.{stored}" for index in range(3)]
    files.write(tmp_path, names, files.denormalise(normalised))
    found = read_images(tmp_path, names, shape=shape, value_range=value_range)
    assert np.abs(found - (images - low) / (high - low)).max() <= tolerance + 1e-6
    limits = files.limits()
    assert (normalised >= limits[0] - 1e-4).all() and (normalised <= limits[1] + 1e-4).all()


class Made:
    """Samples whose values rise with their number."""

    def __init__(self, scale):
        self.info = info((4, 4, 1), scale=scale)
        self.labels, self.groups, self.official_split = None, [str(n) for n in range(10)], None

    def columns(self):
        return {}

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return Sample(input=np.full((4, 4, 1), float(index), np.float32), target=np.asarray(0))


def test_a_range_is_never_learnt_from_images_that_are_trained_on():
    split = Split(train=np.array([0, 1, 8, 9]), validation=np.array([2, 3]), test=np.array([5, 6]))
    assert image_files(Made(1.0), split).value_range == (2.0, 6.0)
    assert image_files(Made(255.0), split).value_range == (0.0, 255.0)
