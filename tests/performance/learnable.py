"""Images that a network can learn, and FC5 trained on them: the workload of the time-to-the-limit benchmark."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from suite.initialisation import initialise
from suite.network import build_model, model_spec, prunable_weights
from suite.seeds import generator
from suite.splits import Split
from suite.study import Recipe
from suite.training.loop import train

_PROTOTYPES_PER_CLASS = 8
# The published recipe for FC5 (l1 5e-5, learning rate 0.01, momentum 0.9, 200 epochs of CIFAR-10 in batches of 128) can
# move a weight by 0.39 through its penalty alone. So can these two in 20 epochs of 10,000 images.
_LEARNING_RATE, _L1 = 0.05, 1e-3
_NOISE = 2.0  # against prototypes of unit variance: 95 % of unseen images are told after 10 epochs on 4,000


def images(
    num_examples: int, num_classes: int = 10, seed: int = 0, size: int = 32, noise_level: float = _NOISE
) -> tuple[Tensor, Tensor]:
    """Return smooth random prototypes, a few per class, each example one of them with noise of its own.

    Returns:
        Inputs, shape (num_examples, 3, size, size), and classes, shape (num_examples,).
    """
    draw = generator(seed, "images")
    coarse = torch.randn((num_classes * _PROTOTYPES_PER_CLASS, 3, 8, 8), generator=draw)
    prototypes = nn.functional.interpolate(coarse, size=size, mode="bilinear")
    chosen = torch.randint(0, len(prototypes), (num_examples,), generator=draw)
    noise = torch.randn((num_examples, 3, size, size), generator=draw)
    inputs = prototypes[chosen] + noise_level * noise
    return (inputs - inputs.mean()) / inputs.std(), chosen % num_classes


def pixels(num_examples: int, num_classes: int = 10, size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return such images as uint8, with mean 127.5 and a standard deviation of 51: what lies beyond 0 and 255 is cut.

    Their noise is a quarter, so that they are learned in a few epochs though they are cropped and flipped.
    """
    inputs, targets = images(num_examples, num_classes, seed, size, _NOISE / 4)
    return (127.5 + 51 * inputs).round_().clamp_(0, 255).to(torch.uint8), targets


def trained(name: str, inputs: Tensor, targets: Tensor, folder: Path, epochs: int, l1: float = _L1) -> nn.Module:
    """Return a network trained as LOMP trains it, with an L1 penalty; read from the folder where it is there already.

    Args:
        name: of a model in suite/models.
        inputs: shape (n, 3, 32, 32).
        targets: shape (n,).
        folder: where the weights are kept between runs.
        epochs: of SGD with momentum, cosine schedule, batch 128.
        l1: penalty.
    """
    model = build_model(model_spec(name, {}, tuple(inputs.shape[1:]), int(targets.max()) + 1))
    path = folder / f"{name}-{len(targets)}-{epochs}-{l1:g}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    initialise(model, "kaiming_normal", 0)
    recipe = Recipe(epochs=epochs, batch_size=128, learning_rate=_LEARNING_RATE, l1=l1)
    train(model, {"train": Split(inputs, targets)}, recipe, 0, progress=lambda done, text: print(f"{done:.0%} {text}"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def weights_digest(model: nn.Module) -> str:
    """Return what tells whether a stored reference belongs to these weights."""
    digest = hashlib.sha256()
    for weight in prunable_weights(model).values():
        digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
