import pytest

from tests.performance import bench_prepare


@pytest.mark.slow
def test_the_benchmark_of_preparing_runs(capfd: pytest.CaptureFixture[str]) -> None:
    bench_prepare.main(["--per-class", "2", "--smoke"])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith("tinyimagenet.h5: 360 train, 40 validation, 40 test")
    label, *numbers = lines[1].split(" | ")
    assert label == "440 JPEGs"
    rate, rate_of_processor, peak_mib, archive_mib, file_mib = (float(number.replace(",", "")) for number in numbers)
    assert 0 < rate < 1.5 * rate_of_processor  # one processor
    assert 20 < peak_mib < 1000
    assert archive_mib < file_mib
