import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_the_benchmark_of_sharding_runs_and_explains_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    path = Path(__file__).with_name("bench_sharding.py")
    spec = importlib.util.spec_from_file_location("bench_sharding", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_sharding", module)
    spec.loader.exec_module(module)
    out = tmp_path / "sharding.json"
    assert module.main(["--rounds", "2", "--probes", "2", "--steps", "3", "--width", "16", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found) >= {"benchmark", "machine", "versions", "threads", "commit", "command", "rows"}
    for row in found["rows"]:
        assert len(row["ratios"]) == 2
        assert row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]
