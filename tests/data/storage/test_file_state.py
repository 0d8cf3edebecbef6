import os

import numpy as np
import pytest

from dpmed.data.storage.file_state import stat_all, summarise
from dpmed.errors import InputError


def write(path, content=b"x"):
    path.write_bytes(content)
    return path


def test_samples_may_have_different_numbers_of_files_and_any_change_is_seen(tmp_path):
    files = [write(tmp_path / name) for name in "abc"]
    sources = [(files[0],), (files[1], files[2])]
    before = stat_all(sources)
    assert np.array_equal(before, stat_all(sources)) and (before >= 0).all()
    os.utime(files[2], ns=(0, files[2].stat().st_mtime_ns + 1))
    after = stat_all(sources)
    assert np.array_equal(before[0], after[0]) and not np.array_equal(before[1], after[1])
    write(files[0], b"longer")
    assert stat_all(sources)[0, 0] == 6


def test_two_files_that_change_places_are_seen(tmp_path):
    small, large = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"22")
    assert not np.array_equal(stat_all([(small, large)]), stat_all([(large, small)]))


def test_missing_files_are_named_together(tmp_path):
    with pytest.raises(InputError, match=r"2 files cannot be used.*one.*two"):
        stat_all([(tmp_path / "one",), (tmp_path / "two",)])


def test_one_failure_is_itself_and_more_than_ten_are_counted():
    one = InputError("is bad", where="x", remedy="Mend it.")
    assert str(summarise([one])) == str(one)
    assert "10 and more files" in str(summarise([one] * 10))


def test_a_folder_stands_for_its_files(tmp_path):
    (tmp_path / "series").mkdir()
    slices = [write(tmp_path / "series" / name) for name in "ab"]
    before = stat_all([(tmp_path / "series",)])
    os.utime(slices[0], ns=(0, slices[0].stat().st_mtime_ns + 1))
    assert not np.array_equal(before, stat_all([(tmp_path / "series",)]))
