"""Crops and flips of a batch held against slicing image by image; the draw is a function of seed and epoch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from suite.errors import UserError
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training.augmentation import PADDING, CropFlip, check_augmentation
from suite.training.batches import Batches

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


def pixels(count: int = 40, shape: tuple[int, ...] = (3, 6, 5)) -> Tensor:
    return torch.randint(1, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def sliced(inputs: Tensor, draw: CropFlip, index: Tensor) -> Tensor:
    """Pad, crop and flip one image after the other."""
    height, width = inputs.shape[2:]
    found = []
    for number in index.tolist():
        image = torch.zeros(inputs.shape[1], height + 2 * PADDING, width + 2 * PADDING, dtype=inputs.dtype)
        image[:, PADDING : PADDING + height, PADDING : PADDING + width] = inputs[number]
        row, column = int(draw.rows[number]), int(draw.columns[number])
        crop = image[:, row : row + height, column : column + width]
        found.append(crop.flip(2) if draw.flips[number] else crop)
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 8, 8), (2, 3, 9)])
def test_a_batch_is_what_slicing_image_by_image_gives(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    inputs = pixels(shape=shape).to(dtype)
    before = inputs.clone()
    draw = CropFlip.drawn(3, 1, len(inputs), CPU)
    index = torch.tensor([7, 3, 39, 0, 12, 11])
    batch = draw(Split(inputs, torch.arange(40)).part(index), index)
    assert batch.inputs.dtype == dtype
    assert torch.equal(batch.inputs, sliced(inputs, draw, index))
    assert torch.equal(batch.targets, index)
    assert torch.equal(inputs, before)


def test_an_image_order_of_channels_last_gives_the_same() -> None:
    inputs = pixels()
    draw, index = CropFlip.drawn(3, 1, len(inputs), CPU), torch.arange(10)
    last = inputs.contiguous(memory_format=torch.channels_last)
    both = [draw(Split(each, torch.arange(40)).part(index), index).inputs for each in (inputs, last)]
    assert torch.equal(*both)


def test_the_draw_depends_on_seed_and_epoch_and_is_even() -> None:
    one, again = CropFlip.drawn(0, 4, 9000, CPU), CropFlip.drawn(0, 4, 9000, CPU)
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in ("rows", "columns", "flips"))
    assert not torch.equal(one.rows, CropFlip.drawn(0, 5, 9000, CPU).rows)
    assert not torch.equal(one.rows, CropFlip.drawn(1, 4, 9000, CPU).rows)
    for counts in (one.rows.bincount(), one.columns.bincount()):
        assert len(counts) == 2 * PADDING + 1
        assert (counts - 1000).abs().max() < 4 * (9000 * (1 / 9) * (8 / 9)) ** 0.5  # four standard deviations
    assert abs(int(one.flips.sum()) - 4500) < 4 * (9000 / 4) ** 0.5
    assert not torch.equal(one.rows, one.columns)


def test_padding_is_black_before_normalisation(recipe: Make) -> None:
    normalisation = Normalisation((0.5,), (0.25,))
    examples = Split(
        torch.full((64, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64), normalisation
    )
    batch = Batches(examples, recipe(batch_size=64, augmentation="crop_flip"), 0).at(0)
    values = set(batch.network_inputs().unique().tolist())
    assert values == {(0 - 0.5) / 0.25, (1 - 0.5) / 0.25}


def test_every_step_can_be_asked_for_alone(recipe: Make) -> None:
    made = recipe(epochs=3, batch_size=16, augmentation="crop_flip")
    examples = Split(pixels(), torch.arange(40))
    through = Batches(examples, made, 0)
    for step in range(9):
        expected, alone = through.at(step), Batches(examples, made, 0).at(step)
        assert torch.equal(alone.inputs, expected.inputs)
        assert torch.equal(alone.targets, expected.targets)
    assert len(through.at(2).targets) == 40 - 2 * 16


def test_without_augmentation_images_stay(recipe: Make) -> None:
    examples = Split(pixels(), torch.arange(40))
    batch = Batches(examples, recipe(batch_size=16), 0).at(1)
    assert torch.equal(batch.inputs, examples.inputs[batch.targets])


@pytest.mark.parametrize("shape", [(6,), (5, 5), (2, 3, 4, 5)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...], recipe: Make) -> None:
    line = "task t: training.augmentation = 'crop_flip' with inputs of shape "
    with pytest.raises(UserError) as error:
        check_augmentation("crop_flip", shape, "task t: ")
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    values: Any = torch.zeros(4, *shape)
    with pytest.raises(UserError, match="Expected: images"):
        Batches(Split(values, torch.zeros(4, dtype=torch.int64)), recipe(augmentation="crop_flip"), 0)
    check_augmentation("none", shape)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (2, 9, 3)])
def test_images_with_their_channels_last_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        check_augmentation("crop_flip", shape)
    assert f"inputs of shape {shape}, which seem to be (height, width, channels)" in str(error.value)
    assert "\n" not in str(error.value)
    check_augmentation("none", shape)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 3, 3), (1, 28, 1), (2, 9, 7), (4, 32, 32)])
def test_images_with_their_channels_first_are_taken(shape: tuple[int, ...]) -> None:
    check_augmentation("crop_flip", shape)
