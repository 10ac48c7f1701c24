from typing import Any

import pytest
import torch
from torch import nn

from suite.curvature.dense import dense_hessian
from suite.curvature.probes import ProbeRequest, probe_vector
from suite.errors import UserError
from suite.measure.precision import NUM_EXAMPLES, PRECISIONS, arithmetic, precision_as_json
from suite.networks.sources import MemoryNetwork

PROBE = ProbeRequest(1, 0, "rademacher", 1)


@pytest.fixture(scope="module")
def network() -> MemoryNetwork:
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn((200, 6), generator=draw), torch.arange(200) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return MemoryNetwork.of(model, inputs, targets)


def found(network: MemoryNetwork, precision: str) -> dict[str, Any]:
    dtype, operands = PRECISIONS[precision]
    source = MemoryNetwork(network.network, dtype, operands=operands)
    return precision_as_json(source, network.network, seed=1)


def test_coarser_roundings_change_a_product_more(network: MemoryNetwork) -> None:
    fine, coarse = (found(network, name)["rounding_bias"]["relative_error"] for name in ("float32", "bfloat16"))
    assert 0 < fine < 1e-5
    assert 1e-4 < coarse < 0.1


def test_the_bias_is_that_of_one_probe_on_the_dense_hessian(network: MemoryNetwork) -> None:
    bias = found(network, "bfloat16")["rounding_bias"]
    few = network.network.with_train_examples(NUM_EXAMPLES, 1)
    exact, probe = dense_hessian(few.hessian("float64")), probe_vector(PROBE, 72, torch.float64, torch.device("cpu"))
    rounded = few.hessian("float32", operands="bfloat16").matvec(probe.float()).double()
    assert bias["num_examples"] == NUM_EXAMPLES
    assert bias["curvature"] == pytest.approx(float(probe @ exact @ probe) / 72)
    assert bias["curvature_bias"] == pytest.approx(float(probe @ (rounded - exact @ probe)) / 72)
    assert bias["relative_error"] == pytest.approx(float((rounded - exact @ probe).norm() / (exact @ probe).norm()))


def test_float64_has_no_bias_to_measure(network: MemoryNetwork) -> None:
    assert found(network, "float64") == {"precision": "float64", "rounding_bias": None}


def test_a_loss_that_does_not_see_the_weights_has_no_scale() -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        for parameter in model.parameters():
            parameter.fill_(0.0)
        model[0].bias.fill_(-1.0)  # no unit ever fires
    source = MemoryNetwork.of(model, torch.zeros((20, 6)), torch.arange(20) % 3)
    bias = precision_as_json(source, source.network, 0)["rounding_bias"]
    assert bias == {
        "num_examples": NUM_EXAMPLES,
        **dict.fromkeys(("relative_error", "curvature", "curvature_bias", "relative_curvature_bias")),
    }


def test_what_a_device_does_not_have_is_refused() -> None:
    assert arithmetic("tf32", "cuda") == ("float32", "tf32")
    with pytest.raises(UserError, match=r"precision 'tf32' needs a CUDA device, and this is cpu\. Expected: float32"):
        arithmetic("tf32", "cpu")
    with pytest.raises(UserError, match="--precision 'half' is unknown"):
        arithmetic("half", "cpu", "--precision")
