"""The spectrum of a user's own network, held against its whole Hessian."""

import json
from typing import Any

import pytest
import torch

from suite.curvature.dense import dense_hessian
from suite.measure import Effort, measure_spectrum
from suite.networks.sources import UserNetwork

DIM = 6 * 8 + 8 * 3


def spectrum(user_network: UserNetwork, effort: Effort, **options: Any) -> dict[str, Any]:
    return measure_spectrum(user_network, effort, **options).values


def test_all_steps_reach_the_ends_of_the_exact_spectrum(user_network: UserNetwork) -> None:
    exact = torch.linalg.eigvalsh(dense_hessian(user_network.build(), max_dim=DIM)).numpy()
    found = spectrum(user_network, Effort(num_probes=2, num_lanczos_steps=1000))
    assert found["eigenvalue_max"] == pytest.approx(exact[-1], rel=1e-10)
    assert found["eigenvalue_min"] == pytest.approx(exact[0], abs=1e-8 * exact[-1])
    error = found["eigenvalue_mean_standard_error"]
    assert abs(found["eigenvalue_mean"] - exact.mean()) < 4 * error + 1e-12


def test_a_spectrum_is_json(user_network: UserNetwork) -> None:
    found = spectrum(user_network, Effort(num_probes=1, num_lanczos_steps=5))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["eigenvalue_mean_standard_error"] is None  # one probe has no spread
    assert found["num_matvecs"] == 5
    assert len(found["probes"]) == 1
    assert sum(found["probes"][0]["quadrature_weights"]) == pytest.approx(1, rel=1e-12)
