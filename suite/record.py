"""What a cell found: metrics, curves, arrays, cost and timings, and how they lie in an HDF5 file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np

from data.hdf5 import read_array, read_text, write_array, write_text

SCHEMA = "espalier-cell/1"
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """One number with its unit and the direction in which it is better."""

    value: float
    unit: str = "1"
    better: Better = "neither"


@dataclass
class Record:
    """The result of one cell. Everything but environment and timings is a function of the cell's key alone.

    Attributes:
        status: "ok", or a numerical outcome such as "nonfinite"; machine failures are no records.
        metrics: named numbers.
        curves: named 1-D series.
        arrays: named arrays; "weights/NAME" for a network's tensors, masks as packed bits.
        cost: what was paid: gradient_steps, matvecs, train_flops, ...; totals include ancestors.
        timings: seconds; they vary from run to run.
        environment: machine and versions, by allow-list, and the precision of trainings; varies from machine to
            machine.
    """

    status: str = "ok"
    metrics: dict[str, Metric] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    def arrays_under(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose name begins with prefix/, by the rest of their name."""
        return {
            name.removeprefix(f"{prefix}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{prefix}/")
        }


def write_record(group: h5py.Group, record: Record, config: Mapping[str, Any], key: str) -> None:
    """Write a record and the configuration that made it into an empty group or file."""
    group.attrs["schema"] = SCHEMA
    group.attrs["key"] = key
    group.attrs["status"] = record.status
    write_text(group, "config", json.dumps(config, sort_keys=True, indent=1))
    write_text(group, "environment", json.dumps(record.environment, sort_keys=True, indent=1))
    for name, metric in sorted(record.metrics.items()):
        write_array(group, f"metrics/{name}", np.float64(metric.value), unit=metric.unit, better=metric.better)
    for folder, values in (("cost", record.cost), ("timings", record.timings)):
        for name, value in sorted(values.items()):
            write_array(group, f"{folder}/{name}", np.float64(value))
    for folder, arrays in (("curves", record.curves), ("arrays", record.arrays)):
        for name, array in sorted(arrays.items()):
            write_array(group, f"{folder}/{name}", np.asarray(array))


def read_record(group: h5py.Group, *, with_arrays: bool = True) -> Record:
    """Read a record back, or all of it but its arrays: of a large network they are hundreds of megabytes.

    Raises:
        FileRefused: a data set is damaged or missing.
    """
    record = Record(status=str(group.attrs["status"]), environment=json.loads(read_text(group, "environment")))
    for name in _data_sets(group, "metrics"):
        attributes = group[f"metrics/{name}"].attrs
        value = float(read_array(group, f"metrics/{name}"))
        record.metrics[name] = Metric(value, str(attributes["unit"]), attributes["better"])
    for folder in ("cost", "timings"):
        values = {name: float(read_array(group, f"{folder}/{name}")) for name in _data_sets(group, folder)}
        getattr(record, folder).update(values)
    for folder in ("curves", "arrays") if with_arrays else ("curves",):
        arrays = {name: read_array(group, f"{folder}/{name}") for name in _data_sets(group, folder)}
        getattr(record, folder).update(arrays)
    return record


def _data_sets(group: h5py.Group, folder: str) -> list[str]:
    """Return the names of all data sets under a sub-group, nested names joined by slashes."""
    names: list[str] = []
    if folder in group:
        group[folder].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names
