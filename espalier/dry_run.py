"""What `run --dry-run` and `submit --dry-run` print: a plan that a person can judge before anything is spent."""

import os
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from espalier.amounts import count, ends, gpu_hours, guessed, hours, in_bytes, likely, operations
from espalier.terminal import num_processors, num_workers, progress_bar, told_by_the_engine
from suite.curvature.pace import duration

if TYPE_CHECKING:
    from rich.table import Table

    from launchers._profile import Profile, Resources
    from suite.datasets import Located
    from suite.estimate.cost import CellCost, Estimate
    from suite.estimate.work import Guess
    from suite.plan import Plan
    from suite.study import Task

WIDTH = 100  # of lines in a pipe
_UNBOUNDED = 10_000  # columns, more than any table has
BUDGET_S = 4.0  # for the timings of one task
USUAL_TFLOPS = 20.0  # that a data-centre GPU may sustain in float32 on convolutions; an example
_CUDA_BYTES = 3 * 2**30  # of host memory that CUDA's libraries take; a guess
_BUSY = 1.2  # load per processor; this measurement makes 1 of it itself
_HEADS = ("Task and work", "Cells", "Trainings", "Steps", "Products", "Time", "Least-most", "Memory", "Disk")


def tell_plan(
    study: str,
    override: list[str],
    out: Path | None,
    *,
    tflops: float | None,
    workers: int | None,
    profile: "Profile | None",
    check: "Callable[[Plan, Path], None] | None" = None,
) -> None:
    """Plan a study, estimate it on this machine, and print both; nothing is made or left on disk.

    check: of the plan and its folder, before anything is measured; it raises as a run would.

    Raises:
        UserError: as for a run of the study.
    """
    from suite.datasets import located_or_expected
    from suite.environment import best_device
    from suite.estimate.cost import estimate
    from suite.planner import make_plan
    from suite.store import Store
    from suite.study import read_study

    known: dict[str, Located] = {}

    def find(task: "Task") -> "Located":
        key = f"{task.data} {task.data_options}"
        if key not in known:
            known[key] = located_or_expected(task.data, task.data_options)
        return known[key]

    with told_by_the_engine():
        plan = make_plan(*read_study(study, override), find)
    store = Store((out or Path("runs") / plan.study.name).absolute())
    if check is not None:
        check(plan, store.folder)
    with progress_bar() as advance:
        found = estimate(
            plan, find, lambda cell: store.is_committed(cell.id), best_device(), budget_s=BUDGET_S, advance=advance
        )
    shown = Shown(plan, found, tflops)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    # A number that is broken over two lines reads as two.
    wide = Console(width=max(console.width, shown.width()))
    console.print(shown.head(store.folder), highlight=False, soft_wrap=True, markup=False)
    if found.costs:
        wide.print(shown.table(plain=not console.is_terminal), crop=False)
    at_once = workers or (profile.max_running if profile else num_workers())
    for line in shown.lines(at_once, profile, [find(task) for task in plan.tasks.values()]):
        console.print(line, highlight=False, markup=False)


