"""When a team counts as lost, by a clock that the test turns and answers that the test gives."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from launchers._team import Patience, Team
from suite.curvature.probes import ProbeRequest

PATIENCE = Patience(silence_s=50.0, stall_s=1000.0)


@dataclass(eq=False)
class Member:
    """An actor: a question is answered by what it is asked for at that moment, and as long as it can be heard."""

    state: tuple[int, int] = (1, 0)
    can_be_heard: bool = True
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def pulse(self) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._ask))

    def _ask(self) -> tuple["Member", int]:
        self.asked.append(self.state)
        return self, len(self.asked) - 1


class Answers:
    """What a team needs of Ray: an answer is there at once, whenever it is read."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return [each for each in references if each[0].can_be_heard], []

    def get(self, reference: tuple[Member, int]) -> tuple[int, int]:
        member, number = reference
        return member.asked[number]


@dataclass
class Driver:
    """Looks after one busy team."""

    member: Member
    now_s: float = 0.0

    def __post_init__(self) -> None:
        request = ProbeRequest(5, 0, "rademacher", 12)
        self.team = Team([self.member], None, ["reference"], is_up=True, request=request, num_sent=1)
        self.team.moved_s, self.team.clock = 0.0, lambda: self.now_s
        self.looks(3, 0.5)

    def looks(self, times: int, pause_s: float, products_between: int = 0) -> str:
        """Look so many times, a pause before each; return the last complaint."""
        complaint = ""
        for _ in range(times):
            self.now_s += pause_s
            self.member.state = (1, self.member.state[1] + products_between)
            self.team.ask(Answers())
            complaint = self.team.complaint(PATIENCE)
        return complaint


@pytest.fixture
def driver() -> Driver:
    return Driver(Member())


def test_the_time_between_two_questions_is_not_held_against_a_team(driver: Driver) -> None:
    assert driver.looks(1, 1e6, products_between=400) == ""  # what it reads now was asked before it went away
    assert driver.looks(1, 0.5, products_between=1) == ""
    assert driver.team.products == 400
    for _ in range(3):
        assert driver.looks(1, 1e6) == ""
        assert driver.looks(1, 0.5, products_between=1) == ""


def test_a_team_that_completes_no_product_is_lost_once_that_is_known(driver: Driver) -> None:
    assert driver.looks(10, 99.0) == ""
    assert driver.looks(3, 99.0).startswith("no product was completed for 1")
    driver.team.pending = []
    assert driver.team.complaint(PATIENCE) == ""


def test_an_absent_driver_finds_a_stalled_team_out_as_soon_as_it_asks_again(driver: Driver) -> None:
    assert driver.looks(1, 1e6) == ""
    assert driver.looks(1, 0.5).startswith("no product was completed for 1000000 s")


def test_every_product_begins_the_wait_anew(driver: Driver) -> None:
    for _ in range(5):
        assert driver.looks(1, 0.5, products_between=1) == ""
        assert driver.looks(10, 99.0) == ""


def test_a_member_that_answers_nothing_is_lost_unless_it_waits_for_its_place(driver: Driver) -> None:
    driver.member.can_be_heard = False
    assert driver.looks(1, 49.0) == ""
    assert driver.looks(1, 2.0) == "worker 0 of 1 was silent for 51 s"
    driver.team.heard.clear()
    assert driver.looks(1, 1e6) == ""
    assert Driver(Member(can_be_heard=False)).looks(1, 1e6) == ""


def test_an_answer_that_was_late_to_be_read_is_no_silence(driver: Driver) -> None:
    assert driver.looks(1, 1e6) == ""
    driver.member.can_be_heard = False
    assert driver.looks(1, 49.0) == ""
