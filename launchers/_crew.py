"""The teams of one map: hired, given probes, watched, replaced when they are lost.

A probe's result depends on its request alone. So a request may be begun again, or twice at a time: the first answer is
the answer, and only time was lost.
"""

import logging
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import median
from typing import Any

from launchers._team import Patience, Shape, Team, hire
from launchers._workers import Keeping
from suite.curvature.probes import RunRequest
from suite.curvature.sharded import PeerLost
from suite.curvature.slq import OperatorSource, ProbeResult, Watch
from suite.errors import UserError

log = logging.getLogger(__name__)
MAX_RESTARTS = 3  # per probe, and for teams lost before they are up; whoever kills four in a row is at fault itself
TICK_S = 0.5  # between two looks at silent teams; one question to each costs well below a millisecond
NO_PLACE_S = 10.0  # a node may still be joining; after that, what fits on no node never will


def identity(request: RunRequest) -> Hashable:
    """Return what a request shares with those that only go on with it: everything but the number of steps."""
    names = [each.name for each in fields(request) if each.name != "num_lanczos_steps"]
    return type(request), *(getattr(request, name) for name in names)


@dataclass
class Job:
    """The requests of one call.

    Attributes:
        waiting: in the order in which they are to begin.
        open: those without a result, the running ones included.
        restarts: how often each was begun again after a loss.
        reissued: how often a second team was asked.
        seconds: number of steps -> how long finished requests took.
        watch: told the products of unfinished requests.
    """

    waiting: list[RunRequest]
    watch: Watch
    open: set[RunRequest] = field(default_factory=set)
    restarts: Counter[RunRequest] = field(default_factory=Counter)
    reissued: Counter[RunRequest] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open all requests."""
        self.open = set(self.waiting)

    def needs(self, request: RunRequest) -> bool:
        """Return whether a request without a result does not wait for its turn already."""
        return request in self.open and request not in self.waiting

    def close(self, request: RunRequest, result: ProbeResult, seconds: float) -> ProbeResult | None:
        """Return the result with its counts, or None for one that came second or that an earlier call left behind."""
        if request not in self.open:
            return None
        self.open.remove(request)
        if request in self.waiting:  # left running by an earlier call
            self.waiting.remove(request)
        self.seconds.setdefault(request.num_lanczos_steps, []).append(seconds)
        return replace(result, restarts=self.restarts[request], reissued=self.reissued[request])


class Crew:
    """Up to max_teams teams for one source. Teams stay between calls, and a request goes where it ran before.

    Args:
        source: builds the operator in every team.
        max_teams: at most so many, and never more than a call has requests.
        shape: of one team.
        patience: with slow and silent teams.
        keeping: of runs, in the workers.

    Attributes:
        hosts: name of a node -> workers that came up there so far.
    """

    def __init__(
        self,
        source: OperatorSource,
        max_teams: int,
        shape: Shape,
        patience: Patience,
        keeping: Keeping = Keeping(),  # noqa: B008
    ) -> None:
        import ray

        self.ray: Any = ray
        self.source, self.max_teams, self.shape, self.patience = source, max_teams, shape, patience
        self.keeping = keeping
        self.hosts: Counter[str] = Counter()
        self.teams: list[Team] = []
        self.homes: dict[Hashable, Team] = {}
        self.lost_before_up = 0
        self.hired_s = 0.0

    def work(self, requests: Sequence[RunRequest], watch: Watch) -> Iterator[ProbeResult]:
        """Yield one result per request, in the order in which they are done.

        Raises:
            UserError: there is no place for a team, or MAX_RESTARTS + 1 teams were lost over one request.
            Exception: whatever building the operator, or a product, raised in a worker.
        """
        job = Job(list(requests), watch)
        while job.open:
            while len(self.teams) < min(self.max_teams, len(job.open)):
                self._hire()
            self._hand_out(job)
            finished = self._finished()
            for reference, team in finished:
                result = self._take(reference, team, job)
                if result is not None:
                    yield result
            if not finished:
                self._look_after(job)

    def dismiss(self) -> None:
        """End all teams."""
        while self.teams:
            self.teams.pop().end(self.ray)
        self.homes.clear()

    def _hire(self) -> None:
        if not self.teams:
            self.hired_s = time.monotonic()
        self.teams.append(hire(self.ray, self.source, self.shape, self.patience, self.keeping))

    def _hand_out(self, job: Job) -> None:
        for team in [team for team in self.teams if team.is_idle]:
            request = self._choice(team, job)
            if request is not None:
                job.waiting.remove(request)
                if not any(each.num_sent for each in self.teams):
                    job.watch(0)
                team.send(request)

    def _choice(self, team: Team, job: Job) -> RunRequest | None:
        """Return the request that an idle team should begin.

        First one that ran here before, for the team may go on where it stopped; then one that ran nowhere; then one
        whose own team will not be free soon: it has another one to begin first, or has fallen behind.
        """
        homes = {request: self.homes.get(identity(request)) for request in job.waiting}
        queues = Counter(home for home in homes.values() if home is not None)

        def rank(home: Team | None) -> int:
            if home is team:
                return 0
            if home is None:
                return 1
            late = home.request is not None and job.reissued[home.request] > 0
            return 2 if late or queues[home] > 1 else 3

        ranks = {request: rank(home) for request, home in homes.items()}
        best = min(ranks, key=ranks.__getitem__, default=None)
        return None if best is None or ranks[best] == 3 else best

    def _finished(self) -> list[tuple[Any, Team]]:
        """Return the references that are done, after a tick at most."""
        teams = {reference: team for team in self.teams for reference in team.waits_for()}
        references = list(teams)
        done, _ = self.ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = self.ray.wait(references, num_returns=1, timeout=TICK_S)
        return [(reference, teams[reference]) for reference in done]

    def _take(self, reference: Any, team: Team, job: Job) -> ProbeResult | None:
        if team not in self.teams:  # lost by what came before in the same turn
            return None
        try:
            value = self.ray.get(reference)
            if isinstance(value, PeerLost):
                self._replace(team, str(value), job)
                return None
        except self.ray.exceptions.RayError as error:
            reason = self._loss(error)
            if reason is None:
                raise getattr(error, "cause", error) from None
            self._replace(team, reason, job)
            return None
        if isinstance(value, str):  # a member has built its part
            self.hosts[value] += 1
        if not team.settle(reference, value):
            return None
        if not team.is_up:
            team.is_up, self.lost_before_up = True, 0
            return None
        request, team.request = team.request, None
        assert request is not None
        self.homes[identity(request)] = team
        return job.close(request, team.answer, time.monotonic() - team.begun_s)

    def _loss(self, error: Exception) -> str | None:
        """Return one line for an error that means the loss of a worker, None for one that its work raised."""
        errors = self.ray.exceptions
        lost = (errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError)
        cause = getattr(error, "cause", None)
        if isinstance(error, lost):
            return f"{type(error).__name__}: {_first_line(error)}"
        return _first_line(cause) if isinstance(cause, lost) else None

    def _replace(self, team: Team, reason: str, job: Job) -> None:
        """End what is left of a lost team and put its request back, up to a bound; another team is hired in its place.

        Raises:
            UserError: the bound is reached.
        """
        self.teams.remove(team)
        self.homes = {key: home for key, home in self.homes.items() if home is not team}
        team.end(self.ray)
        request = team.request
        if not team.is_up:
            self.lost_before_up += 1
            self._check_bound(self.lost_before_up, "building the operator", reason)
        elif request is not None and job.needs(request) and not any(other.request == request for other in self.teams):
            job.restarts[request] += 1
            self._check_bound(job.restarts[request], request.name, reason)
            job.waiting.insert(0, request)

    def _check_bound(self, number: int, what: str, reason: str) -> None:
        log.warning("%s lost its worker (%d of %d): %s", what, number, MAX_RESTARTS, reason)
        if number > MAX_RESTARTS:
            raise UserError(
                f"{what} lost {number} workers, the last one so: {reason.rstrip('.')}. Expected: workers that live; "
                "look for a lack of memory first."
            )

    def _look_after(self, job: Job) -> None:
        """Replace teams that are silent, ask a second team where one is slow, and tell how far all are."""
        for team in list(self.teams):
            team.ask(self.ray)
            reason = team.complaint(self.patience)
            if reason:
                self._replace(team, reason, job)
        if not any(team.is_up or team.heard for team in self.teams):
            self._check_place()
        for team in [team for team in self.teams if team.is_idle]:
            slow = self._slow(job)
            if slow is not None:
                log.warning("%s is slow: a second worker is asked", slow.name)
                job.reissued[slow] += 1
                team.send(slow)
        products = {team.request: team.products for team in self.teams if team.request in job.open}
        if any(team.num_sent for team in self.teams):
            job.watch(sum(products.values()))

    def _slow(self, job: Job) -> RunRequest | None:
        """Return an open request that runs on one team only and for far longer than others of its size did."""
        running = Counter(team.request for team in self.teams)
        for team in self.teams:
            request = team.request
            if request is None or request not in job.open or running[request] > 1:
                continue
            others_s = job.seconds.get(request.num_lanczos_steps)
            if not others_s:
                continue
            bound_s = max(self.patience.slow_floor_s, self.patience.slow_factor * median(others_s))
            if time.monotonic() - team.begun_s > bound_s:
                return request
        return None

    def _check_place(self) -> None:
        """Complain when no team has found a place for too long.

        Raises:
            UserError: no node is large enough, or all were busy for patience.hire_s.
        """
        waited_s = time.monotonic() - self.hired_s
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        fits = any(self.shape.fits(node) for node in nodes)
        if waited_s > (self.patience.hire_s if fits else min(NO_PLACE_S, self.patience.hire_s)):
            there = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            reason = "all nodes were busy" if fits else "no node is large enough"
            raise UserError(
                f"No place for {self.shape} after {waited_s:.0f} s: {reason}. The nodes have: {there}. "
                "Ask for fewer workers per group or fewer threads, or give Ray more."
            )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]
