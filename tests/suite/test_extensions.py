from pathlib import Path

import pytest

from suite.catalogue import KINDS, catalogue
from suite.errors import UserError, nearest, unknown
from suite.extensions import available, folder_of, load, settings_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An extension folder with two extensions, a shared part and two settings files."""
    name = f"garden_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    for file in ("__init__.py", "_soil.py", "rose.py", "aster.py", "beds.toml", "_draft.toml", "notes.txt"):
        (folder / file).write_text(f"NAME = '{file}'\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_every_file_without_an_underscore_is_found(package: str) -> None:
    assert available(package) == ["aster", "rose"]
    assert available(package, ".toml") == ["beds"]


def test_a_dropped_file_is_found_without_editing_anything(package: str) -> None:
    (folder_of(package) / "tulip.py").write_text("NAME = 'new'\n")
    assert available(package) == ["aster", "rose", "tulip"]
    assert load(package, "tulip", "flower").NAME == "new"


@pytest.mark.parametrize("name", ["ros", "_soil", "notes", "../rose", ""])
def test_what_is_no_extension_is_refused(package: str, name: str) -> None:
    with pytest.raises(UserError) as caught:
        load(package, name, "flower")
    assert str(caught.value).startswith(f"No flower named {name!r}.")
    assert str(caught.value).endswith(f"Known: aster, rose. (a flower is a file in {package})")


def test_a_settings_file_is_a_path(package: str) -> None:
    assert settings_file(package, "beds", "plan") == folder_of(package) / "beds.toml"
    with pytest.raises(UserError, match=r"No plan named 'bed'\. Did you mean 'beds'\?"):
        settings_file(package, "bed", "plan")


def test_the_nearest_name_is_offered_only_when_it_is_near() -> None:
    assert nearest("spectrm", ["spectrum", "limit"]) == " Did you mean 'spectrum'?"
    assert nearest("xyz", ["spectrum", "limit"]) == ""
    assert str(unknown("tool", "x", ["b", "a", "b"])) == "No tool named 'x'. Known: a, b."


def test_a_task_says_whether_it_has_a_faithful_variant() -> None:
    lines = catalogue("tasks")
    assert lines["fc5-cifar10"].endswith(" on CIFAR-10 (also :faithful)")
    assert "faithful" not in lines["mlp-digits"]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_can_be_named_says_what_it_is(kind: str) -> None:
    lines = catalogue(kind)
    assert lines
    assert all(line and "\n" not in line for line in lines.values())
