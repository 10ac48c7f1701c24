"""One finished study to damage, and what a refusal is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SETTINGS = (
    'methods=["dense", "lomp", "imp"]',
    "sparsities=[0.5]",
    'analyses=["spectrum"]',
    "options={imp={fraction_per_round=0.4, rewind_step=3}, spectrum={num_lanczos_steps=10}}",
)
Espalier = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def refused(espalier: Espalier, working_folder: Path) -> Refused:
    """Run a command that must end with exit code 2, one line, and nothing changed on the disk; return the line."""

    def call(*arguments: object) -> str:
        before = everything(working_folder)
        answer = espalier(*arguments)
        assert answer.code == 2, answer
        lines = answer.err.splitlines()
        assert len(lines) == 1, answer.err
        assert lines[0].startswith("espalier: ")
        assert everything(working_folder) == before
        return lines[0]

    return call


def everything(folder: Path) -> dict[str, object]:
    """Return all files and folders, with what tells a change; Python's caches of a user's module do not count."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_size, None if path.is_dir() else path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, write_tiny_study: Callable[[Path], Path]) -> Path:
    """The folder of a small study with all cells and results.h5; tests take copies."""
    from launchers import inline
    from suite.planner import make_plan
    from suite.results import collect
    from suite.store import Store
    from suite.study import read_study

    folder = tmp_path_factory.mktemp("finished")
    plan = make_plan(*read_study(str(write_tiny_study(tmp_path_factory.mktemp("studies"))), SETTINGS))
    store = Store(folder)
    store.prepare()
    plan.freeze(folder)
    inline.run(plan, folder, workers=1, report=lambda _: None)
    collect(plan, store, "espalier run")
    return folder


@pytest.fixture
def study(finished_study: Path, working_folder: Path) -> Path:
    """A copy of the finished study, at work/study."""
    return Path(shutil.copytree(finished_study, working_folder / "study"))


@pytest.fixture
def settings() -> list[str]:
    """The options of `espalier run` that make the tiny study the one in finished_study."""
    return [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture
def small_study(working_folder: Path, write_tiny_study: Callable[[Path], Path]) -> Path:
    """The file of the tiny study, in a folder beside the working folder."""
    folder = working_folder.parent / "studies"
    folder.mkdir()
    return write_tiny_study(folder)
