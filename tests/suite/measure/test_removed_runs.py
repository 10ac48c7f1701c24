from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import RunRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, Watch, inline_map
from suite.measure.removed_runs import RemovedRuns


class Weighted(DiagonalOperator):
    def weights(self) -> torch.Tensor:
        return torch.linspace(1.0, 2.0, self.dim, dtype=self.dtype)


@dataclass(frozen=True)
class Source:
    def build(self) -> Weighted:
        return Weighted(torch.linspace(0.0, 3.0, 40, dtype=torch.float64))


class Losing:
    """A map that tells of five products, loses them, and begins again."""

    def watched(self, watch: Watch) -> ProbeMap:
        def run(source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
            for each in (0, 3, 5, 0, 2):
                watch(each)
            yield from inline_map(source, requests)

        return run

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        return inline_map(source, requests)


def test_live_progress_takes_nothing_back_when_a_run_begins_anew() -> None:
    told: list[tuple[float, str]] = []
    runs = RemovedRuns(Source(), Losing(), 8, 20, lambda *each: told.append(each))
    measure = runs(30)
    assert told[0] == (0.0, "runs from the removed weights")
    assert [fraction for fraction, _ in told[1:]] == [3 / 20, 5 / 20, 8 / 20]
    runs(20)
    runs(10)
    assert [fraction for fraction, _ in told[4:]] == [11 / 20, 13 / 20, 16 / 20, 19 / 20, 1.0, 1.0]
    assert told[-1][1].startswith("runs from the removed weights: 24 products, ")
    assert runs.num_matvecs == 24
    assert not measure.sampled
