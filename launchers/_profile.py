"""Profiles: what a site's Slurm wants to be told. A study carries no resources, a profile carries no science."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from suite.errors import UserError, unknown
from suite.extensions import available, load
from suite.plan import Cell
from suite.strict import Settings, read_toml, validated

FOLDER = Path(__file__).parents[1] / "slurm" / "profiles"


def _holding(characters: str, expected: str) -> AfterValidator:
    """Return a check that a text consists of these characters alone; all else could be read as shell or as options."""
    pattern = re.compile(characters)

    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"Expected: {expected}. Nothing else may reach a job's script")
        return text

    return AfterValidator(check)


def _ending_by_itself(line: str) -> str:
    """Check that a line of shell is a command, and none of it reaches into the next line."""
    if line.lstrip().startswith("#"):
        raise ValueError("Expected: a command; a line that begins with # is a comment, or an option of sbatch")
    if line.endswith("\\"):
        raise ValueError("Expected: a command that ends with its line, not in a backslash")
    try:
        shlex.split(line)
    except ValueError as error:
        raise ValueError(f"Expected: a command whose quotes are closed ({error})") from None
    return line


Word = Annotated[str, _holding(r"[A-Za-z0-9][A-Za-z0-9._:@%+,=/-]*", "letters, digits and . _ : @ % + , = / -")]
Constraint = Annotated[str, _holding(r"[A-Za-z0-9(\[][A-Za-z0-9._:*&|,()\[\]-]*", "features joined by & | , ( ) [ ] *")]
Place = Annotated[str, _holding(r"/[A-Za-z0-9._/+-]*", "an absolute path of letters, digits and . _ / + -")]
Image = Annotated[str, _holding(r"[A-Za-z0-9/][A-Za-z0-9._:@#%+/-]*", "a path or an address of an image")]
Mounts = Annotated[str, _holding(r"/[A-Za-z0-9._:,/+-]*", "SOURCE:TARGET[:FLAGS], absolute, joined by commas")]
Variable = Annotated[str, _holding(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
Line = Annotated[
    str,
    _holding(r"(?!.*\$\()[^\n\r\x00-\x1f;`&|<>]+", "one plain command, without ; ` & | < > or $("),
    AfterValidator(_ending_by_itself),
]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]  # Slurm's own numbers end there
Memory = Annotated[float, Field(ge=2**-10, le=2**20)]  # GiB; less than one MiB would be 0M, to Slurm all of a node
Minutes = Annotated[float, Field(ge=0.001, le=10**6)]


class Override(Settings):
    """What one kind of cell needs otherwise than the rest. gpus, cpus and memory_gib are those of each node."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Constraint | None = None
    nodes: Count | None = None  # several only in kinds.KIND of a kind whose probes are spread over workers
    gpus: Annotated[int, Field(ge=0)] | None = None
    cpus: Count | None = (
        None  # by default as many as the cell has threads; times gpus, processes or cells_at_once, where it has several
    )
    memory_gib: Memory | None = None
    time_min: Count | None = None
    cells_per_job: Count | None = None
    minutes_per_cell: Minutes | None = None  # an estimate; with minutes_per_job it packs tiny cells
    cells_at_once: Count | None = None  # of those in a job, each in a process of its own; only kinds that share a GPU


class Container(Settings):
    """A container for the job, started by the Pyxis plugin of srun."""

    image: Image
    mounts: Mounts | None = None


