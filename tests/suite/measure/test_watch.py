from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
import torch

from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import OperatorSource, ProbeResult, inline_map
from suite.limits.error_budget import Check, ErrorBudget
from suite.measure.watch import WatchedMap, WatchedOperator, part_of


@dataclass(frozen=True)
class Source:
    dim: int = 60

    def build(self) -> DiagonalOperator:
        return DiagonalOperator(torch.linspace(0.0, 3.0, self.dim, dtype=torch.float64))


Told = list[tuple[float, str]]


def requests(steps: int, num_probes: int = 2) -> list[ProbeRequest]:
    return [ProbeRequest(0, index, "normal", steps) for index in range(num_probes)]


def check(num_matvecs: int, steps: int = 8, probes: int = 2) -> Check:
    budgets = {"gaussian_width": ErrorBudget(0.003, 0.004)}
    return Check(500, steps, probes, num_matvecs, 1.0, {"gaussian_width": 0.9}, budgets)


def test_between_checks_the_line_has_the_limit_its_error_the_speed_and_the_time_left() -> None:
    told: Told = []
    with growing_inline_map() as growing:
        watched = WatchedMap(growing, lambda *each: told.append(each))
        list(watched(Source(), requests(8)))
        assert told[0][1].startswith("first look; probe 0 of 2, ")
        watched.report(check(16), 48)
        assert told[-1][1].startswith("gaussian width 0.900 ± 0.005 (8 steps, 2 probes, 500 examples); ")
        told.clear()
        list(watched(Source(), requests(12)))
    live = told[0][1]
    assert live.startswith("gaussian width 0.900 ± 0.005 (8 steps, 2 probes, 500 examples); probe 0 of 2, ")
    assert " products/s, " in live
    assert " left, at most " in live
    assert live.endswith(" with these examples")
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert told[-1][0] == pytest.approx(24 / 64)  # four new steps of each run, of 48 that may follow the first 16


def test_more_than_was_foreseen_is_not_left_at_most() -> None:
    told: Told = []
    watched = WatchedMap(inline_map, lambda *each: told.append(each))
    list(watched(Source(), requests(8)))
    watched.report(check(16), 2)
    told.clear()
    list(watched(Source(), requests(20, num_probes=3)))
    assert all(fraction <= 1.0 for fraction, _ in told)
    assert told[-1][1].partition("; ")[2].startswith("probe 3 of 3, ")
    assert "at most" in told[0][1]


def test_losses_copies_and_the_last_result_of_each_run_are_kept() -> None:
    def troubled(source: OperatorSource, asked: Sequence[ProbeRequest]) -> Iterator[ProbeResult]:
        return (replace(result, restarts=1, reissued=2) for result in inline_map(source, asked))

    watched = WatchedMap(troubled, lambda *_: None)
    list(watched(Source(), requests(4)))
    list(watched(Source(), requests(6)))
    assert (watched.num_restarts, watched.num_reissued) == (4, 8)
    assert [result.tridiagonal.num_lanczos_steps for result in watched.latest.values()] == [6, 6]
    list(watched(Source(50), requests(4, num_probes=1)))
    assert len(watched.latest) == 1  # another source: nothing of the one before


def test_the_columns_of_a_dense_hessian_are_told_with_their_speed() -> None:
    told: Told = []
    watched = WatchedMap(inline_map, lambda *each: told.append(each))
    watched.report(check(64, steps=0, probes=0), 192)
    fraction, text = told[-1]
    assert fraction == 0.25
    assert text.startswith("gaussian width 0.900 ± 0.005 (dense Hessian, 500 examples); ")
    assert " products/s, at most " in text
    watched.report(replace(check(64, steps=0), limits={}, budgets={}), 192)
    assert told[-1][1].startswith("dense Hessian, 500 examples; ")


def test_an_operator_tells_its_products_and_changes_none() -> None:
    told: Told = []
    inner = Source().build()
    watched = WatchedOperator(inner, "rows", 4, part_of(lambda *each: told.append(each), 0.5, 1.0))
    vectors = torch.randn((60, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(watched.matmat(vectors), Source().build().matmat(vectors))
    watched.matmat(vectors)
    assert (watched.num_matvecs, inner.num_matvecs) == (6, 6)
    assert [fraction for fraction, _ in told] == [0.5, 0.875, 1.0]
    assert told[0][1] == "rows"
    assert told[-1][1].startswith("rows: 6 products, ")
