from collections.abc import Callable
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


def both(model: nn.Module) -> nn.Module:
    return torch.compile(nn.DataParallel(model))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("wrapped", [nn.DataParallel, torch.compile, both])
def test_the_prefix_of_a_wrapper_is_told_with_the_line_that_strips_it(
    wrapped: Callable[[nn.Module], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = wrapped(small()).state_dict()
    torch.save(state, "net.pt")
    with pytest.raises(UserError, match=r"^net\.pt does not fit the model: every name begins with '") as caught:
        load_state(small(), state, "net.pt")
    line = str(caught.value).partition("Strip it: ")[2].removesuffix(".")
    exec(line.replace("PATH", "'net.pt'").replace("STRIPPED", "'own.pt'"), {"torch": torch})
    load_state(small(), read_state(Path("own.pt")), "own.pt")


def test_a_prefix_that_is_not_all_that_differs_is_not_blamed() -> None:
    state = {f"module.{name}": value for name, value in small().state_dict().items()}
    with pytest.raises(UserError, match=r"it lacks '1\.weight'"):
        load_state(small(), state | {"module.7.bias": torch.zeros(1)}, "net.pt")


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
