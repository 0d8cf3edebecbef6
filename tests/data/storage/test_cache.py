import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from dpmed.data.base import Info, Sample
from dpmed.data.storage import cache
from dpmed.data.storage.cache import cache_folder, cached
from dpmed.data.storage.stored import FileDataset, Listing
from dpmed.errors import InputError, RunError
from dpmed.progress import Silent


class Decoder:
    """Decodes a file to its first byte, everywhere; counts, and can break."""

    def __init__(self, targets=False):
        self.targets = targets
        self.decoded = []
        self.crash_after = None
        self.lock = threading.Lock()

    def __call__(self, files, number):
        with self.lock:
            if self.crash_after is not None and len(self.decoded) >= self.crash_after:
                raise KeyboardInterrupt
            self.decoded.append(files[0].name)
        content = files[0].read_bytes()
        if not content.isdigit():
            raise InputError("cannot be decoded", where=str(files[0]))
        value = int(content)
        target = np.full((3, 2), value % 7, np.uint8) if self.targets else np.asarray(number % 2, np.int32)
        return Sample(input=np.full((3, 2, 1), value, np.float16), target=target)


def make(folder, decode, count=6, preprocessing=None, names=None):
    folder.mkdir(exist_ok=True)
    names = names or [f"{number:05d}.txt" for number in range(count)]
    for number, name in enumerate(names):
        if not (folder / name).exists():
            (folder / name).write_bytes(str(number).encode())
    info = Info(
        name="made",
        task="segmentation" if decode.targets else "classification",
        input_shape=(3, 2, 1),
        class_names=("x", "y"),
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        unit="image",
    )
    labels = None if decode.targets else (np.arange(len(names)) % 2).astype(np.int32)
    return FileDataset(
        info,
        Listing(labels=labels, groups=names),
        root=folder,
        sources=[(folder / name,) for name in names],
        decode=decode,
        preprocessing=preprocessing or {"size": [3, 2]},
    )


def same(one, other):
    return all(
        np.array_equal(one[i].input, other[i].input)
        and np.array_equal(one[i].target, other[i].target)
        and one[i].input.dtype == other[i].input.dtype
        and one[i].target.shape == other[i].target.shape
        for i in range(len(other))
    )


def data_files(folder):
    return sorted(folder.glob("samples/*/samples-*.bin"))


@pytest.mark.parametrize("targets", [False, True])
def test_cached_samples_are_the_decoded_ones_and_decoding_happens_once(tmp_path, targets):
    decode = Decoder(targets)
    source = make(tmp_path / "data", decode)
    first = cached(source, tmp_path / "cache", progress=Silent())
    decode.decoded.clear()
    second = cached(source, tmp_path / "cache", progress=Silent())
    assert decode.decoded == []
    assert same(first, source) and same(second, source) and len(second) == 6
    inputs, found = second.gather(np.array([4, 1]))
    assert inputs[:, 0, 0, 0].tolist() == [4, 1] and found.shape == ((2, 3, 2) if targets else (2,))


def test_only_the_owner_can_read_it(tmp_path):
    cached(make(tmp_path / "data", Decoder()), tmp_path / "cache", progress=Silent())
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_changed_file_is_decoded_again_and_only_it(tmp_path):
    decode = Decoder()
    source = make(tmp_path / "data", decode)
    old = cached(source, tmp_path / "cache", progress=Silent())
    (tmp_path / "data" / "00002.txt").write_bytes(b"99")
    decode.decoded.clear()
    new = cached(source, tmp_path / "cache", progress=Silent())
    assert decode.decoded == ["00002.txt"]
    assert new[2].input[0, 0, 0] == 99 and same(new, source)
    # Who reads the old one goes on with what it had.
    assert old[2].input[0, 0, 0] == 2
    assert len(data_files(tmp_path / "cache")) == 1


def test_a_file_touched_without_change_of_size_is_noticed_by_its_time(tmp_path):
    decode = Decoder()
    source = make(tmp_path / "data", decode)
    cached(source, tmp_path / "cache", progress=Silent())
    path = tmp_path / "data" / "00003.txt"
    path.write_bytes(b"8")
    os.utime(path, ns=(1, 1))
    assert cached(source, tmp_path / "cache", progress=Silent())[3].input[0, 0, 0] == 8


def test_other_preprocessing_other_files_and_another_folder_have_caches_of_their_own(tmp_path):
    folder = tmp_path / "cache"
    for source in (
        make(tmp_path / "data", Decoder()),
        make(tmp_path / "data", Decoder(), preprocessing={"size": [4, 4]}),
        make(tmp_path / "data", Decoder(), count=5),
        make(tmp_path / "other", Decoder()),
    ):
        cached(source, folder, progress=Silent())
    assert len(data_files(folder)) == 4


def test_building_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 2)
    decode = Decoder()
    source = make(tmp_path / "data", decode, count=10)
    decode.crash_after = 6
    with pytest.raises(KeyboardInterrupt):
        cached(source, tmp_path / "cache", progress=Silent())
    decode.crash_after = None
    decode.decoded.clear()
    done = cached(source, tmp_path / "cache", progress=Silent())
    assert 4 <= len(decode.decoded) <= 7
    assert same(done, source)


