"""Rendered digits have the form of scikit-learn's, of which none enters, and teach to read those."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from dpmed.config.data import DigitsData
from dpmed.data.build import build_dataset
from dpmed.data.layouts import data_table, write_phantom
from dpmed.data.phantom import digits
from dpmed.data.phantom.digits import count_blocks, draw_digit
from dpmed.data.phantom.shapes import generator
from dpmed.progress import Silent


def drawn(count, seed=3):
    labels = [number % 10 for number in range(count)]
    return np.stack([count_blocks(draw_digit(generator(seed, n), label)) for n, label in enumerate(labels)]), labels


def test_blocks_are_counted_as_by_a_slow_loop():
    bitmap = np.random.default_rng(0).random((32, 32)) < 0.4
    expected = [[sum(bitmap[4 * y + i, 4 * x + j] for i in range(4) for j in range(4)) for x in range(8)]
                for y in range(8)]  # fmt: skip
    np.testing.assert_array_equal(count_blocks(bitmap), expected)


def test_every_digit_reaches_from_the_upper_edge_to_the_lower_and_leaves_the_sides_free():
    for number in range(100):
        bitmap = draw_digit(generator(1, number), number % 10)
        rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
        assert rows[0] <= 1 and rows[-1] >= 30
        assert columns[0] >= 1 and columns[-1] <= 30
        assert abs(columns[0] + columns[-1] - 31) <= 4  # centred


def test_what_has_seen_rendered_digits_only_reads_most_real_ones():
    rendered, labels = drawn(600)
    real, truth = load_digits(return_X_y=True)
    model = KNeighborsClassifier(3).fit(rendered.reshape(-1, 64), labels)
    assert model.score(real, truth) > 0.6  # 0.1 by guessing, 0.1 to 0.3 if upside down, mirrored or inverted


@pytest.mark.parametrize("source", [digits._from_font, digits._by_hand])
def test_both_sources_give_digits_of_many_shapes(source):
    for digit in range(10):
        bitmaps = [source(generator(2, digit, n), digit) for n in range(6)]
        assert len({bitmap.tobytes() for bitmap in bitmaps}) == 6
        assert all(0.03 < bitmap.mean() < 0.7 for bitmap in bitmaps)


def test_the_reader_gives_the_network_what_the_real_digits_reader_gives(tmp_path, data_config):
    write_phantom("digits", tmp_path, num=20, seed=1, progress=Silent())
    dataset = build_dataset(data_config(**data_table("digits", tmp_path), cache=False), progress=Silent())
    real = build_dataset(DigitsData(name="digits"), progress=Silent()).info
    assert (dataset.info.class_names, dataset.info.input_shape) == (real.class_names, real.input_shape)
    assert [*dataset.info.mean, *dataset.info.std] == pytest.approx([*real.mean, *real.std])
    counts = count_blocks(draw_digit(generator(1, 13), 3))
    stored = np.asarray(Image.open(tmp_path / "3" / "digit000013.png"))
    np.testing.assert_allclose(stored / dataset.info.scale, counts / real.scale, atol=0.5 / 255)


def test_none_of_the_real_digits_enters(tmp_path):
    """In a process of its own, in which opening any file of scikit-learn's data ends it."""
    program = f"""
import sys
def watch(event, arguments):
    if event == "open" and "digits.csv" in str(arguments[0]):
        raise SystemExit("read the real digits")
sys.addaudithook(watch)
from pathlib import Path
from dpmed.data.layouts import write_phantom
from dpmed.progress import Silent
write_phantom("digits", Path({str(tmp_path)!r}), num=20, seed=1, progress=Silent())
assert not [name for name in sys.modules if name.startswith("sklearn")], "imported scikit-learn"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    real = {picture.astype(np.uint8).tobytes() for picture in load_digits().data}
    assert not real & {picture.tobytes() for picture in drawn(200)[0]}
