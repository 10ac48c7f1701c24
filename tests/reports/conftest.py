"""Results files as a study leaves them: small, seeded, with every kind of row a report has to cope with."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.hdf5 import write_array, write_sealed, write_text, write_texts

NUM_PRUNABLE = 6464
LABELS = {
    "dense": "Dense",
    "lomp": "LOMP",
    "lomp_fine_tuned": "LOMP + fine-tuning",
    "imp": "IMP",
    "rare_gems": "Rare Gems",
    "smart_ratio": "Smart-Ratio (extension)",
    "random": "Random",
}
# Sparsity at which a method has lost half of its accuracy, and the trainings it pays for.
BREAKS_AT = {
    "lomp": (0.968, 1),
    "lomp_fine_tuned": (0.9905, 2),
    "imp": (0.992, 10),
    "rare_gems": (0.985, 2),
    "smart_ratio": (0.972, 1),
    "random": (0.955, 1),
}
ENVIRONMENT = {"host": "node-17", "versions": {"python": "3.13.1", "torch": "2.13.0", "numpy": "2.4.0"}}


@dataclass
class Study:
    """What a fixture file shall hold; the defaults are a complete small study."""

    name: str = "quickstart"
    command: str = "espalier run quickstart --workers 4"
    tasks: Sequence[str] = ("mlp-digits",)
    methods: Sequence[str] = tuple(LABELS)
    sparsities: Sequence[float] = (0.8, 0.9, 0.95, 0.98, 0.99)
    seeds: Sequence[int] = (0, 1, 2)
    networks: Sequence[str] = ("lomp",)
    analyses: bool = True
    searched: bool = False  # the limits, to a tolerance
    rounds: bool = True
    labels: dict[str, str] = field(default_factory=lambda: dict(LABELS))
    num_classes: int | None = 10


@pytest.fixture(scope="session")
def written_studies() -> dict[str, bytes]:
    """Files by what they hold: many tests read the same study."""
    return {}


@pytest.fixture
def results_file(tmp_path: Path, written_studies: dict[str, bytes]) -> Callable[..., Path]:
    """Return a function that writes results.h5 of Study(**changes) and returns its path."""

    def write(**changes: Any) -> Path:
        study, path = Study(**changes), tmp_path / "results.h5"
        if repr(study) not in written_studies:
            write_results(path, study)
            written_studies[repr(study)] = path.read_bytes()
        path.write_bytes(written_studies[repr(study)])
        return path

    return write


def write_results(path: Path, study: Study) -> None:
    generator = np.random.default_rng(20240917)
    rows, limits, spectra, row_norms, sweeps, cells = [], [], [], [], [], {}
    for task in study.tasks:
        for seed in study.seeds:
            rows += list(_pruning_rows(study, task, seed, generator))
            for network in study.networks if study.analyses else ():
                curves, found, arrays = _analysis(study, task, network, seed, generator)
                limits += found
                cells |= curves
                for source, content in arrays.items():
                    name = f"spectrum-{_key(task, network, seed, source)}"
                    cells[name] = content
                    entry = {"task": task, "seed": seed, "network": network, "cell": name, "source": source}
                    spectra.append(entry)
                name = f"row_norms-{_key(task, network, seed)}"
                cells[name] = {"arrays": row_arrays(100, np.random.default_rng(seed))}
                entry = {"task": task, "seed": seed, "network": network, "cell": name}
                row_norms.append({**entry, "num_rows": 100, "num_zero_rows": 20})
                name = f"sweep-{_key(task, network, seed)}"
                cells[name] = {"curves": sweep_curves(1000, 90, np.random.default_rng(seed))}
                entry = {"task": task, "seed": seed, "network": network, "cell": name}
                sweeps.append({**entry, "num_sparsities": 1000, "num_evaluated": 90})
    config = {} if study.num_classes is None else {"task": {"num_classes": study.num_classes}}
    cells |= {row["cell"]: {"config": {**config, "seed": row["seed"]}} for row in rows}
    tables = {"rows": rows, "limits": limits, "spectra": spectra, "row_norms": row_norms, "sweeps": sweeps}
    write_sealed(path, lambda file: _fill(file, study, tables, cells))


def _fill(file: h5py.File, study: Study, tables: dict[str, Any], cells: dict[str, Any]) -> None:
    file.attrs["schema"] = "espalier-results/1"
    file.attrs["study"] = study.name
    file.attrs["command"] = study.command
    frozen = {"name": study.name, "tasks": list(study.tasks), "methods": [m for m in study.methods if m != "dense"]}
    frozen |= {"sparsities": list(study.sparsities), "seeds": list(study.seeds)}
    frozen |= {"analyses": ["spectrum", "limit"] if study.analyses else []}
    write_text(file, "study", json.dumps(frozen))
    fields = ("task", "method", "label", "seed", "sparsity", "requested")
    planned = [{field: row[field] for field in fields} for row in tables["rows"]]
    write_text(file, "planned", json.dumps({"rows": planned}, default=lambda number: number.item()))
    for table, records in tables.items():
        if records:
            _write_table(file.create_group(f"table/{table}"), records)
    for name, content in cells.items():
        group = file.create_group(f"cells/{name}")
        write_text(group, "config", json.dumps(content.get("config", {})))
        write_text(group, "environment", json.dumps(ENVIRONMENT))
        for part in ("curves", "arrays", "metrics"):
            target = group.create_group(part)
            for key, values in content.get(part, {}).items():
                write_array(target, key, values)


def _write_table(group: h5py.Group, records: list[dict[str, Any]]) -> None:
    for column, first in records[0].items():
        values = [record[column] for record in records]
        if isinstance(first, str):
            write_texts(group, column, values)
        else:
            write_array(group, column, np.array(values))


def _key(*parts: object) -> str:
    digest = 0xCBF29CE484222325  # FNV-1a: any sixteen hexadecimal digits that differ between cells
    for byte in repr(parts).encode():
        digest = ((digest ^ byte) * 0x100000001B3) % 2**64
    return f"{digest:016x}"


def _pruning_rows(study: Study, task: str, seed: int, generator: np.random.Generator) -> Iterable[dict[str, Any]]:
    dense_accuracy = float(0.975 + 0.003 * generator.standard_normal())
    for method in study.methods:
        if method == "dense":
            yield _row(study, task, method, 0.0, seed, dense_accuracy, dense_accuracy, 1, True)
            continue
        breaks_at, num_trainings = BREAKS_AT.get(method, (0.97, 1))
        rounds = [(1.0 - 0.8**level, False) for level in range(1, 21)] if method == "imp" and study.rounds else []
        for sparsity, requested in [*rounds, *((sparsity, True) for sparsity in study.sparsities)]:
            position = np.log10(max(1.0 - sparsity, 1e-6) / (1.0 - breaks_at))
            accuracy = 0.1 + (dense_accuracy - 0.1) / (1.0 + 10.0 ** (-4.0 * position))
            accuracy += 0.004 * float(generator.standard_normal())
            yield _row(study, task, method, sparsity, seed, accuracy, dense_accuracy, num_trainings, requested)


def _row(
    study: Study,
    task: str,
    method: str,
    sparsity: float,
    seed: int,
    accuracy: float,
    dense_accuracy: float,
    num_trainings: int,
    requested: bool,
) -> dict[str, Any]:
    kept = NUM_PRUNABLE - round(sparsity * NUM_PRUNABLE)
    kind = "dense" if method == "dense" else "prune"
    return {
        "task": task,
        "method": method,
        "label": study.labels.get(method, method),
        "sparsity": sparsity,
        "seed": seed,
        "cell": f"{kind}-{_key(task, method, sparsity, seed)}",
        "requested": requested,
        "num_prunable": NUM_PRUNABLE,
        "num_kept": kept,
        "test_accuracy": accuracy,
        "test_accuracy_selected": accuracy - 0.001,
        "test_accuracy_oracle_best": accuracy + 0.004,
        "validation_accuracy": accuracy + 0.002,
        "train_loss": 0.01,
        "dense_test_accuracy": dense_accuracy,
        "gradient_steps": 6000 * num_trainings,
        "num_trainings": num_trainings,
        "train_flops": 7.2e11 * num_trainings * (1.0 - 0.5 * sparsity),
        "wall_s": 2.5 * num_trainings + 0.1 * seed,
    }


def _analysis(
    study: Study, task: str, network: str, seed: int, generator: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Return limit cells, limit rows and the two spectra of one dense network."""
    eigenvalues = np.sort(
        np.concatenate([np.zeros(360), 10.0 ** generator.uniform(-5, 1, 220), -(10.0 ** generator.uniform(-6, -3, 20))])
    )
    arrays = {
        "slq": {"arrays": slq_arrays(eigenvalues, 4, 32, generator)},
        "dense_hessian": {"arrays": {"eigenvalues": eigenvalues}},
    }
    searched, tolerance_nats = study.searched, 0.0025 * float(np.exp(0.1 * generator.standard_normal()))
    curves_name = f"limit-{_key(task, network, seed, 'measured')}"
    sparsity = np.concatenate([np.linspace(0.0, 0.9, 10), np.linspace(0.91, 0.998, 23)])
    jitter = 0.002 * float(generator.standard_normal())
    one_shot = 2.3 / (1.0 + (np.maximum(1.0 - sparsity, 1e-9) / (0.022 + jitter)) ** 9)
    fine_tuned = 2.3 / (1.0 + (np.maximum(1.0 - sparsity, 1e-9) / (0.011 + jitter / 4)) ** 9)
    curves = {
        "one_shot_sparsity": sparsity,
        "one_shot_train_loss": 0.004 + one_shot,
        "one_shot_validation_accuracy": 0.97 * np.exp(-one_shot),
        "fine_tuned_sparsity": sparsity,
        "fine_tuned_train_loss": 0.004 + fine_tuned,
        "fine_tuned_validation_accuracy": 0.97 * np.exp(-fine_tuned),
    }
    limits = []
    for factor in (0.5, 1.0, 2.0):
        shared = {"task": task, "seed": seed, "network": network}
        setting = {"loss_tolerance_nats": factor * tolerance_nats, "tolerance_factor": factor}
        rise = factor * tolerance_nats
        shift = 0.004 * np.log2(factor) + jitter / 3
        slq_cell, dense_cell = (f"spectrum-{_key(task, network, seed, source)}" for source in arrays)
        for limit, value in (("gaussian_width", 0.951 + shift), ("statistical_dimension", 0.963 + shift)):
            slq = value + 0.0008 * float(generator.standard_normal())
            for source, estimate, error, cell in (
                ("slq", slq, 0.0009, slq_cell),
                ("dense_hessian", value, np.nan, dense_cell),
            ):
                found = {"limit": limit, "source": source, "curvature": "positive", **setting}
                total = {"error": 0.004 if searched and factor == 1.0 and source == "slq" else np.nan}
                bounds = {"sparsity_limit": estimate, "lower": estimate - 0.006, "upper": estimate + 0.006}
                limits.append({**shared, **found, **bounds, "probe_standard_error": error, **total, "cell": cell})
        for limit, losses in (("one_shot", one_shot), ("fine_tuned", fine_tuned)):
            value = float(sparsity[np.flatnonzero(losses <= losses[0] + rise)[-1]])
            found = {"limit": limit, "source": "measured", "curvature": "", **setting}
            bounds = {"sparsity_limit": value, "lower": np.nan, "upper": np.nan}
            limits.append(
                {**shared, **found, **bounds, "probe_standard_error": np.nan, "error": np.nan, "cell": curves_name}
            )
    return {curves_name: {"curves": curves}}, limits, arrays


