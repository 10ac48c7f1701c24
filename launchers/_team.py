"""A team as its driver sees it: the one actor, or the group of actors, that works on one probe at a time."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from launchers._workers import GroupWorker, Keeping, ProbeWorker
from suite.curvature.probes import RunRequest
from suite.curvature.slq import OperatorSource


@dataclass(frozen=True)
class Patience:
    """When a team counts as slow or lost. No value changes a result.

    Attributes:
        slow_factor: a probe is slow from this many times the median of finished probes with as many steps ...
        slow_floor_s: ... but never before this long.
        silence_s: a process that answers no question for this long is lost.
        stall_s: a team that answers but completes no product, or does not finish building, for this long is lost.
        hire_s: how long to wait for the first team to find a place.
    """

    slow_factor: float = 4.0
    slow_floor_s: float = 10.0
    silence_s: float = 300.0
    stall_s: float = 3600.0
    hire_s: float = 1800.0


@dataclass(frozen=True)
class Shape:
    """What one team consists of: size actors, each with CPU threads and GPUs."""

    size: int
    threads: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """Return what one actor takes, in Ray's words."""
        return {"CPU": self.threads} | ({"GPU": self.gpus} if self.gpus else {})

    def fits(self, resources: dict[str, float]) -> bool:
        """Return whether a node with these resources has a place for the whole team."""
        return all(resources.get(name, 0) >= self.size * amount for name, amount in self.bundle.items())

    def __str__(self) -> str:
        each = f"{self.threads} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
        return f"a worker with {each}" if self.size == 1 else f"{self.size} workers with {each} each on one node"


@dataclass(eq=False)
class Team:
    """Handles of the actors, what they work on, and when they were last heard.

    Attributes:
        members: actors by rank.
        place: their placement group; None for one actor alone.
        pending: references that the current stage waits for.
        is_up: every member has built its part.
        request: what runs now.
        begun_s: when the current stage began; all times are those of the clock.
        num_sent: how many requests were sent so far.
        answer: what rank 0 returned in this stage.
        questions: rank -> (reference of an unanswered pulse, when it was asked).
        heard: ranks that ever answered.
        state: what rank 0 answered last: requests begun, and the products of the latest.
        stated_s: when the question was asked that state answers; the answer may have been read much later.
        moved_s: when state was last read to have changed.
        clock: tells the seconds.
    """

    members: list[Any]
    place: Any | None
    pending: list[Any]
    is_up: bool = False
    request: RunRequest | None = None
    begun_s: float = field(default_factory=time.monotonic)
    num_sent: int = 0
    answer: Any = None
    questions: dict[int, tuple[Any, float]] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)
    state: tuple[int, int] = (0, 0)
    stated_s: float = -math.inf
    moved_s: float = field(default_factory=time.monotonic)
    clock: Callable[[], float] = time.monotonic

    @property
    def is_idle(self) -> bool:
        """Return whether a request may be sent."""
        return self.is_up and not self.pending

    @property
    def products(self) -> int:
        """Return the products known of the running request."""
        begun, products = self.state
        return products if self.request is not None and begun == self.num_sent else 0

    def send(self, request: RunRequest) -> None:
        """Begin a request; the other members serve rank 0 until it is done."""
        first, *others = self.members
        self.pending = [first.run.remote(request), *(other.serve.remote() for other in others)]
        self.request, self.num_sent = request, self.num_sent + 1
        self.begun_s = self.moved_s = self.clock()

    def settle(self, reference: Any, value: Any) -> bool:
        """Take one finished reference; return whether the stage is over."""
        if reference == self.pending[0] and self.request is not None:
            self.answer = value
            self.pending = [None, *self.pending[1:]]
        else:
            self.pending = [None if each == reference else each for each in self.pending]
        if any(each is not None for each in self.pending):
            return False
        self.pending = []
        return True

    def waits_for(self) -> list[Any]:
        """Return the references that the stage still waits for."""
        return [each for each in self.pending if each is not None]

    def ask(self, ray: Any) -> None:
        """Collect the answers of all members, and ask those again that answered."""
        now_s = self.clock()
        answered = set(_done(ray, [reference for reference, _ in self.questions.values()]))
        for rank, member in enumerate(self.members):
            if rank in self.questions:
                reference, asked_s = self.questions[rank]
                if reference not in answered:
                    continue
                with suppress(ray.exceptions.RayError):  # the loss of an actor shows in what it works on
                    self._hear(rank, ray.get(reference), asked_s)
            self.questions[rank] = (member.pulse.options(concurrency_group="pulse").remote(), now_s)

    def _hear(self, rank: int, state: tuple[int, int], asked_s: float) -> None:
        if rank == 0:
            if state != self.state or rank not in self.heard:
                self.moved_s = self.clock()
            self.state, self.stated_s = state, asked_s
        self.heard.add(rank)

    def complaint(self, patience: Patience) -> str:
        """Return why this team counts as lost, or an empty string.

        A member that never answered may still wait for its place. Whoever reads the results may have been away for
        longer than any patience: so a team stands still only from when its state was read until it was asked for once
        more and gave the same. An answer tells nothing about the time after its question.
        """
        if not self.pending:
            return ""
        now_s = self.clock()
        for rank, (_, asked_s) in self.questions.items():
            if rank in self.heard and now_s - asked_s > patience.silence_s:
                return f"worker {rank} of {len(self.members)} was silent for {now_s - asked_s:.0f} s"
        waited_s = self.stated_s - self.moved_s
        if waited_s > patience.stall_s:
            return f"no product was completed for {waited_s:.0f} s"
        return ""

    def end(self, ray: Any) -> None:
        """End all members and give their place back."""
        for reference in _done(ray, self.waits_for()):
            with suppress(Exception):  # Ray prints errors that nobody fetches; one of them is being raised already
                ray.get(reference)
        for member in self.members:
            ray.kill(member)
        if self.place is not None:
            ray.util.remove_placement_group(self.place)


def hire(ray: Any, source: OperatorSource, shape: Shape, patience: Patience, keeping: Keeping) -> Team:
    """Ask for a team; it builds its operator as soon as it finds a place.

    Members of a group are placed together or not at all, on one node.
    """
    if shape.size == 1:
        actor = ray.remote(**_options(shape))(ProbeWorker).remote(source, shape.threads, keeping)
        return Team([actor], None, [actor.ready.remote()])
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    place = ray.util.placement_group([shape.bundle] * shape.size, strategy="STRICT_PACK")
    members = [
        ray.remote(
            **_options(shape),
            scheduling_strategy=PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=rank),
        )(GroupWorker).remote(source, shape.threads, keeping, rank, shape.size, patience.stall_s)
        for rank in range(shape.size)
    ]
    folder = members[0].meet.remote()
    return Team(members, place, [member.join.remote(folder) for member in members])


def _options(shape: Shape) -> dict[str, Any]:
    return {"num_cpus": shape.threads, "num_gpus": shape.gpus, "concurrency_groups": {"pulse": 1}}


def _done(ray: Any, references: Sequence[Any]) -> list[Any]:
    if not references:
        return []
    done: list[Any] = ray.wait(list(references), num_returns=len(references), timeout=0)[0]
    return done
