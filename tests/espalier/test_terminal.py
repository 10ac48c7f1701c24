"""What all commands share: an interrupt is never lost."""

import logging
import signal
import subprocess
import sys
import time

import pytest

from espalier.terminal import Lines, progress_bar, show

LOST = """
import signal, sys, time, weakref
from espalier.terminal import interrupt_has_arrived, interrupt_on_signals

class Thing: pass

def dropped(reference):
    signal.raise_signal(signal.SIGTERM)  # as if the signal came now: Python prints the exception and drops it

interrupt_on_signals()
thing = Thing()
reference = weakref.ref(thing, dropped)
del thing
try:
    time.sleep(20)
except KeyboardInterrupt:
    interrupt_has_arrived()
    print("taken")
"""
SLOW_END = """
import signal, time
from espalier.terminal import interrupt_on_signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
interrupt_on_signals()
try:
    try:
        signal.raise_signal(signal.{name})
    finally:
        time.sleep(1.6)  # whatever was started is ended; the repeated signal must not disturb it
        print("ended")
except KeyboardInterrupt as error:
    print(error.__context__)
"""


def output_of(program: str) -> tuple[str, float]:
    begin_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr
    return done.stdout, time.monotonic() - begin_s


def test_an_interrupt_that_python_drops_comes_again() -> None:
    out, seconds = output_of(LOST)
    assert out == "taken\n"
    assert seconds < 15


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_an_interrupt_on_its_way_does_not_come_again(name: str) -> None:
    assert signal.Signals[name]
    assert output_of(SLOW_END.format(name=name))[0] == "ended\nNone\n"


def test_a_lost_terminal_that_is_ignored_stays_ignored() -> None:
    program = "import signal; from espalier.terminal import interrupt_on_signals as on; "
    program += "signal.signal(signal.SIGHUP, signal.SIG_IGN); on(); signal.raise_signal(signal.SIGHUP); print('alive')"
    assert output_of(program)[0] == "alive\n"


def test_plans_and_warnings_are_told_once_each_and_the_rest_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    plans, search, crew = (logging.getLogger(name) for name in ("suite.curvature.x", "suite.limits.x", "launchers.x"))
    with progress_bar() as progress:
        progress(0.5, "half [of] it")
        for _ in range(2):
            plans.info("%d MiB", 3)
            search.warning("no convergence")
        search.info("a detail")
        crew.info("a detail")
        crew.warning("a worker was lost")
    plans.warning("told to nobody here")
    lines = capsys.readouterr().err.splitlines()
    expected = ["3 MiB", "warning: no convergence", "warning: a worker was lost"]
    assert lines[:3] == [f"espalier: {line}" for line in expected]
    assert logging.getLogger("suite").level == logging.NOTSET


def test_plans_of_memory_are_told_as_they_grow(capsys: pytest.CaptureFixture[str]) -> None:
    plans = logging.getLogger("suite.curvature.memory")
    with progress_bar():
        for mib in (100, 300, 400, 4000, 4300, 4500):  # 4300: less than a tenth more
            plans.info("%d MiB", mib, extra={"peak_bytes": mib * 2**20})
    assert capsys.readouterr().err.splitlines() == [f"espalier: {mib} MiB" for mib in (100, 400, 4000, 4500)]


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 100.0
    lines = Lines(clock=lambda: now_s)
    for now_s in (101.0, 102.5, 110.0, 117.0, 118.0, 133.0):
        lines.take(now_s / 1000, f"at {now_s:g} s")
    said = capsys.readouterr().err.splitlines()
    assert said == ["espalier: 10%: at 102.5 s", "espalier: 12%: at 118 s", "espalier: 13%: at 133 s"]


def test_limits_are_a_table_of_80_columns_and_the_rest_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    limit = {"sparsity_limit": 0.9, "lower": 0.85, "upper": 1.0, "probe_standard_error": None}
    limit |= {"at_half_tolerance": 0.88, "at_double_tolerance": 0.92}
    budget = {"probe_standard_error": 0.003, "truncation": 0.004, "subset_bias": 0.0, "total": 0.005}
    values = {
        "gaussian_width": limit | {"budget": budget | {"epsilon_sensitivity": 0.02}},
        "gaussian_width_faithful": limit | {"num_flat_rows": 3, "lower": None, "upper": None},
        "loss_tolerance_nats": 0.0123456789,
        "rounding_bias": {"relative_error": 1.25e-7, "curvature": None},
        "probes": [{"nodes": [1.0]}],
    }
    show(values)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert [line.split() for line in lines[:3]] == [
        ["sparsity", "limit", "error", "lower", "upper", "half", "double"],
        ["gaussian_width", "0.9000", "0.0050", "0.8500", "-", "0.8800", "0.9200"],
        ["gaussian_width_faithful", "0.9000", "-", "-", "-", "0.8800", "0.9200"],
    ]
    assert lines[5].split() == ["gaussian_width", "0.0030", "0.0040", "0.0000", "0.0050", "0.0200"]
    assert lines[-3:] == [
        "gaussian_width_faithful: num_flat_rows 3",
        "loss_tolerance_nats: 0.0123457",
        "rounding_bias: relative_error 1.25e-07",
    ]
