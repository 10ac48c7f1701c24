"""Bad input to `run`: exit code 2, one line, nothing written (the fixture `refused` holds it to that)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from espalier.terminal import num_processors

Refused = Callable[..., str]
# Settings that are refused for the tiny study -> words that the one line must hold.
SETTINGS = [
    ('methods=["lompp"]', "No method named 'lompp'. Did you mean 'lomp'? Known: dense, imp, lomp, "),
    ('tasks=["mlp-digit"]', "No task named 'mlp-digit'. Did you mean 'mlp-digits'?"),
    ('tasks=["none.toml"]', "none.toml cannot be read: No such file or directory."),
    ('analyses=["spectrums"]', "No analysis named 'spectrums'. Did you mean 'spectrum'?"),
    ('analyses=["prune"]', "No analysis named 'prune'."),
    ('data="digit"', "No data set named 'digit'. Did you mean 'digits'?"),
    ('data="/nowhere/mine.h5"', "/nowhere/mine.h5 does not exist. Expected: an HDF5 file."),
    ('model="mpl"', "No model named 'mpl'. Did you mean 'mlp'?"),
    ('model="nowhere_to_be_found:build"', "there is no module 'nowhere_to_be_found'"),
    ("model_options.hiden=[8]", "unknown key 'hiden'. Did you mean 'hidden'?"),
    ("trainin.epochs=1", "No setting named 'trainin'. Did you mean 'training'?"),
    ("training.epoch=1", "unknown key 'training.epoch'. Did you mean 'epochs'?"),
    ("training.epochs=many", "training.epochs = 'many': Input should be a valid integer."),
    ("training.epochs=0", "training.epochs = 0: Input should be greater than or equal to 1."),
    ("training.epochs=100000000000000000000", "Input should be less than or equal to 1000000."),
    (
        'recipes.lomp.compile="cuda_graphs"',
        'task tiny: training.compile = "cuda_graphs" needs a CUDA GPU, this is cpu.',
    ),
    ("threads=1000", "task tiny: threads = 1000 is too much for "),
    ("training.learning_rate=nan", "training.learning_rate"),
    ("training.epochs.x=1", "'epochs' is a value, not a table."),
    ("training.epochs", "--set 'training.epochs' is no KEY=VALUE. Expected: for example"),
    ("=3", "--set '=3' is no KEY=VALUE."),
    ("training..epochs=3", "--set 'training..epochs=3' is no KEY=VALUE."),
    ("recipes.lomp.l2=1", "unknown key 'l2'."),
    ("options.imp.rewind_steps=5", "options.imp: unknown key 'rewind_steps'. Did you mean 'rewind_step'?"),
    ("options.imp.rewind_step=15", "rewind_step = 15 is past the end of training on task tiny. Expected: below its 15"),
    (
        "options={}",
        "Expected: below its 15 steps. It is the default of imp: set options.imp.rewind_step, or train for m",
    ),
    ("options.imps.rewind_step=5", "No method or analysis of this study named 'imps'. Did you mean 'imp'?"),
    ("options.dense_hessian.max_dim=10", "needs a 72 x 72 matrix. Expected: at most 10 weights"),
    ("sparsities=[95]", "sparsity 95 is not a fraction removed in [0, 1); did you mean 0.95?"),
    ("sparsities=[1.0]", "sparsity 1 is not a fraction removed in [0, 1)."),
    ("sparsities=[-0.5]", "sparsity -0.5 is not a fraction removed in [0, 1)."),
    ("sparsities=[0.999]", "sparsity 0.999 keeps none of 72 weights."),
    ("sparsities=[0.5, 0.5]", "0.5 stands more than once"),
    ("sparsities=[0.5, 0.5001]", "sparsities 0.5 and 0.5001 both keep 36 of the 72 weights"),
    ("sparsities=[]", "the grid is empty: methods need sparsities"),
    ('sparsities=["0.5"]', "sparsities.0 = '0.5'"),
    ("seeds=[]", "seeds = []"),
    ("seeds=[-1]", "seeds.0 = -1: Input should be greater than or equal to 0."),
    ("seeds=[0, 0]", "0 stands more than once"),
    ("seeds=[0.5]", "seeds.0 = 0.5"),
    ("seeds=[9223372036854775808]", "seeds.0 = 9223372036854775808"),
    ('methods=["lomp", "lomp"]', "'lomp' stands more than once"),
    ("methods=lomp", "methods = 'lomp'"),
    ('name="../elsewhere"', "name = '../elsewhere'"),
    ("name=2020-01-01", "is not JSON serializable"),
    ("threads=0", "threads = 0"),
]


@pytest.mark.parametrize(("setting", "words"), SETTINGS, ids=[setting for setting, _ in SETTINGS])
def test_a_setting_that_cannot_be_is_refused(setting: str, words: str, small_study: Path, refused: Refused) -> None:
    assert words in refused("run", small_study, "--set", setting)


def test_a_value_of_set_is_not_blamed_on_the_file(small_study: Path, refused: Refused) -> None:
    line = refused("run", small_study, "--set", "training.learning_rate=-1")
    assert line.startswith("espalier: --set on task task.toml: training.learning_rate = -1: Input should be greater")
    line = refused("run", small_study, "--set", "seeds=[-1]")
    assert line == f"espalier: --set on {small_study}: seeds.0 = -1: Input should be greater than or equal to 0."
    small_study.write_text(small_study.read_text().replace("seeds", "seed"))
    assert refused("run", small_study, "--set", "sparsities=[0.5]").startswith(f"espalier: {small_study}: ")


def test_an_empty_grid(small_study: Path, refused: Refused) -> None:
    line = refused("run", small_study, "--set", "methods=[]", "--set", "analyses=[]")
    assert "the grid is empty: name at least one of methods, analyses." in line


def test_a_study_that_is_not_known(refused: Refused) -> None:
    assert "No study named 'quikstart'. Did you mean 'quickstart'?" in refused("run", "quikstart")


def test_a_launcher_that_is_not_known(small_study: Path, refused: Refused) -> None:
    assert "No launcher named 'rays'. Did you mean 'ray'?" in refused("run", small_study, "--launcher", "rays")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'name = "x"\ntasks = [\nseeds = 1 2\n', "is not valid TOML: "),
        (b"\xff\xfe\x00", "is not a text file. Expected: TOML in UTF-8."),
        (b"", "the keys 'name', 'tasks' and 'seeds' are missing. Add them."),
        (b'name = "x"\nseeds = [0]\n', "the key 'tasks' is missing. Add it."),
        (b'name = "x"\ntasks = ["tiny"]\nseeds = [0]\nsparsity = [0.5]\n', "unknown key 'sparsity'. Did you mean"),
        (b'name = "x"\ntasks = [3]\nseeds = [0]\n', "tasks.0 = 3"),
        (b'name = "x"\ntasks = "mlp-digits"\nseeds = [0]\n', "tasks = 'mlp-digits'"),
    ],
)
def test_a_study_file_that_is_none(content: bytes, words: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    line = refused("run", tmp_path / "mine.toml")
    assert words in line
    assert "mine.toml" in line


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine.toml").write_text('name = "x"\n\nseeds = 1 2\n')
    assert "line 3, column" in refused("run", tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["none.toml", "folder.toml", "no/such/folder"])
def test_a_study_file_that_cannot_be_read(name: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert f"{tmp_path / name} cannot be read: " in refused("run", tmp_path / name)


def test_a_task_file_that_is_none(small_study: Path, refused: Refused) -> None:
    small_study.with_name("task.toml").write_text("name = 'tiny'\n[training\n")
    assert "task.toml is not valid TOML: " in refused("run", small_study)


def test_two_tasks_of_one_name(small_study: Path, refused: Refused) -> None:
    copied = small_study.with_name("copy.toml")
    copied.write_text(small_study.with_name("task.toml").read_text())
    small_study.write_text(small_study.read_text().replace('["task.toml"]', '["task.toml", "copy.toml"]'))
    line = refused("run", small_study)
    assert "two tasks are named 'tiny'. Give each its own name." in line


def test_a_folder_below_a_file(small_study: Path, working_folder: Path, refused: Refused) -> None:
    (working_folder / "file").write_text("")
    assert "file/x cannot be written: Not a directory." in refused("run", small_study, "--out", "file/x")


def test_a_folder_that_is_a_file(small_study: Path, working_folder: Path, refused: Refused) -> None:
    (working_folder / "file").write_text("")
    assert "file cannot be written: " in refused("run", small_study, "--out", "file")


WIDE = """
from torch import nn