def _die(folder, cache_folder):
    class Dies(Decoder):
        def __call__(self, files, number):
            if files[0].name == "00007.txt":
                os._exit(9)
            return super().__call__(files, number)

    cached(make(Path(folder), Dies(), count=10), Path(cache_folder), progress=Silent())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_killed_process_costs_no_more_than_what_was_not_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 2)
    monkeypatch.setattr(cache, "_SECONDS_BETWEEN_MARKS", 0.0)
    process = multiprocessing.get_context("fork").Process(
        target=_die, args=(str(tmp_path / "data"), str(tmp_path / "cache"))
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    decode = Decoder()
    source = make(tmp_path / "data", decode, count=10)
    done = cached(source, tmp_path / "cache", progress=Silent())
    assert sorted(decode.decoded) == ["00006.txt", "00007.txt", "00008.txt", "00009.txt"]
    assert same(done, source)


def test_a_place_that_cannot_be_made_names_the_key_to_change(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"data\.cache_folder, or set data\.cache = false"):
        cached(make(tmp_path / "data", Decoder()), tmp_path / "file", progress=Silent())


@pytest.mark.parametrize("name", ["done-0.bin", "current.json", "layout.json", "samples-0.bin"])
@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_cache_is_built_again(tmp_path, name, content):
    source = make(tmp_path / "data", Decoder())
    cached(source, tmp_path / "cache", progress=Silent())
    (path,) = (tmp_path / "cache").glob(f"samples/*/{name}")
    path.write_bytes(content)
    assert same(cached(source, tmp_path / "cache", progress=Silent()), source)


def test_a_crash_between_building_and_publishing_costs_no_decoding(tmp_path):
    decode = Decoder()
    source = make(tmp_path / "data", decode)
    cached(source, tmp_path / "cache", progress=Silent())
    (path,) = (tmp_path / "cache").glob("samples/*/current.json")
    path.unlink()
    decode.decoded.clear()
    done = cached(source, tmp_path / "cache", progress=Silent())
    assert decode.decoded == []
    assert same(done, source)


def _build(folder, cache_folder, queue):
    decode = Decoder()
    dataset = cached(make(Path(folder), decode, count=60), Path(cache_folder), progress=Silent())
    queue.put((len(decode.decoded), [float(dataset[i].input[0, 0, 0]) for i in range(60)]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_two_processes_build_it_once(tmp_path):
    make(tmp_path / "data", Decoder(), count=60)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    arguments = (str(tmp_path / "data"), str(tmp_path / "cache"), queue)
    processes = [context.Process(target=_build, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert all(values == list(range(60)) for _, values in results)
    # One decodes all (and the first sample twice, to learn its shape); the other at most that first sample.
    counts = sorted(count for count, _ in results)
    assert counts[0] <= 1 and counts[1] <= 61


def test_one_bad_file_in_ten_thousand_is_named_before_anything_is_trained(tmp_path):
    source = make(tmp_path / "data", Decoder(), count=10_000)
    (tmp_path / "data" / "07321.txt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"07321\.txt: cannot be decoded"):
        cached(source, tmp_path / "cache", progress=Silent())
    (tmp_path / "data" / "07321.txt").write_bytes(b"5")
    assert cached(source, tmp_path / "cache", progress=Silent())[7321].input[0, 0, 0] == 5


def test_several_bad_or_missing_files_are_named_together(tmp_path):
    source = make(tmp_path / "data", Decoder(), count=30)
    for number in (3, 9):
        (tmp_path / "data" / f"{number:05d}.txt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"2 files cannot be used:.*00003\.txt.*00009\.txt"):
        cached(source, tmp_path / "cache", progress=Silent())
    for number in range(12):
        (tmp_path / "data" / f"{number:05d}.txt").unlink()
    with pytest.raises(InputError, match=r"12 and more files cannot be used.*00000\.txt: cannot be opened"):
        cached(source, tmp_path / "cache", progress=Silent())


def test_a_sample_of_another_shape_is_refused_by_name(tmp_path):
    def decode(files, number):
        side = 4 if number == 3 else 3
        return Sample(input=np.zeros((side, 2, 1), np.uint8), target=np.asarray(0, np.int32))

    decode.targets = False
    with pytest.raises(InputError, match=r"00003\.txt: becomes uint8 of shape \(4, 2, 1\)"):
        cached(make(tmp_path / "data", decode), tmp_path / "cache", progress=Silent())


def test_without_room_on_the_disk_files_are_read_directly_and_the_user_is_told(tmp_path, monkeypatch):
    said = []

    class Tells(Silent):
        def say(self, message):
            said.append(message)

    monkeypatch.setattr(
        cache.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("U", (), {"free": 10})()
    )
    source = make(tmp_path / "data", Decoder())
    assert cached(source, tmp_path / "cache", progress=Tells()) is source
    assert "decoded in every epoch" in said[0]


def test_a_full_disk_while_building_is_one_message(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "pwrite", full)
    with pytest.raises(RunError, match=r"samples-0\.bin: cannot be written \(No space left"):
        cached(make(tmp_path / "data", Decoder()), tmp_path / "cache", progress=Silent())


def test_mapped_memory_is_let_go_of(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_RESIDENT_BYTES", 30)
    source = make(tmp_path / "data", Decoder())
    dataset = cached(source, tmp_path / "cache", progress=Silent())
    for _ in range(3):
        assert same(dataset, source)


def test_the_default_folder_follows_the_desktops_convention(monkeypatch, tmp_path, data_config):
    config = data_config("folder", root="x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / "dpmed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / ".cache" / "dpmed"
    assert cache_folder(data_config("folder", root="x", cache_folder="elsewhere")) == Path("elsewhere")
    assert cache_folder(data_config("folder", root="x", cache=False)) is None
