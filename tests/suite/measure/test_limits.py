"""Limits of a user's own network, held against its whole Hessian."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data import StoredSplit, write_dataset
from suite.curvature.dense import dense_hessian
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import RemovedWeightsRequest, RunRequest
from suite.curvature.quadrature import atoms
from suite.curvature.saved_runs import save_run
from suite.curvature.slq import ProbeResult, inline_map, run_probe
from suite.errors import UserError
from suite.limits.adaptive import GRADIENTS_PER_PRODUCT
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.measure import Effort, measure_spectrum
from suite.measure import measure_limits as measured_limits
from suite.networks.sources import UserNetwork

DIM = 6 * 8 + 8 * 3


def measure_limits(*arguments: Any, folder: Path | None = None, **options: Any) -> dict[str, Any]:
    if folder is None:
        return measured_limits(*arguments, **options).values
    with growing_inline_map(folder) as saving:
        return measured_limits(*arguments, probe_map=saving, **options).values


def exact_eigenpairs(source: UserNetwork) -> tuple[np.ndarray, np.ndarray]:
    eigenvalues, eigenvectors = torch.linalg.eigh(dense_hessian(source.build(), max_dim=DIM))
    return eigenvalues.numpy(), eigenvectors.numpy()


def test_limits_are_json_and_agree_with_the_exact_ones(user_network: UserNetwork) -> None:
    found = measure_limits(user_network, Effort(num_probes=8, num_lanczos_steps=DIM), loss_tolerance_nats=0.05)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["num_prunable_weights"], found["num_lanczos_steps"]) == (DIM, DIM)
    order = MagnitudeOrder.of(user_network.load().weights())
    eigenvalues, eigenvectors = exact_eigenpairs(user_network)
    delta_measure = exact_delta_measure(eigenvalues, eigenvectors, order)
    exact = predict(atoms(eigenvalues), order, 0.05, delta_measure, "abs", resolution=0.0)
    for prediction in exact:
        part = found[prediction.limit]
        if prediction.tolerance_factor == 1:
            error = 4 * part["probe_standard_error"] + 1 / DIM
            assert abs(part["sparsity_limit"] - prediction.estimate.sparsity_limit) < error
        assert 0 < part["at_half_tolerance"] <= part["sparsity_limit"] <= part["at_double_tolerance"] <= 1
        assert part["lower"] <= part["sparsity_limit"] <= part["upper"]


def test_limits_do_not_depend_on_who_runs_the_probes(user_network: UserNetwork) -> None:
    def backwards(source: Any, requests: Sequence[Any]) -> Any:
        return reversed(list(inline_map(source, requests)))

    effort = Effort(num_probes=3, num_lanczos_steps=10)
    forwards = measure_limits(user_network, effort, loss_tolerance_nats=0.05)
    assert measure_limits(user_network, effort, loss_tolerance_nats=0.05, probe_map=backwards) == forwards


def test_the_map_computes_every_product(user_network: UserNetwork) -> None:
    sent: list[RunRequest] = []
    products = 0

    def troubled(source: Any, requests: Sequence[Any]) -> Iterator[ProbeResult]:
        nonlocal products
        operator = source.build()
        for request in requests:
            sent.append(request)
            before = operator.num_matvecs
            result = run_probe(operator, request)
            products += operator.num_matvecs - before
            yield replace(result, restarts=1, reissued=2)

    effort = Effort(num_probes=2, num_lanczos_steps=DIM)  # so many steps that runs end early as well
    found = measure_limits(user_network, effort, loss_tolerance_nats=0.05, probe_map=troubled)
    removed = [request for request in sent if isinstance(request, RemovedWeightsRequest)]
    assert len(removed) > 1
    assert len(sent) == 2 + len(removed)
    assert found["num_matvecs"] == products
    assert (found["restarts"], found["reissued"]) == (len(sent), 2 * len(sent))
    alone = measure_limits(user_network, effort, loss_tolerance_nats=0.05)
    assert alone == found | {"restarts": 0, "reissued": 0}


def test_this_process_builds_no_operator_anew_for_each_run(
    user_network: UserNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    inner = HessianOperator.__init__

    def counted(self: Any, *arguments: Any, **options: Any) -> None:
        inner(self, *arguments, **options)
        sizes.append(self.num_examples)

    monkeypatch.setattr(HessianOperator, "__init__", counted)
    measure_limits(user_network, Effort(1, 4), loss_tolerance_nats=0.05)
    few = len(sizes)
    measure_limits(user_network, Effort(6, 4), loss_tolerance_nats=0.01)  # more probes, other runs from removed weights
    assert len(sizes) == 2 * few


def test_products_are_counted(user_network: UserNetwork) -> None:
    found = measure_limits(user_network, Effort(num_probes=2, num_lanczos_steps=6), loss_tolerance_nats=0.05)
    assert found["num_matvecs"] > 2 * 6
    assert (found["num_matvecs"] - 2 * 6) % 6 == 0  # whole runs from removed weights


@pytest.mark.parametrize("measure", [measured_limits, measure_spectrum])
def test_threads_per_worker_are_told(measure: Callable[..., Any], user_network: UserNetwork) -> None:
    class Threaded:
        threads = 7

        def __call__(self, source: Any, requests: Sequence[Any]) -> Iterator[ProbeResult]:
            return inline_map(source, requests)

    def threads(**options: Any) -> Any:
        return measure(user_network, Effort(1, 4), **options).values["threads"]

    assert threads() == torch.get_num_threads()
    assert threads(probe_map=Threaded()) == 7


def test_without_a_tolerance_the_spread_of_batch_losses_is_taken(user_network: UserNetwork) -> None:
    network = user_network.load()
    inputs, targets, _ = network.splits["train"]
    with torch.no_grad():
        losses = nn.functional.cross_entropy(network.model(inputs).double(), targets, reduction="none")
    expected = np.std([losses[:128].mean(), losses[128:].mean()])
    found = measure_limits(user_network, Effort(num_probes=1, num_lanczos_steps=4))
    assert found["loss_tolerance_nats"] == pytest.approx(expected, rel=1e-9)


def test_progress_goes_from_spectrum_to_limits(user_network: UserNetwork) -> None:
    seen: list[tuple[float, str]] = []
    effort = Effort(num_probes=2, num_lanczos_steps=4)
    measure_limits(user_network, effort, loss_tolerance_nats=0.05, progress=lambda *event: seen.append(event))
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert any("products/s" in text for _, text in seen)
    removed = [fraction for fraction, text in seen if text.startswith("runs from the removed weights")]
    assert removed[0] == 0.8
    assert len(removed) > 1


def test_too_few_examples_for_a_spread_of_batches(user_network: UserNetwork, tmp_path: Path) -> None:
    path = tmp_path / "few.h5"
    split = StoredSplit(np.ones((9, 6), np.float32), np.arange(9) % 3)
    write_dataset(path, {"train": split}, {"classes": 3, "source": "", "licence": ""})
    with pytest.raises(UserError, match="9 examples make one batch of 128; its loss has no spread"):
        measure_limits(replace(user_network, data=path), Effort(1, 2))


def test_a_tolerance_picks_the_dense_hessian_where_that_is_cheaper(user_network: UserNetwork) -> None:
    found = measure_limits(user_network, Effort(), loss_tolerance_nats=0.05, tolerance=0.005)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["method"], found["converged"], found["num_examples"]) == ("dense", True, 160)
    order = MagnitudeOrder.of(user_network.load().weights())
    eigenvalues, eigenvectors = exact_eigenpairs(user_network)
    delta_measure = exact_delta_measure(eigenvalues, eigenvectors, order)
    for prediction in predict(atoms(eigenvalues), order, 0.05, delta_measure, "abs", resolution=0.0):
        if prediction.tolerance_factor == 1:
            limit = found[prediction.limit]
            assert limit["sparsity_limit"] == prediction.estimate.sparsity_limit
            assert limit["budget"]["total"] == 0.0
            half_width = (limit["at_double_tolerance"] - limit["at_half_tolerance"]) / 2
            assert limit["budget"]["epsilon_sensitivity"] == pytest.approx(half_width)


@pytest.fixture
def wide(user_network: UserNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserNetwork:
    """A network of 5,400 random weights: too many for the dense Hessian to take over."""
    name = f"wide_net_{tmp_path.name}".replace("-", "_")
    layers = "nn.Flatten(), nn.Linear(6, 600), nn.ReLU(), nn.Linear(600, 3)"
    (tmp_path / f"{name}.py").write_text(f"from torch import nn\ndef build():\n    return nn.Sequential({layers})\n")
    draw = torch.Generator().manual_seed(0)
    shapes = {"1.weight": (600, 6), "1.bias": (600,), "3.weight": (3, 600), "3.bias": (3,)}
    state = {key: 0.1 * torch.randn(shape, generator=draw) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "wide.pt")
    return replace(user_network, reference=f"{name}:build", weights=tmp_path / "wide.pt", dtype="float32")


def test_a_tolerance_is_reached_and_every_check_is_reported(wide: UserNetwork) -> None:
    events: list[tuple[float, str]] = []
    found = measure_limits(
        wide, Effort(), loss_tolerance_nats=0.5, tolerance=0.02, progress=lambda *event: events.append(event)
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["method"], found["converged"], found["tolerance"]) == ("lanczos", True, 0.02)
    assert found["num_matvecs"] == found["checks"][-1]["num_matvecs"]
    assert found["gradient_equivalents"] == GRADIENTS_PER_PRODUCT * found["num_matvecs"]
    for name in ("gaussian_width", "statistical_dimension"):
        assert found[name]["budget"]["total"] <= 0.02
        assert found[name]["lower"] <= found[name]["sparsity_limit"] <= found[name]["upper"]
    assert len(events) > found["num_matvecs"]  # every product is seen
    assert [fraction for fraction, _ in events] == sorted(fraction for fraction, _ in events)
    assert "160 examples" in events[-1][1]
    assert "products/s" in events[-1][1]


def test_a_killed_run_goes_on_to_the_same_bits(
    wide: UserNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"loss_tolerance_nats": 0.5, "tolerance": 0.01}
    whole = measure_limits(wide, Effort(), **arguments)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_limits(wide, Effort(), folder=tmp_path / "runs", progress=killed, **arguments)
    products: list[int] = []
    monkeypatch.setattr(
        "suite.curvature.growing_runs.save_run",
        lambda run, folder, identity: (products.append(run.num_lanczos_steps), save_run(run, folder, identity)),
    )
    assert measure_limits(wide, Effort(), folder=tmp_path / "runs", **arguments) == whole
    assert products  # something was left to do
    products.clear()
    assert measure_limits(wide, Effort(), folder=tmp_path / "runs", **arguments) == whole
    assert products == []  # and nothing the third time


def test_a_tolerance_that_is_none(user_network: UserNetwork) -> None:
    with pytest.raises(UserError, match=r"tolerance=1\.5 is out of range"):
        measure_limits(user_network, Effort(), loss_tolerance_nats=0.01, tolerance=1.5)
