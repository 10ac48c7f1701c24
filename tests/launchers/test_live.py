import io
from pathlib import Path

import pytest
from rich.console import Console

from launchers._events import Advanced, Finished, Started
from launchers._live import Display
from suite.attempt import Outcome
from suite.curvature.pace import duration
from suite.plan import Plan

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor


def console_on(stream: io.StringIO, *, terminal: bool = False) -> Console:
    return Console(file=stream, force_terminal=terminal, width=100, legacy_windows=False, _environ={"TERM": "xterm"})


def test_elsewhere_than_on_a_terminal_there_is_one_plain_line_per_cell(tiny_plan: Plan) -> None:
    stream = io.StringIO()
    with Display(tiny_plan, console_on(stream)) as display:
        for cell in tiny_plan.cells:
            display.report(Started(cell))
            display.report(Advanced(cell, 0.5, "epoch 1 of 2"))
            display.report(Finished(Outcome(cell.id, "done", wall_s=1.25)))
    total = len(tiny_plan.cells)
    assert stream.getvalue().splitlines() == [
        f"[{number}/{total}] done 1.2 s {cell.title}" for number, cell in enumerate(tiny_plan.cells, start=1)
    ]


def test_a_failure_stands_in_its_line_and_among_the_failures(tiny_plan: Plan) -> None:
    stream, (first, second, third, *_) = io.StringIO(), tiny_plan.cells
    display = Display(tiny_plan, console_on(stream))
    display.report(Finished(Outcome(first.id, "failed", "no [red]luck", attempts=3)))
    display.report(Finished(Outcome(second.id, "upstream_failed", "needs it", attempts=0)))
    display.report(Finished(Outcome(third.id, "cached")))
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"[1/{len(tiny_plan.cells)}] failed 0.0 s, try 3 {first.title} no [red]luck"
    assert len(lines) == 2  # nothing is said about what was there already
    assert display.failures == [
        f"{first.id.name} ({first.title}): no [red]luck",
        f"{second.id.name} ({second.title}): needs it",
    ]


def test_one_cause_is_one_line_however_many_cells_it_costs(tiny_plan: Plan) -> None:
    display = Display(tiny_plan, console_on(io.StringIO()))
    one, two, three, four, five = tiny_plan.cells
    for number, cell in enumerate((one, two)):
        display.report(Finished(Outcome(cell.id, "failed", f"its job 7_{number} could not begin")))
    for cell in (three, four):
        display.report(Finished(Outcome(cell.id, "upstream_failed", f"needs {one.id.name}", attempts=0)))
    begun = f"{one.id.name} ({one.title}) and 1 more: its job 7_0 could not begin"
    assert display.failures == [begun, f"{three.id.name} ({three.title}) and 1 more: needs {one.id.name}"]
    display.report(Finished(Outcome(five.id, "upstream_failed", f"needs {two.id.name}", attempts=0)))
    assert display.failures == [begun, f"{three.id.name} ({three.title}) and 2 more: need what failed"]


def test_the_summary_counts_what_was_done_found_and_lost(tiny_plan: Plan) -> None:
    display = Display(tiny_plan, console_on(io.StringIO()))
    total = len(tiny_plan.cells)
    assert display.summary().startswith(f"{total} cells: none in ")
    for cell, status in zip(tiny_plan.cells, ("cached", "done", "failed", "upstream_failed"), strict=False):
        display.report(Finished(Outcome(cell.id, status)))  # type: ignore[arg-type]
    assert display.summary().startswith(f"{total} cells: 1 done, 1 cached, 2 failed in ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.1, "4.1 s"),
        (59.3, "59 s"),
        (59.6, "1.0 min"),
        (190, "3.2 min"),
        (3599, "1.0 h"),
        (90060, "25 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str, tiny_plan: Plan) -> None:
    display = Display(tiny_plan, console_on(io.StringIO()))
    display.start_s -= seconds
    assert display.summary().endswith(f" in {text}")


def test_a_terminal_shows_one_table_by_kind_of_cell(tiny_plan: Plan) -> None:
    stream = io.StringIO()
    display = Display(tiny_plan, console_on(stream, terminal=True))
    dense, pruned, *_ = tiny_plan.cells
    display.report(Finished(Outcome(dense.id, "done")))
    display.report(Started(pruned))
    display.report(Advanced(pruned, 0.25, "epoch 1 of 4"))
    console_on(stream).print(display._table())
    rows = [line.strip("│ ").replace("│", " ").split() for line in stream.getvalue().splitlines() if "│" in line]
    num_pruned = sum(cell.id.kind == "prune" for cell in tiny_plan.cells)
    num_dense = len(tiny_plan.cells) - num_pruned
    assert ["dense", "1", "0", "0", "0", str(num_dense - 1)] in rows
    assert ["prune", "0", "0", "1", "0", str(num_pruned - 1)] in rows
    assert f"{pruned.title}  25% epoch 1 of 4" in " ".join(stream.getvalue().split("\n"))
    assert f"1 of {len(tiny_plan.cells)} cells" in stream.getvalue()


def test_the_terminal_gets_its_cursor_back_even_after_an_error(tiny_plan: Plan) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Display(tiny_plan, console_on(stream, terminal=True)):
        raise KeyboardInterrupt
    assert HIDE in stream.getvalue()
    assert stream.getvalue().rindex(SHOW) > stream.getvalue().rindex(HIDE)


def test_no_escape_codes_reach_a_file(tiny_plan: Plan, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file, Display(tiny_plan, Console(file=file)) as display:
        for cell in tiny_plan.cells:
            display.report(Started(cell))
            display.report(Finished(Outcome(cell.id, "done")))
    assert "\x1b" not in (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("\n") == len(tiny_plan.cells)


def test_the_time_left_counts_fractions_but_not_what_an_earlier_run_did(tiny_plan: Plan) -> None:
    display = Display(tiny_plan, console_on(io.StringIO()))
    one, two, *others = tiny_plan.cells
    display.start_s -= 100
    display.report(Started(one))
    assert "left" not in display._remaining()
    display.report(Advanced(one, 0.75, "goes on at step 30"))  # found there: took no time of this run
    assert "left" not in display._remaining()
    display.report(Advanced(one, 0.875, "epoch 7 of 8"))  # an eighth of a cell in 100 s
    left = 0.125 + 1 + len(others)
    assert display._remaining().endswith(f", about {duration(800 * left)} left")
    display.report(Finished(Outcome(one.id, "done")))
    display.report(Finished(Outcome(two.id, "cached")))
    assert display._remaining().endswith(f", about {duration(400 * len(others))} left")
