"""Attention in parts, so that its matrix products are seen one by one by a mode that overrides torch's functions."""

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _seen_within(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a Python function of torch without its question who overrides it.

    A mode is asked about the whole and is switched off until it has answered. Entered again, the original would ask
    again, for ever; the copy runs its body, and the mode sees every call that the body makes.
    """
    assert isinstance(function, FunctionType)
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    code, defaults, closure = function.__code__, function.__defaults__, function.__closure__
    copy = FunctionType(code, names, function.__name__, defaults, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


multi_head_attention = _seen_within(functional.multi_head_attention_forward)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Return softmax(scale QK' + mask) V by torch's own conventions, in plain products; None: not by these.

    Args:
        query: shape (..., q, e).
        key: shape (..., k, e).
        value: shape (..., k, v).
        attn_mask: shape (..., q, k): added to the scores, or true where a key takes part.
        dropout_p: not covered but for 0.
        is_causal: a query sees no key behind its own place.
        scale: None: 1 / sqrt(e).
        enable_gqa: not covered: fewer heads of keys than of queries.

    Cost: memory of all (..., q, k) scores.
    """
    if dropout_p or enable_gqa:
        return None
    scores = torch.matmul(query, key.transpose(-2, -1))
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(dim=-1), value)
