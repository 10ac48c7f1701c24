"""Data sets from official archives at the command line: prepared, listed, verified, refused, and used by a study."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

import data
from data.archives.blocks import identity_of
from tests.data.official_archives import NUM_CLASSES, PER_CLASS, WRITERS, cifar10_members, tar_gz, write_archive

Espalier = Callable[..., Any]
Refused = Callable[..., str]

TASK = """
name = "small"
model = "mlp"
data = "{name}"
[model_options]
hidden = [4]
[training]
epochs = 2
batch_size = 16
learning_rate = 0.01
"""
STUDY = """
name = "prepared"
tasks = ["task.toml"]
methods = ["lomp", "random"]
sparsities = [0.5]
seeds = [0]
analyses = ["spectrum", "limit"]
[options.spectrum]
num_probes = 1
num_lanczos_steps = 4
[options.limit]
loss_tolerance_nats = 0.05
num_lanczos_steps = 4
fine_tune_epochs = 1
max_evaluations = 12
"""
SMALL_SYNTHETIC = """
[data_options]
input_shape = [2, 9, 7]
num_classes = 3
num_train = 90
num_validation = 20
num_test = 30
"""
GENERATED = {  # batch size, options, and what a file of it holds first
    "cubist": (1024, "", "49,982 examples, inputs 2 float32"),
    "synthetic": (16, SMALL_SYNTHETIC, "90 examples, inputs 2 x 9 x 7 uint8"),
}
CONVOLUTIONAL = """
from torch import nn

def small(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 5, stride=4, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )
"""
CONVOLUTIONAL_TASK = """
name = "convolutional"
model = "mine:small"
data = "cifar10"
[model_options]
width = 4
[training]
epochs = 2
batch_size = 16
learning_rate = 0.01
augmentation = "crop_flip"
[recipes.rare_gems]
initialisation = "signed_constant"
"""
WIDE_STUDY = STUDY.replace('["lomp", "random"]', '["dense", "lomp", "imp", "rare_gems", "smart_ratio", "random"]')
WIDE_STUDY = (
    WIDE_STUDY.replace('"limit"]', '"limit", "row_norms"]')
    + """
[options.imp]
fraction_per_round = 0.5
rewind_step = 1
[options.rare_gems]
freeze_period = 1
"""
)
ROWS = {"dense", "lomp", "lomp_fine_tuned", "imp", "rare_gems", "smart_ratio", "random"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data sets are looked for by their names."""
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "sets"))
    return tmp_path / "sets"


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_from_the_archive_to_the_report(name: str, espalier: Espalier, folder: Path, working_folder: Path) -> None:
    archive = write_archive(name, working_folder)
    answer = espalier("data", "prepare", name, "--from", archive, "--allow-other")
    assert (answer.code, answer.err) == (0, "")
    num_train = PER_CLASS["train"] * NUM_CLASSES[name]
    assert answer.out.startswith(f"{folder / name}.h5: ")
    assert f"{folder / name}.h5" in espalier("data", "list").out
    (working_folder / "task.toml").write_text(TASK.format(name=name))
    (working_folder / "study.toml").write_text(STUDY)
    answer = espalier("run", "study.toml", "--out", "study")
    assert answer.code == 0, answer
    assert (working_folder / "study" / "report" / "index.html").stat().st_size > 10_000
    with h5py.File(working_folder / "study" / "results.h5") as file:
        assert {"rows", "limits", "spectra"} <= set(file["table"])
    verified = espalier("data", "verify", folder / f"{name}.h5")
    assert verified.code == 0
    assert verified.out.count("examples, inputs") == 3
    assert "seal        unbroken" in verified.out
    sizes = [int(line.split()[1].replace(",", "")) for line in verified.out.splitlines()[:2]]
    assert sum(sizes) == num_train


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_from_a_generated_data_set_to_the_report(
    name: str, espalier: Espalier, folder: Path, working_folder: Path
) -> None:
    batch_size, options, first = GENERATED[name]
    task = TASK.format(name=name).replace("batch_size = 16", f"batch_size = {batch_size}")
    (working_folder / "task.toml").write_text(task + options)
    (working_folder / "study.toml").write_text(STUDY)
    answer = espalier("run", "study.toml", "--out", "study")
    assert answer.code == 0, answer
    assert (working_folder / "study" / "report" / "index.html").stat().st_size > 10_000
    with h5py.File(working_folder / "study" / "results.h5") as file:
        assert {"rows", "limits", "spectra"} <= set(file["table"])
    (path,) = folder.glob("*.h5")  # written on first use
    verified = espalier("data", "verify", path)
    assert first in verified.out.splitlines()[0]
    assert "seal        unbroken" in verified.out