class Shown:
    """An estimate as text; tflops: of the GPU that hours are meant for, None for this machine's."""

    def __init__(self, plan: "Plan", found: "Estimate", tflops: float | None) -> None:
        self.plan, self.found, self.tflops = plan, found, tflops
        self.untold = {} if tflops else found.contradictory  # tasks whose times are worth nothing

    def seconds(self, cost: "CellCost") -> "Guess":
        """Return a cell's time on the device that is meant."""
        if self.tflops is None:
            return cost.seconds
        from suite.estimate.work import Guess

        return Guess.total(
            [Guess.exactly(cost.begin_s), cost.flops.times(1 / (1e12 * self.tflops * cost.cell.processes))]
        )

    def likely_s(self, cost: "CellCost") -> float:
        """Return the likely one."""
        return self.seconds(cost).likely

    def head(self, folder: Path) -> str:
        """Return what is planned, and what of it is there."""
        done = f", {self.found.num_done} of them done in {folder}" if self.found.num_done else ""
        left = "; left to do:" if self.found.costs else ": nothing is left to do"
        return f"study {self.plan.study.name}: {len(self.plan.cells)} cells{done}{left}"

    def width(self) -> int:
        """Return the columns of a screen that the table takes."""
        from rich.measure import Measurement

        console = Console(width=_UNBOUNDED)
        return Measurement.get(console, console.options, self.table(plain=False)).maximum

    def table(self, *, plain: bool) -> "Table":
        """Return a row for each task and kind of work, and the totals."""
        from rich import box
        from rich.table import Table

        table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        rows = list(self._rows())
        used = [index for index in range(len(_HEADS)) if any(row[index] not in ("", "-") for row in rows)]
        for index in used:
            table.add_column(_HEADS[index], justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(row[index] for index in used))
        return table

    def _rows(self) -> Iterator[list[str]]:
        for task, of_task in _grouped(self.found.costs, lambda cost: cost.task).items():
            yield self._row(task, of_task)
            for label, costs in _grouped(of_task, lambda cost: cost.label).items():
                yield self._row(f"  {label}", costs)
        if len(self.plan.tasks) > 1:
            yield self._row("total", list(self.found.costs))

    def _row(self, name: str, costs: "list[CellCost]") -> list[str]:
        from suite.estimate.work import Guess

        work = [cost.work for cost in costs]
        peaks = [cost.memory.process_bytes if cost.memory else None for cost in costs]
        device_peaks = [cost.memory.device_bytes if cost.memory else None for cost in costs]
        if self.found.device == "cuda":
            peaks = device_peaks
        known = [peak for peak in peaks if peak is not None]
        time = Guess.total(self.seconds(cost) for cost in costs if cost.task not in self.untold)
        untold = any(cost.task in self.untold for cost in costs)
        return [
            name,
            str(len(costs)),
            likely(Guess.total(each.num_trainings for each in work), count),
            likely(Guess.total(each.gradient_steps for each in work), count),
            likely(Guess.total(each.products for each in work), count),
            " ".join([likely(time, duration)] * (time.high > 0 or not untold) + ["+?" if time.high else "?"] * untold),
            ends(time, duration),
            (in_bytes(max(known)) if known else "?") + " +?" * (len(known) < len(peaks) and bool(known)),
            in_bytes(sum(each.disk_bytes for each in work)),
        ]

    def lines(self, workers: int, profile: "Profile | None", data: "list[Located]") -> Iterator[str]:
        """Yield what stands below the table."""
        for located in {each.path: each for each in data}.values():
            if located.missing:
                yield f"data not prepared: {located.spec.name}, {located.missing}"
        if not self.found.costs:
            return
        yield from self._times(workers)
        yield f"disk: {in_bytes(self.found.disk_bytes)} in cells, and as much again in results.h5"
        yield from self._measured()
        yield from self._doubts()
        if profile is not None:
            yield from self._profile(profile)

    def _times(self, workers: int) -> Iterator[str]:
        yield from self._of_the_machine(workers) if not self.untold else self._contradictions()
        given, hint = (self.tflops, "") if self.tflops else (USUAL_TFLOPS, " (--tflops to change)")
        total = gpu_hours(self.found.flops.times(1 / (1e12 * given)))
        yield f"at {given:g} TFLOP/s sustained: {total}{hint}; small networks wait for their kernels, and sustain less"

    def _contradictions(self) -> Iterator[str]:
        for task, spread in self.untold.items():
            yield f"{task}: no times, for equal trials differed by a factor of {spread:.2g}; estimate it again later."

    def _of_the_machine(self, workers: int) -> Iterator[str]:
        flops = self.found.flops
        chain = self.found.longest_chain(self.likely_s)
        labels = [f"{len(costs)} {label}" for label, costs in _grouped(chain, lambda cost: cost.label).items()]
        wall_s = self.found.wall_s(workers, self.likely_s)
        chain_s = duration(sum(map(self.likely_s, chain)))
        yield f"longest chain: {chain_s} ({', '.join(labels)}); no number of workers is faster"
        yield (
            f"{workers} cells at a time: {duration(wall_s)}"
            if workers > 1
            else f"one cell at a time: {duration(wall_s)}"
        )
        if self.found.device == "cuda":
            total, where = gpu_hours(self.found.device_seconds), "this machine's GPU"
        else:
            total, where = guessed(self.found.seconds, hours), "this machine's processor"
        yield f"on {where}: {total}; {operations(flops.likely)} operations"

    def _measured(self) -> Iterator[str]:
        from suite.environment import hardware
        from suite.estimate.cost import timings

        yield f"measured on {hardware(self.found.device)}, in examples/s, without what masks or neighbours cost:"
        for name, rates in self.found.rates.items():
            parts = [
                f"{what} {count(1 / timing.per_example_s)}"
                + f" (from {timing.size}, not {timing.wanted})" * timing.is_extrapolated
                + " (on one thread: more were slower)" * timing.on_one_thread
                for what, timing in timings(rates).items()
            ]
            on = f" on {_threads(rates.subject.threads)}" if self.found.device == "cpu" else ""
            yield f"  {name}{on}: {', '.join(parts)}"

    def _doubts(self) -> Iterator[str]:
        load, processors = os.getloadavg()[0], num_processors()
        if self.found.device == "cpu" and load > _BUSY * processors:
            yield f"this machine is busy (load {load:.1f} on {processors} processors): a study now takes longer."
        yield "extrapolated: time, linear in steps and examples; memory of one cell, from what small trials allocate."
        if (processes := max(cost.cell.processes for cost in self.found.costs)) > 1:
            yield f"data_parallel: memory is that of one process of {processes}; time leaves out what they exchange."
        if any(cost.seconds.low < cost.seconds.high for cost in self.found.costs):
            yield "~: how often a search evaluates or multiplies is a guess, from its least to its most."
        if any(cost.memory is None for cost in self.found.costs):
            yield "?: memory of Hessian products was too slow to measure here."

    def _profile(self, profile: "Profile") -> Iterator[str]:
        """Yield whether a profile's memory and time suffice for each kind of cell."""
        for kind, costs in _grouped(self.found.costs, lambda cost: cost.cell.id.kind).items():
            yield f"profile, {kind}: {'; '.join(self._fits(costs, profile))}"
        if (
            self.found.device == "cpu"
            and self.tflops is None
            and any(profile.resources(cost.cell).gpus for cost in self.found.costs)
        ):
            yield "profile: whether time_min suffices on a GPU, a processor cannot tell; give --tflops"

    def _fits(self, costs: "list[CellCost]", profile: "Profile") -> Iterator[str]:
        needs = [_host_bytes(cost, profile.resources(cost.cell)) for cost in costs]
        most = max((each for each in needs if each is not None), default=0)
        longest = max(costs, key=lambda cost: self.seconds(cost).high)
        asked = profile.resources(longest.cell)
        if None in needs:
            yield "memory_gib cannot be judged"
        elif asked.memory_gib is None:
            yield f"memory_gib is not given, {in_bytes(most)} needed"
        else:
            yield f"memory_gib = {asked.memory_gib:g} {_verdict(most <= asked.memory_gib * 2**30)} ({in_bytes(most)})"
        if asked.gpus:
            gpu = "each GPU" if longest.cell.processes > 1 or min(asked.gpus, asked.cells_at_once) > 1 else "the GPU"
            on_one = ceil(asked.cells_at_once / asked.gpus)
            of_cell = max((cost.memory.device_bytes for cost in costs if cost.memory), default=0)
            yield f"{in_bytes(on_one * of_cell)} on {gpu}"
        if self.untold or (asked.gpus and self.found.device == "cpu" and self.tflops is None):
            return  # a processor's time says nothing about a GPU's
        # Cells that share a GPU may take as long as one after the other.
        beside = min(asked.cells_at_once, asked.gpus or asked.cells_at_once)
        needed_s = ceil(asked.cells_per_job / beside) * self.seconds(longest).high
        at_once = f", {asked.cells_at_once} at once" if asked.cells_at_once > 1 else ""
        jobs = f"{asked.cells_per_job} cells in a job{at_once}, " * (asked.cells_per_job > 1)
        enough = _verdict(needed_s <= 60 * asked.time_min)
        yield f"time_min = {asked.time_min} {enough} ({jobs}{duration(needed_s)} at most)"


def _threads(count: int) -> str:
    """Return the threads that were computed with: those of the task, or those of them that have a processor."""
    from suite.estimate.timing import threads_here

    here = threads_here(count)
    return f"{here} of its {count} threads" if here < count else f"{count} thread{'s' * (count > 1)}"


def _verdict(suffices: bool) -> str:
    return "suffices" if suffices else "IS TOO LITTLE"


def _host_bytes(cost: "CellCost", asked: "Resources") -> int | None:
    """Return the memory that a job asks Slurm for, of all processes; a GPU's own is no part of it."""
    if cost.memory is None:
        return None
    of_each = cost.memory.host_bytes + _CUDA_BYTES if asked.gpus else cost.memory.process_bytes
    return cost.cell.processes * asked.cells_at_once * of_each


def _grouped(costs: "Iterable[CellCost]", name: "Callable[[CellCost], str]") -> "dict[str, list[CellCost]]":
    """Return the costs by a name, in the order in which the names come."""
    groups: dict[str, list[CellCost]] = {}
    for cost in costs:
        groups.setdefault(name(cost), []).append(cost)
    return groups
