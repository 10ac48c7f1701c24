"""Products through torch.compile, beside ours: does it work, how long does it compile, how fast is it then.

Run by bench_execution, one process per way and network: what fails leaves the tracer in a state in which all else
fails too, and the cache of an earlier run would hide the time to compile. By hand:
python -m tests.performance.compiled resnet20 32 gradient
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn import functional

from suite.curvature.operators import GaussNewtonOperator, HessianOperator, flatten_weights, unflatten_weights
from tests.performance.contenders import Workload, disagreement, workload
from tests.performance.interleaved import CLOCKS, interleaved

Named = Mapping[str, Tensor]
OURS, COMPILED = "espalier", "compiled"
ROUNDED = 2e-2  # of a float32 product: activations near a ReLU's kink may flip
HESSIAN_WAYS = ("forward", "forward over reverse", "reverse over reverse")
WAYS = (*HESSIAN_WAYS, "gauss_newton")


class _FixedNorm(nn.Module):
    """Batch normalisation in eval mode as one scale and one shift: the tracer has no forward-mode rule for torch's."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        scale = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", (norm.bias.detach() - norm.running_mean * scale).view(1, -1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.addcmul(self.shift, inputs, self.scale)


class Pure:
    """A workload as functions of its weights alone, as torch.func takes them."""

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._model = _without_norms(copy.deepcopy(work.model))
        self.weights = {name: weight.detach().clone() for name, weight in work.weights.items()}
        state = (*self._model.named_parameters(), *self._model.named_buffers())
        self._fixed = {name: value.detach() for name, value in state if name not in self.weights}

    def logits(self, weights: Named) -> Tensor:
        """Return the logits of all examples."""
        logits: Tensor = functional_call(self._model, {**self._fixed, **weights}, (self._work.inputs,))
        return logits

    def loss(self, weights: Named) -> Tensor:
        """Return the mean loss."""
        return functional.cross_entropy(self.logits(weights), self._work.targets)

    def forward_over_reverse(self, weights: Named, vector: Named) -> Named:
        """Return Hv as the derivative of the gradient along v."""
        return jvp(grad(self.loss), (weights,), (vector,))[1]

    def reverse_over_reverse(self, weights: Named, vector: Named) -> Named:
        """Return Hv as the gradient of g'v."""

        def along(weights: Named) -> Tensor:
            gradient = grad(self.loss)(weights)
            return torch.stack([(gradient[name] * vector[name]).sum() for name in vector]).sum()

        return grad(along)(weights)

    def gauss_newton(self, weights: Named, vector: Named) -> Named:
        """Return J'(diag p - pp')Jv."""
        logits, tangent = jvp(self.logits, (weights,), (vector,))
        probabilities = logits.softmax(dim=1)
        weighted = probabilities * tangent
        curved = weighted - probabilities * weighted.sum(dim=1, keepdim=True)
        _, pull_back = vjp(self.logits, weights)
        return pull_back(curved / len(logits))[0]


def product(work: Workload, way: str) -> Callable[[Tensor], Tensor]:
    """Return v -> Hv, or the Gauss-Newton matrix times v, compiled when it is first called."""
    pure = Pure(work)
    shapes = [weight.shape for weight in pure.weights.values()]
    if way == "forward":
        return partial(_double_backward, torch.compile(pure.loss), pure.weights)
    ways = {
        "forward over reverse": pure.forward_over_reverse,
        "reverse over reverse": pure.reverse_over_reverse,
        "gauss_newton": pure.gauss_newton,
    }
    compiled = torch.compile(ways[way], fullgraph=True)

    def multiply(vector: Tensor) -> Tensor:
        parts = dict(zip(pure.weights, unflatten_weights(vector, shapes), strict=True))
        found = compiled(pure.weights, parts)
        return flatten_weights([found[name] for name in parts])

    return multiply


def _double_backward(loss: Callable[[Named], Tensor], weights: Named, vector: Tensor) -> Tensor:
    varying = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    gradient = torch.autograd.grad(loss(varying), list(varying.values()), create_graph=True)
    parts = unflatten_weights(vector, [weight.shape for weight in varying.values()])
    return flatten_weights(torch.autograd.grad(gradient, list(varying.values()), grad_outputs=parts))


def _without_norms(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _FixedNorm(child) if isinstance(child, nn.BatchNorm2d) else _without_norms(child))
    return module


def measure(name: str, num_examples: int, way: str, num_rounds: int, clock: str) -> dict[str, Any]:
    """Return compile_s and seconds by contender, or the error."""
    work = workload(name, num_examples)
    kind = GaussNewtonOperator if way == "gauss_newton" else HessianOperator
    operator = kind(work.model, list(work.weights), [(work.inputs, work.targets)])
    vector = torch.randn(operator.dim, generator=torch.Generator().manual_seed(1))
    exact, compiled = operator.matvec(vector), product(work, way)
    begin_s = time.perf_counter()
    try:
        found = compiled(vector)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    compile_s = time.perf_counter() - begin_s
    error = disagreement(found, exact)
    if not error < ROUNDED:
        return {"error": f"differs from {OURS} by {error:.1e}"}
    timed = {OURS: partial(operator.matvec, vector), COMPILED: partial(compiled, vector)}
    return {"compile_s": compile_s, "seconds": interleaved(timed, num_rounds, clock=CLOCKS[clock])}


def main(arguments: list[str] | None = None) -> None:
    """Measure one way and print it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("examples", type=int)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    print(json.dumps(measure(chosen.name, chosen.examples, chosen.way, chosen.rounds, chosen.clock)))


if __name__ == "__main__":
    main()