class Profile(Override):
    """How jobs are queued at one site.

    Attributes:
        description: one line for `espalier profiles`.
        minutes_per_job: cells are packed into one array element until their estimates reach it.
        max_running: elements of one array that may run at a time.
        max_retries: how often a driver that waits queues a lost cell again by itself.
        raise_factor: by which it raises memory_gib or time_min where that was too little, up to what the partition has.
        modules: loaded by `module load` before the job.
        setup: further lines of shell before the job, one plain command each.
        python: the interpreter of the job; by default the one that submits.
        container: image and mounts.
        environment: names of variables that jobs get, beside those that every job needs.
        scratch: a folder on the node for temporary files; each element has a folder of its own in it.
        kinds: kind of cell -> what it needs otherwise.
    """

    description: Annotated[str, _holding(r"[^\x00-\x1f]*", "one line of text")] = ""
    time_min: Count
    minutes_per_job: Minutes | None = None
    max_running: Count = 256
    max_retries: Annotated[int, Field(ge=0)] = 1
    raise_factor: Annotated[float, Field(gt=1, le=100)] = 2.0
    modules: tuple[Word, ...] = ()
    setup: tuple[Line, ...] = ()
    python: Place | None = None
    container: Container | None = None
    environment: tuple[Variable, ...] = ()
    scratch: Place | None = None
    kinds: dict[str, Override] = Field(default_factory=dict)

    def resources(self, cell: Cell) -> "Resources":
        """Return what one cell asks for.

        Raises:
            UserError: the profile gives fewer processors than the cell, or the workers of its probes, compute with, or
            fewer GPUs than the processes that share its batches.
        """
        own = self.kinds.get(cell.id.kind, Override()).model_dump(exclude_none=True)
        asked = self.model_dump(include=set(Override.model_fields), exclude_none=True) | own
        cells = self.cells_per_job_of(cell.id.kind)
        at_once = min(cells, asked.pop("cells_at_once", 1)) if _shares(cell.id.kind) and cell.processes == 1 else 1
        asked = {name: value for name, value in asked.items() if name in Resources.model_fields}
        gpus = asked.get("gpus", 0)
        if 0 < gpus < cell.processes:
            raise UserError(
                f"gpus = {gpus} in the profile, but training.data_parallel = {cell.processes} for {cell.title}. "
                f"Expected: at least {cell.processes}, one for each process; put gpus = {cell.processes} under "
                f"[kinds.{cell.id.kind}]."
            )
        workers = max(1, gpus) if _is_spread(cell.id.kind) else cell.processes * at_once  # on each node
        needed = cell.threads * workers
        found = Resources(**{"cpus": needed} | asked | {"cells_per_job": cells, "cells_at_once": at_once})
        if found.cpus < needed:
            several = {at_once: "cells at once", cell.processes: "processes"}
            what = several.get(workers, "workers, one for each GPU")
            each = f" in each of {workers} {what}" if workers > 1 else ""
            raise UserError(
                f"cpus = {found.cpus} in the profile, but {cell.title} computes with {cell.threads} threads{each}. "
                f"Expected: at least {needed}; leave cpus out, or raise it."
            )
        return found

    def cells_per_job_of(self, kind: str) -> int:
        """Return how many cells of a kind are packed into one job."""
        own = self.kinds.get(kind, Override())
        cells, minutes = own.cells_per_job, own.minutes_per_cell or self.minutes_per_cell
        if cells is None and own.minutes_per_cell is None:
            cells = self.cells_per_job
        fits = self.minutes_per_job / minutes if minutes and self.minutes_per_job else 1
        return cells or max(1, int(fits))


class Resources(Settings):
    """What one array asks for; cells of a wave with equal resources share arrays."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1
    gpus: int = 0
    cpus: int
    memory_gib: float | None = None
    time_min: int
    cells_per_job: int = 1
    cells_at_once: int = 1


def read_profile(name_or_path: str, kinds: Sequence[str] | None = None) -> Profile:
    """Read a profile.

    Args:
        name_or_path: a file in slurm/profiles, or the path of a TOML file.
        kinds: the kinds of cell there are; by default those of suite/cells.

    Raises:
        UserError: unknown name or key, a wrong type, or a value that could be read as shell; one line.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.toml"))
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
    elif name_or_path in known:
        path = FOLDER / f"{name_or_path}.toml"
    else:
        raise unknown("profile", name_or_path, known, "a profile is a file in slurm/profiles, or give its path")
    profile = validated(Profile, read_toml(path), f"profile {name_or_path}")
    known_kinds = available("suite.cells") if kinds is None else kinds
    for kind in profile.kinds:
        if kind not in known_kinds:
            raise unknown("kind of cell", kind, known_kinds, f"kinds.NAME of profile {name_or_path}")
    _check_nodes(profile, name_or_path)
    _check_at_once(profile, name_or_path)
    _check_container(profile, name_or_path)
    return profile


