from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from suite.errors import UserError
from suite.state_dict import load_state, read_state


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(nn.Flatten(), nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 30))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"3.bias": None}, "it lacks '3.bias'"),
        ({"extra": torch.zeros(1)}, "it has 'extra', which the model has not"),
        ({"1.weight": torch.zeros(2, 2)}, "'1.weight' is (2, 2), the model's is (50, 40)"),
        ({"1.weight": torch.full((50, 40), torch.nan)}, "'1.weight' holds NaN or infinite values"),
    ],
)
def test_a_state_that_does_not_fit(change: dict[str, Tensor | None], line: str) -> None:
    model = small()
    state = {"1.weight": torch.zeros(50, 40), "1.bias": torch.zeros(50), "3.weight": torch.zeros(30, 50)}
    state |= {"3.bias": torch.zeros(30)}
    load_state(model, state, "net.pt")
    wrong = {**state, **change}
    with pytest.raises(UserError) as caught:
        load_state(model, {name: value for name, value in wrong.items() if value is not None}, "net.pt")
    assert str(caught.value).startswith("net.pt")
    assert line in str(caught.value)


def test_a_shared_weight_has_one_value() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    load_state(model, {"0.weight": torch.ones(3, 3), "1.weight": torch.ones(3, 3)}, "net.pt")
    assert torch.equal(model[0].weight, torch.ones(3, 3))
    with pytest.raises(UserError, match=r"^net\.pt does not fit the model: '0\.weight' and '1\.weight' differ"):
        load_state(model, {"0.weight": torch.ones(3, 3), "1.weight": torch.zeros(3, 3)}, "net.pt")


def test_a_saved_state_is_read_as_it_was(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save(state, tmp_path / "net.pt")
    read = read_state(tmp_path / "net.pt")
    assert list(read) == list(state)
    assert all(torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"101", "it is no torch file"),
        (b"", "it is no torch file"),
        (None, "does not exist. Expected: torch.save(model.state_dict(), PATH)."),
    ],
)
def test_a_file_that_is_none_is_told_with_the_repair(content: bytes | None, line: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state(path)
    assert line in str(caught.value)
    assert str(caught.value).endswith("Expected: torch.save(model.state_dict(), PATH).")