@pytest.mark.slow
def test_a_convolutional_net_of_ones_own_with_all_methods(
    espalier: Espalier, folder: Path, working_folder: Path
) -> None:
    archive = write_archive("cifar10", working_folder)
    assert espalier("data", "prepare", "cifar10", "--from", archive, "--allow-other").code == 0
    (working_folder / "mine.py").write_text(CONVOLUTIONAL)
    (working_folder / "task.toml").write_text(CONVOLUTIONAL_TASK)
    (working_folder / "study.toml").write_text(WIDE_STUDY)
    answer = espalier("run", "study.toml", "--out", "study")
    assert answer.code == 0, answer
    with h5py.File(working_folder / "study" / "results.h5") as file:
        assert {"rows", "limits", "spectra", "row_norms"} <= set(file["table"])
        rows = {name: file[f"table/rows/{name}"][()] for name in ("method", "num_prunable", "num_kept")}
    assert {method.decode() for method in rows["method"]} == ROWS
    assert set(rows["num_prunable"]) == {668}  # 3 * 4 * 25 + 4 * 8 * 9 + 8 * 10
    assert sorted(rows["num_kept"]) == [334] * 6 + [668]


def test_an_unprepared_data_set_names_its_command(espalier: Espalier, refused: Refused, folder: Path) -> None:
    line = refused("run", "quickstart", "--set", 'data="cifar10"')
    assert f"{folder}/cifar10.h5 does not exist" in line
    assert "from https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in line
    assert line.endswith("run: espalier data prepare cifar10 --from cifar-10-binary.tar.gz.")
    out = espalier("data", "list").out
    assert "then: espalier data prepare mnist --from FOLDER" in out
    assert f"written on first use: {folder}/digits.h5" in out


def test_a_folder_that_cannot_be_looked_at_ends_no_list(
    espalier: Espalier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def forbidden(path: Path, **follow: bool) -> os.stat_result:
        if path.name == "mnist.h5":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **follow)

    monkeypatch.setattr(Path, "stat", forbidden)  # for root every folder is readable
    answer = espalier("data", "list")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert f"{'':20}cannot be looked at: {folder / 'mnist.h5'}: Permission denied" in lines
    assert [line.split()[0] for line in lines[::2]] == data.available()


def test_what_was_begun_from_another_archive_goes_on_with_its_option(
    espalier: Espalier, folder: Path, working_folder: Path
) -> None:
    archive = data.describe("mnist").archive
    assert archive is not None
    partial = folder / "mnist.h5.partial"
    partial.mkdir(parents=True)
    for md5, ending in ((archive.md5, ""), ({"train": "0" * 32}, " --allow-other")):
        identity = identity_of("mnist", md5, "")
        (partial / f"{identity}-train-0-10.block").write_bytes(b"")
        line = next(each for each in espalier("data", "list").out.splitlines() if "begun in" in each)
        assert line.endswith(f"such as: espalier data prepare mnist --from FOLDER{ending}")


def test_what_cannot_be_prepared_is_told_in_one_line(
    refused: Refused, espalier: Espalier, folder: Path, working_folder: Path
) -> None:
    archive = write_archive("cifar10", working_folder)
    other = write_archive("cifar100", working_folder)
    take = ("data", "prepare", "cifar10", "--from")
    assert "--allow-other" in refused(*take, archive)
    assert "has no member" in refused(*take, other, "--allow-other")
    assert "does not exist" in refused(*take, "no.tar.gz")
    assert "Did you mean 'cifar10'?" in refused("data", "prepare", "cifar1", "--from", archive)
    assert "needs no archive" in refused("data", "prepare", "digits", "--from", archive)
    assert "Missing option '--from'" in refused("data", "prepare", "cifar10")
    assert not folder.exists()
    assert espalier(*take, archive, "--allow-other").code == 0
    assert "is there already" in refused(*take, archive, "--allow-other")
    (working_folder / "place").mkdir()
    line = refused(*take, archive, "--allow-other", "--out", "place")
    given = working_folder / "place"
    assert f"{given} is a folder. Expected: a file. Give a file in it: --out {given / 'cifar10.h5'}." in line
    assert espalier(*take, archive, "--allow-other", "--out", "mine/c.h5").code == 0
    assert (working_folder / "mine/c.h5").read_bytes() == (folder / "cifar10.h5").read_bytes()


