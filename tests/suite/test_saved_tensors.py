from pathlib import Path

import pytest
import torch

from data.hdf5 import FileRefused
from suite.saved_tensors import read_tensor, write_tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.uint8])
def test_a_tensor_is_read_as_it_was_written(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (100 * torch.rand((3, 4), generator=torch.Generator().manual_seed(0))).to(dtype)
    found = read_tensor(tmp_path, write_tensor(tmp_path, "a.bin", tensor.T))
    assert found.dtype == dtype
    assert torch.equal(found, tensor.T)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    piece, path = write_tensor(tmp_path, "a.bin", torch.ones(9)), tmp_path / "a.bin"
    content = path.read_bytes()
    path.unlink()
    if damage != "lose":
        path.write_bytes(content[:-1] + (b"\x01" if damage == "flip" else b""))
    with pytest.raises(FileRefused, match="is missing or damaged"):
        read_tensor(tmp_path, piece)
