"""Probes of a spectrum with a fixed effort, kept as they arrive: a cell that was killed runs only the others.

A file for each, a few kilobytes, in the cell's checkpoint. No result ever needs them: what is missing, damaged or of
another cell or machine is computed anew.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import h5py

from data.hdf5 import FileRefused, open_sealed, read_array, read_text, sweep, write_array, write_sealed, write_text
from suite.curvature.lanczos import Tridiagonal
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, Watch, WatchableMap
from suite.training.checkpoint import Trainings

log = logging.getLogger(__name__)
SHORTEST_S = 5.0  # a probe that took less is not worth a file


@dataclass(frozen=True)
class KeptProbes:
    """A map that keeps what another one yields, and runs only what is not kept yet.

    Attributes:
        inner: runs probes.
        trainings: names the folder and what results depend on, and counts the time that earlier attempts spent.
        shortest_s: see SHORTEST_S.
    """

    inner: ProbeMap
    trainings: Trainings
    shortest_s: float = SHORTEST_S

    def __call__(self, source: OperatorSource, requests: Sequence[ProbeRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request: those that are kept first, then the others as they arrive."""
        return self._run(self.inner, source, requests)

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map; its unfinished probes are told where the inner one can tell."""
        inner = self.inner.watched(watch) if isinstance(self.inner, WatchableMap) else self.inner
        return partial(self._run, inner)

    def _run(self, inner: ProbeMap, source: OperatorSource, requests: Sequence[ProbeRequest]) -> Iterator[ProbeResult]:
        left = []
        for request in requests:
            kept = self._kept(request)
            if kept is None:
                left.append(request)
            else:
                yield kept
        if left:
            for result in inner(source, left):
                self._keep(result)
                yield result

    def _path(self, request: ProbeRequest) -> Path | None:
        if self.trainings.folder is None:
            return None
        facts = f"{self.trainings.identity} {json.dumps(asdict(request), sort_keys=True)}"
        return self.trainings.folder / f"probe-{request.index}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.h5"

    def _keep(self, result: ProbeResult) -> None:
        path = self._path(result.request) if isinstance(result.request, ProbeRequest) else None
        if path is None or result.seconds < self.shortest_s:
            return
        found = result.tridiagonal
        facts = {
            "residual_norm": found.residual_norm,
            "start_norm": found.start_norm,
            "status": found.status,
            "seconds": result.seconds,
            "restarts": result.restarts,
            "reissued": result.reissued,
            "spent_s": self.trainings.spent_s,
        }

        def build(file: h5py.File) -> None:
            write_array(file, "diagonal", found.diagonal)
            write_array(file, "off_diagonal", found.off_diagonal)
            write_text(file, "facts", json.dumps(facts))

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            write_sealed(path, build)
        except OSError as error:  # a full disk is no reason to lose the probes that are still to come
            log.warning("a probe could not be kept, the others go on: %s", error)

    def _kept(self, request: ProbeRequest) -> ProbeResult | None:
        path = self._path(request)
        if path is None or not path.exists():
            return None
        try:
            with open_sealed(path) as file:
                facts = json.loads(read_text(file, "facts"))
                diagonal, off_diagonal = (read_array(file, name) for name in ("diagonal", "off_diagonal"))
        except (FileRefused, OSError) as error:
            log.warning("a probe is computed anew: %s", error)
            return None
        self.trainings.earlier_s = max(self.trainings.earlier_s, facts.pop("spent_s"))
        ended = {name: facts.pop(name) for name in ("residual_norm", "start_norm", "status")}
        tridiagonal = Tridiagonal(diagonal, off_diagonal, **ended)
        return ProbeResult(request.index, request.seed, tridiagonal, request=request, **facts)
