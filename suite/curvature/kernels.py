"""Convolution, linear layer and batch normalisation whose second derivatives run on the kernels of the first.

A product with the Hessian differentiates a gradient. For a convolution torch answers that with kernels made for
something else (images as channels, filters as large as images), at about twice the price. But the gradient of a
bilinear map is bilinear in the same three operands, so all its derivatives can be written as forward, input-gradient
and weight-gradient convolutions again, for which fast kernels exist. Measured: tests/performance/results/products.json.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from suite.curvature.attention import attention, multi_head_attention
from suite.curvature.bilinear import Bilinear, Convolve, Multiply, named_padding, per_dim

_SPATIAL_DIMS: dict[Any, int] = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
# Products that stay torch's own: their derivatives are products of the same kind already, or are seldom needed. Their
# operands are rounded where those of the others are.
_OTHER_PRODUCTS: frozenset[Any] = frozenset(
    (
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.bilinear, torch.einsum),
        *(torch.linalg.matmul, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm, Tensor.__rmatmul__),
        *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        *_SPATIAL_DIMS,
    )
)


class Kernels(TorchFunctionMode):
    """While entered, convolutions, linear layers and batch norms in eval mode are computed as described above.

    The projections of nn.MultiheadAttention are among the linear layers. Everything else, and every call that these
    rules do not cover, stays torch's own. Only the forward pass needs to be inside; the backward passes of what was
    computed inside follow.

    A first backward pass with create_graph=True gives weight gradients without values: zeros that carry their graph.
    Products need their derivative alone, and a third of the pass is saved. So this is no way to compute gradients.

    Args:
        operand_dtype: what float32 operands of convolutions, linear layers and matrix products are rounded to, those
            of attention included; all other operations keep the network's type. None: no rounding.
    """

    def __init__(self, operand_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self._operand_dtype = operand_dtype
        self._cotangent_only = False

    @property
    def cotangent_only(self) -> bool:
        """Whether weights and inputs are left out of the backward pass; see for_cotangents."""
        return self._cotangent_only

    @contextmanager
    def for_cotangents(self) -> Iterator[None]:
        """Within, differentiate a first backward pass with respect to its cotangent alone; half the work of both.

        That gives a Jacobian-vector product. What torch.autograd.grad is asked for must be that cotangent.
        """
        self._cotangent_only = True
        try:
            yield
        finally:
            self._cotangent_only = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer one call of torch."""
        named = dict(kwargs or {})
        if func in _SPATIAL_DIMS:
            answer = self._convolution(_SPATIAL_DIMS[func], *args, **named)
        elif func is functional.linear:
            answer = self._linear(*args, **named)
        elif func is functional.batch_norm:
            answer = _batch_norm(*args, **named)
        elif func is functional.multi_head_attention_forward:
            with self:
                return multi_head_attention(*args, **named)
        elif func is functional.scaled_dot_product_attention and self._operand_dtype is not None:
            with self:  # torch's own would round its inputs, but not its probabilities
                answer = attention(*args, **named)
        else:
            answer = None
        return self._by_torch(func, args, named) if answer is None else answer

    def _by_torch(self, func: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        if self._operand_dtype is None or func not in _OTHER_PRODUCTS:
            return func(*args, **named)
        rounded = {name: _rounded(value, self._operand_dtype) for name, value in named.items()}
        outputs = func(*_rounded(args, self._operand_dtype), **rounded)
        return outputs.to(torch.float32) if outputs.dtype == self._operand_dtype else outputs

    def _convolution(
        self,
        num_dims: int,
        input: Tensor,  # noqa: A002  torch's name, which callers may write
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Tensor | None:
        stride, dilation = per_dim(stride, num_dims), per_dim(dilation, num_dims)
        if isinstance(padding, str):
            zeros = named_padding(padding, stride, dilation, weight)
        else:
            zeros = per_dim(padding, num_dims)
        if zeros is None or input.ndim != num_dims + 2:
            return None
        return self._bilinear(Convolve(stride, zeros, dilation, groups), input, weight, bias)

    def _linear(
        self,
        input: Tensor,  # noqa: A002  torch's name, which callers may write
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        return self._bilinear(Multiply(), input, weight, bias)

    def _bilinear(self, maps: Bilinear, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        operands = inputs, weight, bias
        if self._operand_dtype is not None:
            operands = _rounded(operands, self._operand_dtype)
        varying = operands[2] if bias is not None and bias.requires_grad else None
        fixed = operands[2] if varying is None else None
        # Nobody reads the value of a leaf's gradient here; that of a computed weight is an operand further on.
        outputs: Tensor = _applied(_Output, *operands[:2], fixed, maps, self, weight.is_leaf)
        if varying is not None:
            outputs = outputs + maps.along_outputs(varying)
        return outputs.to(inputs.dtype)


class _Output(Function):
    """(inputs, weight) -> outputs; its two derivatives are the other two bilinear maps."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, maps: Bilinear, kernels: Kernels, valueless: bool
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.maps, ctx.kernels, ctx.valueless = maps, kernels, valueless
        return maps.to_outputs(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, outputs: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        to_inputs = to_weight = None
        if not torch.is_grad_enabled():  # the last pass: nothing of it is differentiated again
            to_inputs = ctx.maps.to_inputs(outputs, weight, inputs) if ctx.needs_input_grad[0] else None
            to_weight = ctx.maps.to_weight(inputs, outputs, weight) if ctx.needs_input_grad[1] else None
            return to_inputs, to_weight, None, None, None, None
        if ctx.needs_input_grad[0]:
            to_inputs = _applied(_InputGradient, outputs, weight, inputs.detach(), ctx.maps, ctx.kernels)
        if ctx.needs_input_grad[1]:
            like = weight.detach()
            to_weight = _applied(_WeightGradient, inputs, outputs, like, ctx.maps, ctx.kernels, ctx.valueless)
        return to_inputs, to_weight, None, None, None, None


class _InputGradient(Function):
    """(cotangent of outputs, weight) -> cotangent of inputs."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weight: Tensor, like: Tensor, maps: Bilinear, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(outputs, weight)
        ctx.maps, ctx.kernels = maps, kernels
        return maps.to_inputs(outputs, weight, like)

    @staticmethod
    def backward(ctx: Any, inputs: Tensor) -> Any:
        outputs, weight = ctx.saved_tensors
        to_weight = None
        if ctx.needs_input_grad[1] and not ctx.kernels.cotangent_only:
            to_weight = ctx.maps.to_weight(inputs, outputs, weight)
        return ctx.maps.to_outputs(inputs, weight), to_weight, None, None, None


class _WeightGradient(Function):
    """(inputs, cotangent of outputs) -> cotangent of the weight, or zeros in its place where nobody reads it."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, outputs: Tensor, like: Tensor, maps: Bilinear, kernels: Kernels, valueless: bool
    ) -> Tensor:
        ctx.save_for_backward(inputs, outputs)
        ctx.maps, ctx.kernels = maps, kernels
        return like.new_zeros(()).expand(like.shape) if valueless else maps.to_weight(inputs, outputs, like)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Any:
        inputs, outputs = ctx.saved_tensors
        if weight.ndim == 4 and not inputs.is_contiguous():
            weight = weight.contiguous(memory_format=torch.channels_last)  # else every kernel converts its operands
        to_inputs = None
        if ctx.needs_input_grad[0] and not ctx.kernels.cotangent_only:
            to_inputs = ctx.maps.to_inputs(outputs, weight, inputs)
        return to_inputs, ctx.maps.to_outputs(inputs, weight), None, None, None, None


def _applied(function: type[Function], *arguments: Any) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


def _batch_norm(
    input: Tensor,  # noqa: A002  torch's name, which callers may write
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Write normalisation by running statistics as what it is: one scale and one shift per channel."""
    del momentum
    if training or running_mean is None or running_var is None:
        return None
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    per_channel = (1, -1, *(1,) * (input.ndim - 2))
    return torch.addcmul(shift.view(per_channel), input, scale.view(per_channel))


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    """Round what is, or holds, a float32 tensor."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype == torch.float32 else value
    if isinstance(value, tuple | list):
        return type(value)(_rounded(item, dtype) for item in value)
    return value
