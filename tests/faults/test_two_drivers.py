"""Two people run the same study in the same folder: every cell is computed once, also when one of them is killed."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from suite.store import Store

pytestmark = pytest.mark.slow


def done(out: str) -> int:
    """How many cells a run computed itself, by its plain lines."""
    return sum("] done " in line for line in out.splitlines())


def test_two_drivers_share_the_work(
    drive: Callable[..., Any], results: Callable[..., Any], undisturbed: dict[str, Any]
) -> None:
    first, second = drive(), drive()
    ends = [driver.end() for driver in (first, second)]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert sum(done(out) for _, out, _ in ends) == len(undisturbed)
    assert results(first.folder) == undisturbed
    assert not list(first.folder.glob("cells/*.claim-*"))


def test_the_cell_of_a_killed_driver_is_taken_over(
    drive: Callable[..., Any], results: Callable[..., Any], undisturbed: dict[str, Any]
) -> None:
    first, second = drive(), drive()
    first.wait_for_cells(2)
    first.process.send_signal(signal.SIGKILL)
    code, out, _ = second.end()
    assert code == 0
    assert 0 < done(out) <= len(undisturbed)
    assert results(second.folder) == undisturbed
    left = [path.name.partition(".claim-")[0] for path in second.folder.glob("cells/*.claim-*")]
    assert len(left) <= 1  # the kill may have come after a record and before the end of its claim
    Store(second.folder).prepare()  # as every run begins
    assert not list(second.folder.glob("cells/*.claim-*"))
