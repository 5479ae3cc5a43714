from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.suite.errata import Erratum, Release, errata_folder, errata_of, load_release

HEAD = 'driver = "x"\nprovider = "p"\nversion = "1"\n'
ENTRY = """
[[known]]
test = "drivers/test_attach.py::test_shows_once"
why = "the same disk shows twice"
source = "announcement of 0.0.3"
until = "0.0.4"
"""


def package(name, version, provider="p"):
    return SimpleNamespace(name=name, version=version, provider=provider)


def write(folder, text, name="xenvbd.toml"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def erratum(test="drivers/test_attach.py::test_shows_once", until="open"):
    return Erratum(test=test, why="w", source="s", until=until)


@pytest.mark.parametrize(
    ("test_id", "named"),
    [
        ("tests/drivers/test_attach.py::test_shows_once", True),
        ("drivers/test_attach.py::test_shows_once[hdc]", True),
        ("test_attach.py::test_shows_once", False),
        ("tests/mydrivers/test_attach.py::test_shows_once", False),
        ("tests/drivers/test_attach.py::test_shows_once_more", False),
        ("tests/drivers/test_attach.py::TestX::test_shows_once", False),
    ],
)
def test_names_a_test_by_the_end_of_its_path(test_id, named):
    assert erratum().names(test_id) is named


def test_names_one_parameter_if_it_says_so():
    one = erratum("drivers/test_attach.py::test_x[hdc]")
    assert one.names("tests/drivers/test_attach.py::test_x[hdc]")
    assert not one.names("tests/drivers/test_attach.py::test_x[sda]")


@pytest.mark.parametrize(
    ("driver", "provider", "version", "covered"),
    [
        ("xenvbd", "p", "0.0.3.1", True),
        ("XENVBD", "p", "0.0.3.1", True),
        ("xenvbd", "p", "0.0.31.1", False),
        ("xenpci", "p", "0.0.3.1", False),
        ("xenvbd", "another", "0.0.3.1", False),
    ],
)
def test_release_covers_its_versions(driver, provider, version, covered):
    release = Release(driver="xenvbd", provider="p", version="0.0.3.*")
    assert release.covers(package(driver, version, provider)) is covered


@pytest.mark.parametrize(("version", "known"), [("0.0.3.1", 1), ("0.0.4.0", 0), ("0.0.10.0", 0)])
def test_what_is_mended_is_not_expected_any_more(tmp_path, version, known):
    write(tmp_path, 'driver = "xenvbd"\nprovider = "p"\nversion = "0.0.*"\n' + ENTRY)
    assert len(errata_of(package("xenvbd", version), tmp_path).known) == known


def test_several_files_add_up(tmp_path):
    write(tmp_path, 'driver = "xenvbd"\nprovider = "p"\nversion = "0.0.3.1"\n' + ENTRY, "a.toml")
    write(tmp_path, 'driver = "xenvbd"\nprovider = "p"\nversion = "0.0.*"\n' + ENTRY, "b.toml")
    write(tmp_path, 'driver = "other"\nprovider = "p"\nversion = "1.0"\n' + ENTRY, "c.toml")
    found = errata_of(package("xenvbd", "0.0.3.1"), tmp_path)
    assert [path.name for path in found.files] == ["a.toml", "b.toml"]
    assert len(found.known) == 2
    test_id = "tests/drivers/test_attach.py::test_shows_once"
    assert found.naming([test_id, "x.py::test_y"]) == ((test_id, found.known[0]),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("driver = ", "not TOML"),
        ('driver = "xenvbd"', "provider"),
        (HEAD + 'note = "?"', "note"),
        (HEAD + '[[known]]\ntest = "a.py::b"', "known.0.why"),
        (
            HEAD + ENTRY.replace("test_attach.py", "x"),
            "known.0.test",
        ),
        (
            HEAD + ENTRY.replace("0.0.4", "soon"),
            "known.0.until",
        ),
        (
            HEAD + ENTRY + 'says = "("',
            "regular expression",
        ),
        (HEAD + ENTRY + "crash = 1", "crash"),
        (HEAD + ENTRY.replace("shows twice", ""), None),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    if message is None:
        load_release(path)
        return
    with pytest.raises(UsageError) as refused:
        errata_of(package("another", "1.0"), tmp_path)
    assert message in refused.value.message
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message


def test_a_folder_that_is_named_must_exist(tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        errata_of(package("xenvbd", "1.0"), tmp_path / "missing")


@pytest.mark.parametrize("path", sorted(errata_folder().glob("*.toml")), ids=lambda p: p.name)
def test_published_errata_name_tests_that_exist(path):
    for known in load_release(path).known:
        file, _, name = known.test.partition("::")
        tree = ast.parse((repo_root() / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name.partition("[")[0].rpartition("::")[2] in functions, f"no test {known.test}"
