"""One thread, no cache of a user, small cells, the command line, a fake Slurm, and what folders are compared by."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch

from data import StoredSplit, write_dataset
from data.hdf5 import open_sealed
from espalier import command_line
from tests.launchers.fake_slurm import FakeSlurm

torch.set_num_threads(1)

NUM_FEATURES, NUM_CLASSES = 6, 3
NUM_EXAMPLES = {"train": 160, "validation": 40, "test": 50}  # train: two batches of 128, for the loss tolerance
VARIES = ("environment", "timings")  # all else that a cell holds is a function of its key

TASK = """
name = "tiny"
model = "mlp"
data = {data!r}
[model_options]
hidden = [8]
[training]
epochs = 3
batch_size = 32
learning_rate = 0.1
[recipes.lomp]
l1 = 1e-3
[recipes.rare_gems]
initialisation = "signed_constant"
"""

STUDY = """
name = "tiny-study"
tasks = ["task.toml"]
methods = ["dense", "lomp", "imp", "rare_gems", "smart_ratio", "random"]
sparsities = [0.5, 0.75]
seeds = [0]
analyses = ["spectrum", "limit", "dense_hessian"]
[options.imp]
fraction_per_round = 0.4
rewind_step = 3
[options.rare_gems]
freeze_period = 1
[options.spectrum]
dtype = "float64"
num_lanczos_steps = 72
[options.limit]
num_lanczos_steps = 72
fine_tune_epochs = 1
"""


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep every data set that tests write out of the user's cache."""
    folder = tmp_path_factory.mktemp("espalier-data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three overlapping clouds in six dimensions: learnable, not separable."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.standard_normal((NUM_CLASSES, NUM_FEATURES))
    splits = {}
    for name, size in NUM_EXAMPLES.items():
        targets = np.arange(size) % NUM_CLASSES
        inputs = (centres[targets] + rng.standard_normal((size, NUM_FEATURES))).astype(np.float32)
        splits[name] = StoredSplit(inputs, targets)
    path = tmp_path_factory.mktemp("tiny") / "clouds.h5"
    write_dataset(path, splits, {"classes": NUM_CLASSES, "source": "made here", "licence": "CC0"})
    return path


@pytest.fixture(scope="session")
def write_tiny_study(tiny_data: Path) -> Callable[[Path], Path]:
    """Return a function that writes the tiny study and its task into a folder: 72 prunable weights, 15 steps."""

    def write(folder: Path) -> Path:
        (folder / "task.toml").write_text(TASK.format(data=str(tiny_data)))
        (folder / "study.toml").write_text(STUDY)
        return folder / "study.toml"

    return write


@pytest.fixture
def tiny_study(tmp_path: Path, write_tiny_study: Callable[[Path], Path]) -> Path:
    """Return the path of the tiny study's file; --set-like overrides make any other study of it."""
    return write_tiny_study(tmp_path)


class Answer(NamedTuple):
    """What a person gets back."""

    code: int
    out: str
    err: str


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


@pytest.fixture(scope="session")
def stamps() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """Return name -> (inode, time of change) of every committed cell: the same before and after, if left alone."""

    def read(folder: Path) -> dict[str, tuple[int, int]]:
        files = {path.name: path.stat() for path in (folder / "cells").glob("[!.]*.h5")}
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in files.items()}

    return read


@pytest.fixture(scope="session")
def science() -> Callable[[Path], dict[str, Any]]:
    """Return everything in a folder's cells that must not depend on where and how they ran."""

    def read(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted((folder / "cells").glob("*.h5")):
            with open_sealed(path) as file:
                found |= _content(file, path.stem)
        return found

    return read


def _content(file: h5py.File, cell: str) -> dict[str, Any]:
    found = {cell: _facts(file)}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] not in VARIES:
            found[f"{cell}/{name}"] = _facts(item)

    file.visititems(visit)
    return found


def _facts(item: h5py.Group | h5py.Dataset) -> tuple[Any, ...]:
    attributes = {name: np.asarray(value).tolist() for name, value in item.attrs.items()}
    if isinstance(item, h5py.Group):
        return (attributes,)
    values = item[()]
    content = values if isinstance(values, bytes) else np.asarray(values).tobytes()  # bytes: NaN equals NaN
    return attributes, str(item.dtype), item.shape, content


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm of a few lines, on the PATH."""
    found = FakeSlurm(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    return found
