"""What all commands share: an interrupt is never lost."""

import signal
import subprocess
import sys
import time

import pytest

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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_an_interrupt_on_its_way_does_not_come_again(name: str) -> None:
    assert signal.Signals[name]
    assert output_of(SLOW_END.format(name=name))[0] == "ended\nNone\n"