def row_arrays(num_rows: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Rows of growing magnitude, the first fifth of them exactly zero."""
    norms = 10.0 ** generator.uniform(-4, 1, num_rows)
    norms[: num_rows // 5] = 0.0
    return {"row_magnitude": np.sort(generator.exponential(size=num_rows)), "row_l1_norm": norms}


def sweep_curves(num_points: int, num_evaluated: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """A loss that rises and an accuracy that falls, some of their points marked as evaluated, the ends among them."""
    sparsity = np.arange(num_points) / num_points
    evaluated = np.zeros(num_points, dtype=bool)
    evaluated[generator.choice(np.arange(1, num_points - 1), num_evaluated - 2, replace=False)] = True
    evaluated[[0, -1]] = True
    curves = {"sparsity": sparsity, "num_kept": np.round((1 - sparsity) * NUM_PRUNABLE), "evaluated": evaluated}
    for split, best in (("train", 1.0), ("validation", 0.97), ("test", 0.96)):
        loss = 0.01 + (1 - best) + 2.3 / (1.0 + ((1.0 - sparsity) / (0.03 + 0.002 * generator.random())) ** 4)
        curves |= {f"{split}_loss": loss, f"{split}_accuracy": best - (best - 0.1) * np.minimum(1.0, loss / 2.4)}
    return curves


def slq_arrays(
    eigenvalues: np.ndarray, num_probes: int, num_steps: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Lanczos with full re-orthogonalisation on diag(eigenvalues), one random sign probe per row."""
    diagonal, off_diagonal = np.zeros((num_probes, num_steps)), np.zeros((num_probes, num_steps - 1))
    for probe in range(num_probes):
        basis = [generator.choice([-1.0, 1.0], len(eigenvalues)) / np.sqrt(len(eigenvalues))]
        for step in range(num_steps):
            residual = eigenvalues * basis[step]
            diagonal[probe, step] = residual @ basis[step]
            for _ in range(2):
                residual = residual - np.array(basis).T @ (np.array(basis) @ residual)
            if step < num_steps - 1:
                off_diagonal[probe, step] = np.linalg.norm(residual)
                basis.append(residual / off_diagonal[probe, step])
    return {
        "diagonal": diagonal,
        "off_diagonal": off_diagonal,
        "num_steps": np.full(num_probes, num_steps),
        "probe_index": np.arange(num_probes),
    }
