import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from launchers import _survey
from launchers._survey import Finding, survey


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in survey(start_ray=False)}


def without(*absent: str) -> Callable[..., Any]:
    found = importlib.util.find_spec
    return lambda name, package=None: None if name in absent else found(name, package)


def test_this_machine_lacks_nothing() -> None:
    found = findings()
    assert {"python", "torch", "processors", "GPUs", "ray", "reports", "data folder"} <= set(found)
    assert {finding.verdict for finding in found.values()} <= {"ok", "optional"}
    assert all("\n" not in f"{finding.state}{finding.repair}" for finding in found.values())


def test_what_is_not_installed_is_named_with_its_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("ray", "altair", "jinja2"))
    found = findings()
    assert found["ray"].verdict == "optional"
    assert found["ray"].repair.startswith("pip install -e '.[ray]'")
    assert found["reports"].state == "altair, jinja2 not installed"


def test_no_ray_is_started_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("ray"))
    assert "Ray starts" not in {finding.what for finding in survey()}


def test_a_folder_without_permission_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = findings()
    assert found["data folder"].verdict == "missing"
    assert "ESPALIER_DATA" in found["data folder"].repair


def test_a_data_folder_that_is_not_there_yet_is_judged_by_its_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "a" / "b"))
    assert findings()["data folder"].verdict == "ok"
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 2**20))
    found = findings()["temporary folder"]
    assert (found.verdict, found.repair) == ("missing", "free at least 1 GiB")


def test_a_long_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 60)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert findings()["TMPDIR"].verdict == "optional"


def test_a_ray_that_does_not_start_is_a_finding_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no sockets\nhere")

    monkeypatch.setattr(_survey, "ray_session", broken)
    *_, last = survey()
    assert last == Finding("Ray starts", "missing", "RuntimeError: no sockets", "see its log in TMPDIR")
