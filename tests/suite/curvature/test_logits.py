import torch
from torch import nn

from suite.curvature.operators import HessianOperator
from suite.splits import Normalisation


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))


def test_products_from_pixels_equal_products_from_inputs():
    pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    targets, normalisation = torch.tensor([0, 1, 2, 0, 1]), Normalisation((0.5,), (0.25,))
    model, names = _model(), ["0.weight", "3.weight"]
    from_inputs = HessianOperator(model, names, [(normalisation(pixels), targets)])
    from_pixels = HessianOperator(model, names, [(pixels, targets)], normalisation=normalisation)
    vector = torch.ones(from_inputs.dim)
    assert torch.equal(from_pixels.matvec(vector), from_inputs.matvec(vector))