def build():
    return nn.Linear(7, 3)

def two_classes():
    return nn.Linear(6, 2)

def leaves():
    raise SystemExit(3)

class Leaving(nn.Linear):
    def forward(self, inputs):
        exit(4)

def leaves_later():
    return Leaving(6, 3)
"""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("build", "wide:build does not take inputs of shape (6,): mat1 and mat2 shapes cannot be multiplied"),
        ("two_classes", "wide:two_classes returned (2, 2) for 2 inputs. Expected: logits (2, classes) for at least 3"),
        ("leaves", "wide:leaves failed in wide.py, line 11: SystemExit: 3. Mend the function."),
        ("leaves_later", "wide:leaves_later does not take inputs of shape (6,): it ends Python: SystemExit 4 (wide.py"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_told_before_anything_runs(
    function: str, words: str, small_study: Path, working_folder: Path, refused: Refused
) -> None:
    (working_folder / "wide.py").write_text(WIDE)
    settings = ("--set", f"model=wide:{function}", "--set", "model_options={}")
    assert words in refused("run", small_study, *settings)


@pytest.mark.parametrize("setting", ['training.precision="tf32"', 'training.compile="cuda_graphs"', "threads=1000"])
@pytest.mark.parametrize("also", [("--launcher", "ray"), ("--dry-run",), ("--smoke",)])
def test_what_this_machine_cannot_run_is_refused_however_it_is_run(
    setting: str, also: tuple[str, ...], small_study: Path, refused: Refused
) -> None:
    if torch.cuda.is_available() and not setting.startswith("threads"):
        pytest.skip("a GPU can")
    line = refused("run", small_study, "--set", "analyses=[]", "--set", setting, *also)
    assert re.search(r"needs a CUDA GPU, this is cpu|threads = 1000 is too much for \d+ processors?", line)


def test_more_workers_than_the_machine_can_hold(small_study: Path, refused: Refused) -> None:
    line = refused("run", small_study, "--launcher", "ray", "--workers", "100000")
    most = 16 * num_processors()
    assert f"--workers 100000 is too much for {num_processors()} processor" in line
    assert line.endswith(f"Expected: at most {most}, 16 for each.")


def test_a_module_that_ends_python_ends_in_one_line(small_study: Path, working_folder: Path, refused: Refused) -> None:
    (working_folder / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    line = refused("run", small_study, "--set", "model=leaving:build", "--set", "model_options={}")
    assert "importing leaving failed: SystemExit: 3. Mend the module." in line
