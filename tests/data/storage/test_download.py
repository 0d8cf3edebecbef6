import hashlib
import io
import tarfile

import pytest

from dpmed.data.storage.download import download, extract_named, open_url
from dpmed.errors import InputError, RunError
from dpmed.progress import Silent

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()
URL = "https://example.org/file.tar.gz"


class Server:
    """Answers like a web server, with or without ranges; can drop the line and send too much."""

    def __init__(self, content=CONTENT, ranges=True, drop_after=None):
        self.content, self.ranges, self.drop_after = content, ranges, drop_after
        self.asked = []

    def __call__(self, url, headers):
        self.asked.append(headers.get("Range"))
        start = int(headers["Range"][6:-1]) if "Range" in headers and self.ranges else 0
        return Response(self.content[start:], 206 if start else 200, self.drop_after)


class Response(io.BytesIO):
    def __init__(self, content, status, drop_after):
        super().__init__(content)
        self.status, self.drop_after = status, drop_after

    def read(self, size=-1):
        if self.drop_after is not None and self.tell() >= self.drop_after:
            raise ConnectionResetError("connection reset")
        return super().read(size)


def fetch(target, server, **keys):
    download(URL, target, **{"md5": MD5, "size": len(CONTENT), "progress": Silent(), "open_url": server, **keys})


def test_a_file_arrives_whole_and_nothing_else_stays(tmp_path):
    fetch(tmp_path / "new" / "file", Server())
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert not list((tmp_path / "new").glob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path, ranges):
    with pytest.raises(RunError, match=r"example\.org.*connection reset.*received data are kept.*Run it again"):
        fetch(tmp_path / "file", Server(drop_after=300_000))
    arrived = (tmp_path / "file.part").stat().st_size
    assert 0 < arrived < len(CONTENT) and not (tmp_path / "file").exists()
    server = Server(ranges=ranges)
    fetch(tmp_path / "file", server)
    assert server.asked == [f"bytes={arrived}-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_line_that_ends_early_without_an_error_is_noticed(tmp_path):
    with pytest.raises(RunError, match="connection ended after 1,000 of"):
        fetch(tmp_path / "file", Server(CONTENT[:1000]))


def test_a_wrong_checksum_is_thrown_away(tmp_path):
    with pytest.raises(InputError, match="wrong checksum"):
        fetch(tmp_path / "file", Server(b"x" * len(CONTENT)))
    assert not list(tmp_path.glob("file*")) or [path.name for path in tmp_path.glob("file*")] == ["file.lock"]


def test_a_server_that_sends_without_end_is_cut_off(tmp_path):
    with pytest.raises(RunError, match="sends more than"):
        fetch(tmp_path / "file", Server(CONTENT * 3))
    assert (tmp_path / "file.part").stat().st_size <= len(CONTENT)


def test_no_network_is_one_message_that_says_what_to_put_where(tmp_path):
    def offline(url, headers):
        raise OSError("Name or service not known")

    with pytest.raises(RunError, match=r"Name or service not known.*save it as .*file"):
        fetch(tmp_path / "file", offline)


def test_only_https_is_opened():
    with pytest.raises(ValueError, match="https"):
        open_url("file:///etc/passwd", {})


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def test_named_files_are_taken_from_wherever_they_lie(tmp_path):
    path = tar(tmp_path / "x.tar.gz", [("deep/down/a.bin", b"1"), ("b.bin", b"22"), ("c.bin", b"3")])
    (tmp_path / "out").mkdir()
    extract_named(path, ["a.bin", "b.bin"], tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {"a.bin": b"1", "b.bin": b"22"}


@pytest.mark.parametrize("name", ["/etc/a.bin", "../a.bin", "x/../../a.bin"])
def test_an_archive_that_leads_out_is_refused(tmp_path, name):
    (tmp_path / "out").mkdir()
    path = tar(tmp_path / "x.tar.gz", [(name, b"evil")])
    with pytest.raises(InputError, match=r"x\.tar\.gz: holds .*leads out"):
        extract_named(path, ["a.bin"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_links_damage_and_missing_files_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="link or device"):
        extract_named(tar(tmp_path / "x.tar.gz", [("a.bin", None)]), ["a.bin"], tmp_path / "out")
    path = tar(tmp_path / "y.tar.gz", [("a.bin", bytes(range(256)) * 100)])
    with pytest.raises(InputError, match=r"lacks b\.bin"):
        extract_named(path, ["a.bin", "b.bin"], tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(InputError, match=r"y\.tar\.gz: is a damaged archive"):
        extract_named(path, ["a.bin"], tmp_path / "out")
