import numpy as np

from dpmed.data.phantom.cifar10 import draw_kind, write_cifar10
from dpmed.data.phantom.shapes import generator
from dpmed.data.readers.cifar10 import CLASSES, FOLDER, RECORD_BYTES, TEST_FILE, TRAIN_FILES
from dpmed.progress import Silent


def test_files_hold_whole_records_of_all_classes(tmp_path):
    write_cifar10(tmp_path, num=65, seed=0, progress=Silent())
    content = b"".join((tmp_path / FOLDER / name).read_bytes() for name in (*TRAIN_FILES, TEST_FILE))
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    assert len(records) == 65 and set(records[:, 0]) == set(range(10))
    assert (tmp_path / FOLDER / "batches.meta.txt").read_text().split() == list(CLASSES)


def test_pictures_of_one_kind_differ():
    assert not np.array_equal(draw_kind(generator(0, 1), 3, (32, 32)), draw_kind(generator(0, 2), 3, (32, 32)))
