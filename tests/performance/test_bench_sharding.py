import pytest

from tests.performance import bench_sharding


@pytest.mark.slow
def test_the_benchmark_of_sharding_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    bench_sharding.main(["--rounds", "2", "--probes", "2", "--steps", "3", "--width", "16", "--smoke"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" | ")[0] for line in lines] == list(bench_sharding.COMPARISONS)
    for line in lines:
        median, lower, upper = (
            float(word.strip("()")) for word in line.partition(" | ")[2].replace(" to ", " ").split()
        )
        assert 0 < lower <= median <= upper
