"""A training loop as one writes it at first: a data loader with workers, transforms image by image, float32."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from suite.splits import Normalisation

BATCH_SIZE, PADDING = 128, 4


class Images(Dataset[tuple[Tensor, int]]):
    """Pixels with the usual transforms: pad, crop, flip, to floats, normalise, as torchvision does them on tensors."""

    def __init__(self, pixels: Tensor, targets: Tensor, normalisation: Normalisation) -> None:
        """Take pixels, uint8 of shape (n, c, h, w)."""
        self.pixels, self.targets = pixels, targets
        self.mean = torch.tensor(normalisation.mean)[:, None, None]
        self.std = torch.tensor(normalisation.std)[:, None, None]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image, cropped, flipped and normalised, and its class."""
        image = self.pixels[index]
        height, width = image.shape[1:]
        image = functional.pad(image, [PADDING] * 4)
        row, column = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        image = image[:, row : row + height, column : column + width]
        if torch.rand(1).item() < 0.5:
            image = image.flip(-1)
        return image.to(torch.float32).div(255).sub_(self.mean).div_(self.std), int(self.targets[index])


@dataclass
class PlainTraining:
    """SGD with momentum, torch's defaults in everything else.

    Attributes:
        model: on its device.
        images: that it is trained on.
        learning_rate, momentum, weight_decay: of torch.optim.SGD.
        num_workers: processes that load.
    """

    model: nn.Module
    images: Images
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    num_workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        """Make loader and optimiser."""
        self.device = next(self.model.parameters()).device
        self.loader = DataLoader(
            self.images,
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(self.seed),
        )
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=self.learning_rate, **options)

    def epoch(self) -> float:
        """Train for one epoch and return its mean loss, printed by most loops."""
        self.model.train()
        total = 0.0
        for inputs, targets in self.loader:
            total += self.step(inputs, targets) * len(targets)
        return total / len(self.images)

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Train on one batch and return its loss."""
        inputs = inputs.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        self.optimiser.zero_grad()
        loss = functional.cross_entropy(self.model(inputs), targets)
        loss.backward()
        self.optimiser.step()
        return loss.item()
