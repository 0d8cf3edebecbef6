import hashlib
import io
import tarfile

import numpy as np
import pytest

from dpmed.data.readers import cifar10
from dpmed.data.readers.cifar10 import CLASSES, FOLDER, TEST_FILE, TRAIN_FILES, read_cifar10
from dpmed.errors import InputError, RunError
from dpmed.progress import Silent


def never(url, headers):
    raise AssertionError("tried to download")


def test_pixels_are_those_of_the_records(phantom, data_config):
    root = phantom("cifar10")
    dataset = read_cifar10(data_config("cifar10", root=root), progress=Silent(), open_url=never)
    raw = (root / FOLDER / TRAIN_FILES[0]).read_bytes()
    sample = dataset[1]
    record = raw[3073 : 2 * 3073]
    assert int(sample.target) == record[0]
    for channel in range(3):
        plane = np.frombuffer(record[1 + 1024 * channel : 1 + 1024 * (channel + 1)], np.uint8).reshape(32, 32)
        assert np.array_equal(sample.input[..., channel], plane)
    assert len(dataset) == 40 and dataset.info.class_names == CLASSES


def test_the_test_file_is_the_test_split(phantom, data_config):
    root = phantom("cifar10")
    dataset = read_cifar10(data_config("cifar10", root=root / FOLDER), progress=Silent(), open_url=never)
    records = (root / FOLDER / TEST_FILE).stat().st_size // 3073
    split = dataset.official_split
    assert split.test.tolist() == list(range(40 - records, 40)) and len(split.validation) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a whole number"), (b"\0" * 3072, "not a whole number"), (b"\x0a" + b"\0" * 3072, "holds the class 10")],
)
def test_damaged_files_are_refused_by_name(phantom, data_config, tmp_path, content, message):
    for name in (*TRAIN_FILES, TEST_FILE):
        (tmp_path / name).write_bytes((phantom("cifar10") / FOLDER / name).read_bytes())
    (tmp_path / TRAIN_FILES[2]).write_bytes(content)
    with pytest.raises(InputError, match=rf"{TRAIN_FILES[2]}.*{message}"):
        read_cifar10(data_config("cifar10", root=tmp_path), progress=Silent(), open_url=never)
    (tmp_path / TRAIN_FILES[2]).unlink()
    with pytest.raises(InputError, match=f"{TRAIN_FILES[2]}: there is no such file"):
        read_cifar10(data_config("cifar10", root=tmp_path), progress=Silent(), open_url=never)


def test_a_batch_that_is_a_link_to_another_is_refused(phantom, data_config, tmp_path):
    for name in (*TRAIN_FILES, TEST_FILE):
        (tmp_path / name).write_bytes((phantom("cifar10") / FOLDER / name).read_bytes())
    (tmp_path / TRAIN_FILES[2]).unlink()
    (tmp_path / TRAIN_FILES[2]).symlink_to(tmp_path / TRAIN_FILES[1])
    with pytest.raises(InputError, match=rf"{TRAIN_FILES[2]}: is the same file as .*{TRAIN_FILES[1]}"):
        read_cifar10(data_config("cifar10", root=tmp_path), progress=Silent(), open_url=never)


def test_without_download_it_says_what_to_put_where(data_config, tmp_path):
    config = data_config("cifar10", root=tmp_path, download=False)
    with pytest.raises(InputError, match=r"Put cifar-10-binary\.tar\.gz from https://www.*phantom cifar10"):
        read_cifar10(config, progress=Silent(), open_url=never)


def test_it_is_downloaded_checked_and_unpacked_once(phantom, data_config, tmp_path, monkeypatch):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(phantom("cifar10") / FOLDER, FOLDER)
    content = buffer.getvalue()
    monkeypatch.setattr(cifar10, "_MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(cifar10, "_ARCHIVE_BYTES", len(content))

    class Response(io.BytesIO):
        status = 200

    asked = []

    def serve(url, headers):
        asked.append(url)
        return Response(content)

    config = data_config("cifar10", root=tmp_path / "new")
    first = read_cifar10(config, progress=Silent(), open_url=serve)
    second = read_cifar10(config, progress=Silent(), open_url=never)
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"]
    assert np.array_equal(first.inputs, second.inputs) and len(first) == 40


def test_offline_is_one_message(data_config, tmp_path):
    def offline(url, headers):
        raise OSError("no route to host")

    with pytest.raises(RunError, match="no route to host"):
        read_cifar10(data_config("cifar10", root=tmp_path), progress=Silent(), open_url=offline)
