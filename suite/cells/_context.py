"""What a running cell is given beside its configuration and its inputs."""

from dataclasses import dataclass, field
from pathlib import Path

from suite.curvature.pace import Advance, silent
from suite.curvature.slq import ProbeMap, inline_map
from suite.datasets import training_splits
from suite.splits import Examples
from suite.store import CellId
from suite.training.checkpoint import Trainings
from suite.training.data_parallel import Ranks


@dataclass(frozen=True)
class Context:
    """Where a cell runs. Nothing in here may change a number.

    Attributes:
        places: "data" -> path of the data set's HDF5 file on this machine.
        input_paths: role -> path of an input cell's file, for workers that load it themselves.
        probe_map: how SLQ probes are spread; inline or Ray actors.
        device: "cpu" or "cuda".
        stream: whether inputs stay in the data set's file while it trains; None: where they do not fit in memory.
        checkpoint: a folder, there or not, for what a cell that is killed goes on from; it is removed once the cell is
            committed. None: nothing is saved on the way.
        trainings: saves the trainings of the cell in that folder.
        ranks: this process among those that run the cell at the same time, for its trainings; what is beside them, each
            does for itself. None: it runs in this process alone.
        progress: called with a fraction in [0, 1] and a short text.
    """

    places: dict[str, Path]
    input_paths: dict[str, tuple[CellId, Path]] = field(default_factory=dict)
    probe_map: ProbeMap = inline_map
    device: str = "cpu"
    stream: bool | None = None
    checkpoint: Path | None = None
    trainings: Trainings = field(default_factory=Trainings)
    ranks: Ranks | None = None
    progress: Advance = silent

    def training_splits(self, sha256: str) -> dict[str, Examples]:
        """Return the splits that a training needs, of the data set with this digest; see suite.datasets."""
        processes = 1 if self.ranks is None else self.ranks.size
        return training_splits(self.places["data"], sha256, self.device, stream=self.stream, processes=processes)
