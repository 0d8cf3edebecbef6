"""Functions named in a config: found on the Python path only, described exactly, and what goes wrong is told."""

import hashlib
import os
import subprocess
import sys

import pytest

from dpmed.errors import InputError
from dpmed.factories import guarded, load_factory

SOURCE = """
def make(size=3):
    return list(range(size))

def fail():
    raise ValueError("too bad")

NUMBER = 7
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's, installed on the path; a new name each time, as modules are imported once."""
    name = f"own_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    (tmp_path / "path" / name).mkdir(parents=True)
    (tmp_path / "path" / name / "__init__.py").write_text("")
    (tmp_path / "path" / name / "data.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "path")
    return name


def test_a_function_on_the_path_is_loaded_called_and_described(package, tmp_path):
    loaded = load_factory(f"{package}.data:make", where="data.factory")
    assert loaded.call(size=2) == [0, 1]
    source = (tmp_path / "path" / package / "data.py").read_bytes()
    assert loaded.digest == hashlib.sha256(source).hexdigest() and loaded.version is None
    assert loaded.module == f"{package}.data"
    assert loaded.describe() == f"{package}.data:make (source SHA-256 {loaded.digest})"


def test_the_version_is_that_of_the_installed_distribution():
    from importlib.metadata import version

    loaded = load_factory("numpy:zeros", where="here")
    assert loaded.version == version("numpy")
    assert f"version {loaded.version}" in loaded.describe()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_package_here.data:make", "there is no module no_such_package_here on the Python path.*PYTHONPATH"),
        ("{package}.nothing:make", r"there is no module {package}\.nothing on the Python path"),
        ("{package}.data:mak", "has no function 'mak'. Did you mean make"),
        ("{package}.data:zzz", "It has fail, make"),
        ("{package}.data:NUMBER", "'NUMBER' is a int, not a function"),
        ("os:system", "is in Python's standard library"),
        ("subprocess:run", "is in Python's standard library"),
    ],
)
def test_what_cannot_be_loaded_is_said_with_its_key(package, name, message):
    name = name.format(package=package)
    with pytest.raises(InputError, match=rf"data.factory = '{name}': .*{message.format(package=package)}"):
        load_factory(name, where="data.factory")


def test_what_raises_is_told_with_file_and_line(package, tmp_path):
    with pytest.raises(InputError, match=r"raised ValueError: too bad at .*data\.py line 6"):
        load_factory(f"{package}.data:fail", where="x").call()
    with pytest.raises(InputError, match=r"raised TypeError: .*unexpected keyword argument 'siz'"):
        load_factory(f"{package}.data:make", where="x").call(siz=3)
    (tmp_path / "path" / package / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(InputError, match=r"raised ModuleNotFoundError: .* at .*broken\.py line 1"):
        load_factory(f"{package}.broken:make", where="x")
    (tmp_path / "path" / package / "syntax.py").write_text("def make(:\n")
    with pytest.raises(InputError, match="raised SyntaxError"):
        load_factory(f"{package}.syntax:make", where="x")


def test_our_own_messages_pass_through():
    def refuse():
        raise InputError("is wrong", where="there")

    with pytest.raises(InputError, match=r"^there: is wrong$"):
        guarded(refuse, where="x")


def test_a_module_in_a_data_folder_is_never_run_though_it_is_on_the_path(package, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "path" / package / "__init__.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(InputError, match=r"is in the data folder .*: code is never run from there"):
        load_factory(f"{package}.data:make", where="x", not_below=[tmp_path / "path"])
    assert not marker.exists()


CODE = """
import sys
from dpmed.errors import InputError
from dpmed.factories import load_factory
try:
    load_factory("lying_around:make", where="x")
    print("ran")
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize(("path", "runs"), [((), False), (("{here}",), True), (("",), False)])
def test_the_current_folder_is_not_searched_unless_the_user_says_so(tmp_path, path, runs):
    import dpmed

    (tmp_path / "lying_around.py").write_text("def make(): return 1\n")
    house = os.path.dirname(os.path.dirname(dpmed.__file__))
    folders = [house, *(entry.format(here=tmp_path) for entry in path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ("ran" in done.stdout) == runs, done.stdout + done.stderr
    assert runs or "there is no module lying_around on the Python path" in done.stdout
