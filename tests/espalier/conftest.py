"""The command line called in this process, and one finished study to damage."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from espalier import command_line


class Answer(NamedTuple):
    """What a person gets back."""

    code: int
    out: str
    err: str


SETTINGS = (
    'methods=["dense", "lomp", "imp"]',
    "sparsities=[0.5]",
    'analyses=["spectrum"]',
    "options={imp={fraction_per_round=0.4, rewind_step=3}, spectrum={num_lanczos_steps=10}}",
)
Espalier = Callable[..., Answer]
Refused = Callable[..., str]


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that commands run in; what a user's modules leave behind in this process is undone."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    modules, threads = set(sys.modules), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield folder
    for name in set(sys.modules) - modules:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]
    for each, handler in handlers.items():
        signal.signal(each, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def espalier(
    working_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Run one command; whatever is no exit code fails the test, as a traceback would trouble a user."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["espalier", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Answer(code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def refused(espalier: Espalier, working_folder: Path) -> Refused:
    """Run a command that must end with exit code 2, one line, and nothing changed on the disk; return the line."""

    def call(*arguments: object) -> str:
        before = _everything(working_folder)
        answer = espalier(*arguments)
        assert answer.code == 2, answer
        lines = answer.err.splitlines()
        assert len(lines) == 1, answer.err
        assert lines[0].startswith("espalier: ")
        assert _everything(working_folder) == before
        return lines[0]

    return call


def _everything(folder: Path) -> dict[str, object]:
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
