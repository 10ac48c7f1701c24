"""The spectrum of a user's own network, held against its whole Hessian."""

import json
import math
from typing import Any

import pytest
import torch

from suite.curvature.dense import dense_hessian
from suite.curvature.rows import sample_row_norms
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


def test_rows_that_are_not_finite_are_null_in_the_answer(
    user_network: UserNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*arguments: Any, **named: Any) -> Any:
        rows = sample_row_norms(*arguments, **named)
        rows.norms.l1_norms[3] = math.nan
        return rows

    monkeypatch.setattr("suite.measure.spectrum.sample_row_norms", damaged)
    rows = spectrum(user_network, Effort(num_probes=1, num_lanczos_steps=3), rows=True)["rows"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows["l1_norm"][3] is rows["l1_norm_max"] is None
    assert rows["l1_norm"][4] > 0
