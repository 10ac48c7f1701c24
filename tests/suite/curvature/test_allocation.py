import pytest
import torch

from suite.curvature.allocation import Growth, Peak, live_bytes

CPU = torch.device("cpu")


def test_tensors_are_counted_while_they_live():
    def computation() -> torch.Tensor:
        first = torch.empty(100)
        second = torch.empty(50)
        del first
        return second

    assert live_bytes(computation, CPU) == [0, 400, 600, 200]


def test_a_backward_pass_is_counted_as_well():
    weight = torch.ones(1000, requires_grad=True)
    live = live_bytes(lambda: torch.autograd.grad((weight * weight).sum(), weight), CPU)
    assert max(live) >= 2 * 4000
    assert live[-1] == 4000


def test_the_peak_of_many_examples_may_be_at_another_moment_than_that_of_few():
    def live(num_examples: int) -> list[int]:
        return [0, 1000, 10 * num_examples, 100 + num_examples]

    growth = Growth.measured(live, 2)
    assert growth.peak(4) == Peak(1000, 0)
    assert growth.peak(500) == Peak(0, 5000)
    assert growth.left_per_example == 1.0


def test_out_of_step_their_peaks_and_ends_are_joined():
    growth = Growth.measured(lambda size: [0] * size + [10 + 5 * size, size], 2)
    assert growth.peak(100) == Peak(10, 500)


def test_a_computation_that_fails_leaves_no_profiler_behind():
    with pytest.raises(ZeroDivisionError):
        live_bytes(lambda: 1 / 0, CPU)
    assert live_bytes(lambda: torch.empty(1), CPU) == [0, 4]