def test_folders_that_were_made_for_a_refused_archive_go_again(refused: Refused, working_folder: Path) -> None:
    broken = cifar10_members() | {"cifar-10-batches-bin/test_batch.bin": b"\x0a" + bytes(3072)}
    take = ("data", "prepare", "cifar10", "--allow-other", "--from", tar_gz(working_folder / "a.tar.gz", broken))
    assert "class number 10" in refused(*take, "--out", "deep/er/still/c.h5")
    assert os.listdir(working_folder) == ["a.tar.gz"]
    (working_folder / "deep").mkdir()
    assert "class number 10" in refused(*take, "--out", "deep/er/c.h5")
    assert os.listdir(working_folder / "deep") == []


def test_a_place_that_is_not_ours(refused: Refused, working_folder: Path) -> None:
    archive = write_archive("mnist", working_folder)
    (working_folder / "file").write_text("x")
    line = refused("data", "prepare", "mnist", "--from", archive, "--allow-other", "--out", "file/mnist.h5")
    assert "cannot be written: a file stands where its folder should" in line
    assert os.listdir(working_folder / "mnist") == os.listdir(archive)


def test_a_file_is_verified(espalier: Espalier, refused: Refused, working_folder: Path) -> None:
    archive = write_archive("mnist", working_folder)
    assert espalier("data", "prepare", "mnist", "--from", archive, "--allow-other", "--out", "m.h5").code == 0
    answer = espalier("data", "verify", "m.h5")
    assert answer.out.splitlines()[0] == "train       28 examples, inputs 1 x 28 x 28 uint8"
    content = bytearray((working_folder / "m.h5").read_bytes())
    content[-1000] ^= 1
    (working_folder / "m.h5").write_bytes(content)
    assert "is damaged" in refused("data", "verify", "m.h5")
    assert "does not exist" in refused("data", "verify", "no.h5")
    with h5py.File(working_folder / "own.h5", "w") as file:
        file["train/inputs"], file["train/targets"] = [[1.0], [2.0]], [0, 1]
    assert "seal        none: a file not written by espalier" in espalier("data", "verify", "own.h5").out


def test_what_is_not_prepared_is_told_with_what_makes_it(refused: Refused, folder: Path) -> None:
    for name in ("tinyimagenet", "mnist"):
        assert f"run: espalier data prepare {name} --from " in refused("data", "verify", name)
    line = refused("data", "verify", "digits")
    assert "digits.h5 does not exist. Expected: data set digits, which is written on first use. " in line
    assert not folder.exists()


def test_an_interrupt_says_how_to_go_on(
    espalier: Espalier, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive("mnist", working_folder)
    save = data.archives.blocks.BlockFolder.save
    saved = []

    def save_one(self: Any, block: Any) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(save(self, block))

    monkeypatch.setattr(data.archives.blocks.BlockFolder, "save", save_one)
    take = ("data", "prepare", "mnist", "--from", archive, "--allow-other", "--out", "m.h5")
    answer = espalier(*take)
    assert answer.code == 130
    (line,) = answer.err.splitlines()
    assert line.startswith(
        "espalier: interrupted; what is decoded stays. Go on with the same command: espalier data prep"
    )
    monkeypatch.setattr(data.archives.blocks.BlockFolder, "save", save)
    answer = espalier(*take)
    assert answer.code == 0
    assert answer.out.endswith("m.h5: 28 train, 2 validation, 10 test (30 images were decoded before)\n")
    assert sorted(os.listdir(working_folder)) == ["m.h5", "mnist"]
