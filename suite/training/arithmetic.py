"""In which numbers a training computes, and whether its forward pass is compiled."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Operands, tensor_cores
from suite.errors import UserError
from suite.study import Recipe

Precision = Literal["float32", "tf32", "bfloat16"]
Forward = Callable[[Tensor], Tensor]
_NETWORKS = 2**31 - 1  # and sizes of batches that one process may compile; no cell comes near


@dataclass(frozen=True)
class Arithmetic:
    """How the forward and backward passes of a training compute; weights, loss and optimiser keep their own type.

    Attributes:
        precision: "float32": as the weights are. "tf32": operands of products are rounded to 10 bits of mantissa.
            "bfloat16": autocast, operands and results of products are rounded to 7 bits, sums are float32.
        compile: see suite.study.Recipe.
        device: that computes.
    """

    precision: Precision
    compile: Literal["none", "inductor", "cuda_graphs"]
    device: torch.device

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> "Arithmetic":
        """Return a recipe's arithmetic on a device.

        Raises:
            UserError: the device cannot compute so, or there is no compiler.
        """
        _check_compiler(recipe.compile, device)
        precision = precision_of(recipe, device)
        _check_precision(precision, device)
        return cls(precision, recipe.compile, device)

    @property
    def operands(self) -> Operands:
        """Return what operands of products are rounded to."""
        return "full" if self.precision == "float32" else self.precision

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, let products round as they should, and let cuDNN take algorithms that give the same bits again.

        Whatever is to be compiled is: a process that has trained many networks computes as a new one does.
        """
        before = torch.backends.cudnn.deterministic
        torch.backends.cudnn.deterministic = True
        try:
            with (
                tensor_cores(self.operands, self.device),
                nullcontext() if self.compile == "none" else _without_limit(),
            ):
                yield
        finally:
            torch.backends.cudnn.deterministic = before

    def forward(self, model: nn.Module, batch_size: int) -> Forward:
        """Return what maps inputs to logits, of the weights' type.

        Args:
            model: itself is not changed, so that its state dict keeps its names.
            batch_size: of the inputs that are worth compiling for; others, such as the last of an epoch, run as
                written.
        """

        def written(inputs: Tensor) -> Tensor:
            if self.precision != "bfloat16":
                return model(inputs)  # type: ignore[no-any-return]
            with torch.autocast(self.device.type, torch.bfloat16):
                logits: Tensor = model(inputs)
            return logits.float()

        if self.compile == "none":
            return written
        mode = "reduce-overhead" if self.compile == "cuda_graphs" else "default"
        compiled = torch.compile(written, mode=mode, dynamic=False)

        def chosen(inputs: Tensor) -> Tensor:
            if len(inputs) != batch_size:
                return written(inputs)
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return _compiled(compiled, inputs)

        return chosen


def precision_of(recipe: Recipe, device: torch.device) -> Precision:
    """Return in what a recipe trains on a device: what it says, or what its "auto" is there."""
    if recipe.precision != "auto":
        return recipe.precision
    has_bfloat16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if has_bfloat16 else "float32"


def trained_in(recipes: Iterable[Recipe], device: str) -> dict[str, str]:
    """Return what a record's environment says of its trainings: their precision, which no key holds under "auto".

    Several are joined by a comma; without a training there is nothing to say.
    """
    found = sorted({precision_of(recipe, torch.device(device)) for recipe in recipes})
    return {"training_precision": ", ".join(found)} if found else {}


def _without_limit() -> AbstractContextManager[None]:
    """Let every network be compiled; torch runs those beyond the eighth of a process as written, to other bits."""
    limits = {"recompile_limit": _NETWORKS, "accumulated_recompile_limit": _NETWORKS}
    within: AbstractContextManager[None] = torch._dynamo.config.patch({**limits, "fail_on_recompile_limit_hit": True})
    return within


def _compiled(compiled: Forward, inputs: Tensor) -> Tensor:
    dynamo = torch._dynamo.exc
    try:
        return compiled(inputs)
    except (
        dynamo.TorchDynamoException,
        dynamo.FailOnRecompileLimitHit,
        torch._inductor.exc.InductorError,
    ) as error:
        cause = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f'This network cannot be compiled: {cause}. Set training.compile = "none", which every network can.'
        ) from error


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == "tf32" and device.type != "cuda":
        raise UserError(
            f'training.precision = "tf32" needs a CUDA GPU, this is {device.type}. Expected: "auto", "float32" or '
            '"bfloat16".'
        )


def _check_compiler(compile_mode: str, device: torch.device) -> None:
    """Refuse to compile where nothing can: a C++ compiler makes the kernels of CPUs, Triton those of GPUs."""
    if compile_mode == "none":
        return
    if compile_mode == "cuda_graphs" and device.type != "cuda":
        raise UserError(
            f'training.compile = "cuda_graphs" needs a CUDA GPU, this is {device.type}. Expected: "none" or "inductor".'
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f'training.compile = "{compile_mode}" needs a C++ compiler, and there is no {compiler}. Install it, or '
            'set training.compile = "none".'
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            f'training.compile = "{compile_mode}" needs Triton on a GPU. Run pip install triton, or set '
            'training.compile = "none".'
        )