def _check_nodes(profile: Profile, name: str) -> None:
    """Refuse several nodes where nothing would use the others.

    Raises:
        UserError: a kind of cell runs in one process.
    """
    several = {kind: each.nodes for kind, each in profile.kinds.items() if (each.nodes or 1) > 1}
    places = {"nodes": profile.nodes} if (profile.nodes or 1) > 1 else {}
    places |= {f"kinds.{kind}.nodes": nodes for kind, nodes in several.items() if not _is_spread(kind)}
    for place, nodes in places.items():
        raise UserError(
            f"{place} = {nodes} in profile {name}. Expected: several nodes only for kinds of cell whose probes are "
            "spread over workers; put it under [kinds.spectrum]."
        )


def _check_at_once(profile: Profile, name: str) -> None:
    """Refuse several cells at once where they could not be, or would not be.

    Raises:
        UserError: the kind of cell plans with a GPU of its own, or a job has fewer cells than that.
    """
    sharing = tuple(filter(_shares, available("suite.cells")))
    places: list[tuple[str, Override, Sequence[str]]] = [("", profile, sharing)]
    places += [(f"kinds.{kind}.", own, (kind,)) for kind, own in profile.kinds.items()]
    for prefix, given, kinds in places:
        at_once = given.cells_at_once or 1
        if at_once == 1:
            continue
        wrong = f"{prefix}cells_at_once = {at_once} in profile {name}"
        if not set(kinds) <= set(sharing):
            raise UserError(
                f"{wrong}. Expected: 1, except for kinds that can share a GPU ({', '.join(sharing)}); remove it."
            )
        if given.cells_per_job is not None and at_once > given.cells_per_job:
            raise UserError(
                f"{wrong}, with cells_per_job = {given.cells_per_job}. Expected: at most as many at once as a job has; "
                "raise cells_per_job."
            )
        if all(profile.cells_per_job_of(kind) == 1 for kind in kinds):
            raise UserError(
                f"{wrong}, with one cell in a job. Expected: several; give cells_per_job, or minutes_per_job and "
                "minutes_per_cell."
            )


def _check_container(profile: Profile, name: str) -> None:
    """Refuse a container where the workers of a cell's probes would be started from inside.

    Raises:
        UserError: a kind of cell whose probes are spread has several nodes or GPUs.
    """
    if profile.container is None:
        return
    for kind in filter(_is_spread, available("suite.cells")):
        own = profile.kinds.get(kind, Override())
        for key in ("nodes", "gpus"):
            place, number = f"kinds.{kind}.{key}", getattr(own, key)
            if number is None:
                place, number = key, getattr(profile, key)
            if (number or 1) > 1:
                raise UserError(
                    f"{place} = {number} in profile {name}, with a container. Expected: one node and at most one GPU "
                    f"for {kind}, because srun cannot be called from inside to start the workers of its probes; leave "
                    f"the container out, or put {key} = 1 under [kinds.{kind}]."
                )


def _is_spread(kind: str) -> bool:
    spread: bool = load("suite.cells", kind, "kind of cell").SHARDED
    return spread


def _shares(kind: str) -> bool:
    """Return whether cells of a kind may run on one GPU at a time, and compute in one process each."""
    shares: bool = getattr(load("suite.cells", kind, "kind of cell"), "SHARES_GPU", False)
    return shares and not _is_spread(kind)


def profiles() -> dict[str, str]:
    """Return name -> description of every profile in slurm/profiles."""
    return {path.stem: str(read_toml(path).get("description", "")) for path in sorted(FOLDER.glob("*.toml"))}
