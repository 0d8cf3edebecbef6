from pathlib import Path

import pytest

from dpmed.data.listing.names import check_name
from dpmed.errors import InputError


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a/../b.png", "leads out of the folder /data"),
        ("a/b\0.png", "leads out"),
        ("a/", "leads out"),
        ("a/" + "ü" * 126 + ".png", "longer than that of any file"),
        ("a/" * 2000 + "b.png", "longer than that of any file"),
        ("a/M\udcfcller.png", r"'a/M\\udcfcller.png' is not UTF-8.*convmv"),
    ],
)
def test_what_is_wrong_with_a_name_is_said_in_text_that_any_terminal_shows(name, problem):
    with pytest.raises(InputError, match=f"here: the name .*{problem}") as found:
        check_name(name, Path("/data"), source="here")
    str(found.value).encode()


@pytest.mark.parametrize("name", ["a.png", "a/b/..c.png", "Müller/1.png", "=1+1.png", 'a",\n.png'])
def test_any_other_name_is_fine(name):
    check_name(name, Path("/data"), source="here")
