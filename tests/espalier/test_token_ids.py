"""A network that reads whole numbers: token ids into an embedding, from a file and in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.quadrature import atoms
from suite.errors import UserError
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.networks.loaded import Network
from suite.networks.sources import MemoryNetwork, UserNetwork

Espalier = Callable[..., Any]
NUM_TOKENS, LENGTH = 12, 6
LANGUAGE = """
from torch import nn

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embed(tokens)).mean(dim=1))

def build():
    return Classifier()
"""
NUM_PRUNABLE = 3 * 4 * 4 + 4 * 4 + 2 * 4 * 8 + 4 * 3  # of attention, of what follows it, of the head; not the table


@pytest.fixture
def sentences() -> tuple[Tensor, Tensor]:
    """Token ids, and how often the first two tokens occur: none, one, more."""
    tokens = torch.randint(0, NUM_TOKENS, (200, LENGTH), generator=torch.Generator().manual_seed(0))
    return tokens, (tokens < 2).sum(dim=1).clamp(max=2)


@pytest.fixture
def model(working_folder: Path, sentences: tuple[Tensor, Tensor]) -> nn.Module:
    """A user's own few lines of training; module, weights and data lie in the working folder."""
    (working_folder / "language.py").write_text(LANGUAGE)
    space: dict[str, Any] = {"__name__": "mine"}
    exec(LANGUAGE, space)  # not imported: the command shall be the first to do so
    torch.manual_seed(0)
    model: nn.Module = space["build"]()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(sentences[0]), sentences[1]).backward()
        optimiser.step()
    torch.save(model.state_dict(), "language.pt")
    write(sentences[0].numpy(), sentences[1].numpy())
    return model


def write(tokens: np.ndarray, targets: np.ndarray) -> None:
    with h5py.File("sentences.h5", "w") as file:
        file["train/inputs"], file["train/targets"] = tokens, targets


OPTIONS = ("--model", "language:build", "--weights", "language.pt", "--data", "sentences.h5")


def loaded() -> Network:
    return UserNetwork("language:build", Path("language.pt"), Path("sentences.h5"), "cpu", "float64").load()


@pytest.mark.usefixtures("model")
def test_its_limit_agrees_with_the_whole_hessian(espalier: Espalier) -> None:
    answer = espalier("limit", *OPTIONS, "--tolerance", 0.02, "--json", "limit.json")
    assert answer.code == 0, answer.err
    values = json.loads(Path("limit.json").read_text())
    assert values["num_prunable_weights"] == NUM_PRUNABLE
    network = loaded()
    spectrum = eigendecomposition(dense_hessian(network.hessian("float64")))
    order, eigenvalues = MagnitudeOrder.of(network.weights()), spectrum.eigenvalues.numpy()
    delta_measure = exact_delta_measure(eigenvalues, spectrum.eigenvectors.numpy(), order)
    for each in predict(atoms(eigenvalues), order, values["loss_tolerance_nats"], delta_measure, "abs", resolution=0.0):
        if each.tolerance_factor == 1:
            assert values[each.limit]["sparsity_limit"] == pytest.approx(each.estimate.sparsity_limit, abs=0.02)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_ids_keep_their_type(dtype: torch.dtype, sentences: tuple[Tensor, Tensor]) -> None:
    write(sentences[0].to(dtype).numpy(), sentences[1].numpy())
    assert loaded().splits["train"].inputs.dtype == dtype


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("wrong", [NUM_TOKENS, -1])
def test_an_id_beyond_the_table_is_found_wherever_it_stands(
    wrong: int, sentences: tuple[Tensor, Tensor], refused: Callable[..., str]
) -> None:
    tokens = sentences[0].numpy().copy()
    tokens[171, 3] = wrong
    write(tokens, sentences[1].numpy())
    line = refused("limit", *OPTIONS)
    assert "language:build does not take inputs of shape (6,): index out of range" in line
    assert "A model is given torch.int64 as it is" in line


def test_a_notebook_gives_whole_numbers_to_the_model_as_they_are(
    model: nn.Module, sentences: tuple[Tensor, Tensor]
) -> None:
    import espalier

    source = MemoryNetwork.of(model, *sentences, "float64")
    assert source.network.splits["train"].inputs.dtype == torch.int64
    found = espalier.limit(model, *sentences, tolerance=0.05)
    assert found["num_prunable_weights"] == NUM_PRUNABLE
    assert 0 < found["statistical_dimension"]["sparsity_limit"] < 1


def test_images_of_whole_numbers_have_to_be_scaled_by_who_knows_how() -> None:
    import espalier

    images = torch.zeros((200, 3, 8, 8), dtype=torch.uint8)
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(UserError, match=r"given torch\.uint8 as it is: mend the model, or scale images to floats"):
        espalier.limit(network, images, torch.arange(200) % 3)
