from pathlib import Path

import pytest
import torch

from data.hdf5 import FileRefused
from suite.saved_tensors import one_save, read_tensor, tensor_names, write_tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.uint8])
def test_a_tensor_is_read_as_it_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (100 * torch.rand((3, 4), generator=torch.Generator().manual_seed(0))).to(dtype)
    found = read_tensor(tmp_path, write_tensor(tmp_path, "a", "0123abcd", tensor.T))
    assert found.dtype == dtype
    assert torch.equal(found, tensor.T)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    piece = write_tensor(tmp_path, "a", "0123abcd", torch.ones(9))
    path = tmp_path / piece["name"]
    content = path.read_bytes()
    path.unlink()
    if damage != "lose":
        path.write_bytes(content[:-1] + (b"\x01" if damage == "flip" else b""))
    with pytest.raises(FileRefused, match="is missing or damaged"):
        read_tensor(tmp_path, piece)


def test_a_save_that_fails_takes_back_its_own_alone(tmp_path: Path) -> None:
    kept: set[str] = set()

    def save(stem: str, fails: bool) -> None:
        with one_save(tmp_path, lambda: kept) as writer:
            kept.add(write_tensor(tmp_path, "a", writer, torch.ones(1))["name"])
            write_tensor(tmp_path, stem, writer, torch.ones(2))
            if fails:
                raise KeyboardInterrupt

    save("b", fails=False)
    with pytest.raises(KeyboardInterrupt):
        save("c", fails=True)
    assert sorted(name[0] for name in tensor_names(tmp_path)) == ["a", "a", "b"]
    assert kept < tensor_names(tmp_path)
