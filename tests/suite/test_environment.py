import json
import re
import subprocess

import pytest

from suite.environment import PACKAGES, VARIABLES, commit, environment, gpu_is_lost


def test_nothing_but_the_allow_list_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-mine")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_JOB_PARTITION", raising=False)
    found = environment("cpu", 3)
    assert "a-secret-of-mine" not in json.dumps(found)
    assert found["variables"]["SLURM_JOB_ID"] == "4711"
    assert "SLURM_JOB_PARTITION" not in found["variables"]
    assert set(found["variables"]) <= set(VARIABLES)
    assert set(found["packages"]) <= set(PACKAGES)


def test_no_name_on_the_allow_list_looks_like_a_secret() -> None:
    assert not [name for name in VARIABLES if re.search("KEY|TOKEN|SECRET|PASS|CRED|COOKIE|AUTH", name)]


def test_it_says_what_explains_a_difference() -> None:
    found = environment("cpu", 3)
    assert (found["threads"], found["device"]) == (3, "cpu")
    assert found["num_cpus"] >= 1
    assert {"torch", "numpy", "h5py"} <= set(found["packages"])
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_a_hash_or_unknown() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", commit())


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    commit.cache_clear()
    try:
        assert commit() == "unknown"
    finally:
        commit.cache_clear()


def test_a_gpu_is_lost_when_an_earlier_error_fails_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    def asserted() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("torch.cuda.synchronize", asserted)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    assert not gpu_is_lost()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    assert gpu_is_lost()
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    assert not gpu_is_lost()
