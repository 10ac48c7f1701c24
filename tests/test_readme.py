"""The README stays true: its files and commands run as written, its links resolve, its table names real contracts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.official_archives import write_archive

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXTENSION_FOLDERS = {
    "suite/pruning/methods",
    "suite/models",
    "suite/tasks",
    "suite/studies",
    "suite/cells",
    "launchers",
    "data",
    "reports/tables",
    "reports/figures",
}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def block_with(language: str, text: str) -> str:
    (found,) = [block for block in blocks(language) if text in block]
    return found


def run_all(commands: str, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run a block line by line as a shell would, with the environment's own programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return [
        subprocess.run(line, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        for line in commands.strip().splitlines()
    ]


@pytest.mark.slow
def test_own_study_runs_as_written(tmp_path):
    (tmp_path / "my-study.toml").write_text(block_with("toml", 'name = "my-study"'))
    run, status, report = run_all(block_with("sh", "espalier run my-study.toml --launcher ray"), tmp_path)
    assert (run.returncode, status.returncode, report.returncode) == (0, 0, 0), run.stderr + status.stderr
    assert "LOMP + fine-tuning" in run.stdout
    assert "prune" in status.stdout
    assert (tmp_path / "runs/my-study/report/index.html").stat().st_size > 100_000


@pytest.mark.slow
def test_own_network_runs_as_written(tmp_path):
    (tmp_path / "mynet.py").write_text(block_with("python", "def build"))
    (tmp_path / "prepare.py").write_text(block_with("python", "torch.save"))
    done = run_all(block_with("sh", "prepare.py"), tmp_path)
    assert [each.returncode for each in done] == [0, 0, 0], "".join(each.stderr for each in done)
    notebook = f"{block_with('python', 'torch.save')}\n{block_with('python', 'espalier.limit')}\nprint(found)"
    shown = subprocess.run([sys.executable, "-c", notebook], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "statistical_dimension" in shown.stdout
    values = json.loads((tmp_path / "limit.json").read_text())
    assert 0 < values["gaussian_width"]["sparsity_limit"] <= values["statistical_dimension"]["sparsity_limit"] < 1
    assert values["num_prunable_weights"] == 8 * 9 + 288 * 10
    assert values["statistical_dimension"]["budget"]["total"] <= 0.01


def test_the_make_commands_exist_and_the_first_two_are_all_that_a_new_user_needs():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    commands = [line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("make")]
    assert commands[:2] == ["quickstart", "test"]
    assert {*commands, *re.findall(r"`make ([a-z-]+)`", README)} <= set(targets)


def test_ci_runs_the_readmes_test_command():
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")


def test_prose_is_wrapped():
    prose = re.sub(r"<!-- benchmarks.*<!-- end of benchmarks -->|^\|.*?$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 120]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document):
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_every_extension_folder_is_in_the_table():
    folders = re.findall(r"^\| a.*?\]\(([^)]+)\)", README, flags=re.MULTILINE)
    assert set(folders) == EXTENSION_FOLDERS
    for folder in folders:
        files = [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("*.toml")]
        assert [path for path in files if not path.stem.startswith("_")], folder


@pytest.mark.slow
def test_the_papers_data_are_prepared_as_written(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "data"))
    commands = block_with("sh", "espalier data prepare")
    archive = write_archive("cifar10", tmp_path)
    assert archive.name in commands
    refused, *_ = run_all(commands, tmp_path)
    assert refused.returncode == 2  # a small archive of the official format has another checksum
    prepared, listed = run_all(commands.replace(archive.name, f"{archive.name} --allow-other"), tmp_path)
    assert (prepared.returncode, listed.returncode) == (0, 0), prepared.stderr
    assert f"prepared, not from the published archive: {tmp_path / 'data' / 'cifar10.h5'}" in listed.stdout
