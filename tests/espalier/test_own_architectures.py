"""Blocks of today's networks by their users' own modules: `espalier limit` held against the whole Hessian."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.quadrature import atoms
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.networks.sources import UserNetwork

Espalier = Callable[..., Any]
BLOCKS = """
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

class ConvNeXt(nn.Module):
    \"\"\"A stem of patches, one block (depthwise convolution, norm of channels, GELU, layer scale), and a head.\"\"\"

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 2, stride=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))
        self.layer_scale = nn.Parameter(torch.full((4,), 0.5))
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        images = self.stem(images)
        branch = self.norm(self.depthwise(images).permute(0, 2, 3, 1))
        images = images + (self.layer_scale * self.mix(branch)).permute(0, 3, 1, 2)
        return self.head(images.mean(dim=(2, 3)))

class Transformer(nn.Module):
    \"\"\"Rows of the image are tokens: attention of two heads, then a small network, each around a residual.\"\"\"

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 4)
        self.position = nn.Parameter(torch.zeros(8, 4))
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
        self.query_key_value, self.project = nn.Linear(4, 12), nn.Linear(4, 4)
        self.mix = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        tokens = self.embed(images.squeeze(1)) + self.position
        parts = self.query_key_value(self.norms[0](tokens)).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        heads = scaled_dot_product_attention(*parts)
        tokens = tokens + self.project(heads.transpose(1, 2).flatten(2))
        tokens = tokens + self.mix(self.norms[1](tokens))
        return self.head(tokens.mean(dim=1))
"""
NUM_PRUNABLE = {"ConvNeXt": 16 + 36 + 2 * 64 + 40, "Transformer": 32 + 48 + 16 + 2 * 64 + 40}


@pytest.fixture(params=NUM_PRUNABLE)
def own(request: pytest.FixtureRequest, working_folder: Path) -> str:
    """A user's folder with a module, a file of trained weights, and data; the name of the network."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    inputs, targets = (images[:150].reshape(-1, 1, 8, 8) / 16).astype(np.float32), targets[:150]
    with h5py.File("mine.h5", "w") as file:
        file["train/inputs"] = inputs
        file["train/targets"] = targets
    (working_folder / "myblocks.py").write_text(BLOCKS)
    space: dict[str, Any] = {}
    exec(BLOCKS, space)  # not imported: the command shall be the first to do so
    torch.manual_seed(0)
    model: nn.Module = space[request.param]()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(torch.tensor(inputs)), torch.tensor(targets)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    torch.save(model.state_dict(), "mine.pt")
    return str(request.param)


def test_a_block_gets_its_limits_to_the_tolerance(own: str, espalier: Espalier) -> None:
    options = ("--model", f"myblocks:{own}", "--weights", "mine.pt", "--data", "mine.h5")
    answer = espalier("limit", *options, "--tolerance", 0.05, "--loss-tolerance", 0.05, "--json", "limit.json")
    assert answer.code == 0, answer.err
    values = json.loads(Path("limit.json").read_text())
    assert values["converged"]
    assert values["num_prunable_weights"] == NUM_PRUNABLE[own]
    source = UserNetwork(f"myblocks:{own}", Path("mine.pt"), Path("mine.h5"), "cpu", "float64")
    order, spectrum = MagnitudeOrder.of(source.load().weights()), eigendecomposition(dense_hessian(source.build()))
    eigenvalues = spectrum.eigenvalues.numpy()
    delta_measure = exact_delta_measure(eigenvalues, spectrum.eigenvectors.numpy(), order)
    for exact in predict(atoms(eigenvalues), order, 0.05, delta_measure, "abs", resolution=0.0):
        if exact.tolerance_factor == 1:
            assert values[exact.limit]["budget"]["total"] <= 0.05
            assert values[exact.limit]["sparsity_limit"] == pytest.approx(exact.estimate.sparsity_limit, abs=0.05)
