import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from suite.curvature import memory
from suite.curvature.allocation import live_bytes
from suite.curvature.arithmetic import Execution
from suite.curvature.basis import Placement
from suite.curvature.growing_runs import GrowingRuns
from suite.curvature.lanczos import LanczosRun
from suite.curvature.memory import CPU_BUDGET_BYTES, MemoryPlan, in_units, memory_plan, num_columns, say_plan
from suite.curvature.operators import HessianOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import run_probe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _operator(num_examples: int = 8, width: int = 50) -> HessianOperator:
    model = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, 3))
    return HessianOperator(
        model, ["0.weight", "2.weight"], [(torch.ones(num_examples, 20), torch.zeros(num_examples, dtype=torch.long))]
    )


def _steps(operator: HessianOperator, num_examples: int, *, keep_graphs: bool, size: int | None = None) -> list[int]:
    """Return what is live at each moment of three Lanczos steps, beside their basis."""
    inputs, targets = torch.ones(num_examples, 20), torch.zeros(num_examples, dtype=torch.long)
    size = size or num_examples
    real = operator.over(list(zip(inputs.split(size), targets.split(size), strict=True)), keep_graphs=keep_graphs)
    rows = torch.empty(3, operator.dim)
    return live_bytes(
        lambda: LanczosRun(torch.ones(operator.dim), basis=rows).extend_to(real.matvec, 3), operator.device
    )


@pytest.mark.parametrize("keep_graphs", [False, True])
def test_the_plan_is_what_a_run_takes_to_the_byte(keep_graphs, monkeypatch):
    operator = _operator()
    if not keep_graphs:
        monkeypatch.setattr(memory, "_PRODUCT_SHARE", 0.0)
    plan = memory_plan(operator, 600)
    assert (plan.examples_per_batch, plan.num_kept_examples) == (600, 600 if keep_graphs else 0)
    assert plan.product_bytes == max(_steps(operator, 600, keep_graphs=keep_graphs))


@pytest.mark.parametrize("keep_graphs", [False, True])
def test_several_batches_are_planned_as_well(keep_graphs, monkeypatch):
    operator = _operator()
    monkeypatch.setattr(memory, "MAX_EXAMPLES_PER_BATCH", 64)
    if not keep_graphs:
        monkeypatch.setattr(memory, "_PRODUCT_SHARE", 0.0)
    plan = memory_plan(operator, 64 * 5)
    assert plan.product_bytes == pytest.approx(
        max(_steps(operator, 64 * 5, keep_graphs=keep_graphs, size=64)), rel=0.02
    )


def test_what_is_known_is_not_tried_again(monkeypatch):
    known: memory.Growths = {}
    first = memory_plan(_operator(), 600, known=known)
    monkeypatch.setattr(memory, "live_bytes", lambda *_: pytest.fail("it was tried again"))
    assert memory_plan(_operator(), 600, known=known) == first
    assert memory_plan(_operator(), 300, known=known).product_bytes < first.product_bytes


def test_it_does_not_depend_on_how_many_examples_lie_there():
    assert memory_plan(_operator(8), 1000) == memory_plan(_operator(500), 1000)


def test_parts_are_as_the_shapes_say():
    operator = _operator()
    dim = 20 * 50 + 50 * 3
    plan = memory_plan(operator, 1000, data_bytes=7)
    assert plan.weights_bytes == 4 * (dim + 50 + 3)
    assert plan.basis_bytes == 0
    # per example at least what is saved: tanh and its cotangent; at most a few arrays of that size more
    assert 4 * 2 * 50 <= plan.graph_bytes / 1000 <= 4 * (20 + 8 * 50 + 60)
    assert plan.vectors_bytes >= 4 * 2 * dim  # the start, and the column that is multiplied
    placed = plan.with_basis(plan.placement(10), 10, 3)
    assert placed.basis_bytes == 4 * 16 * dim * 3  # in whole blocks
    assert placed.peak_bytes == plan.peak_bytes + placed.basis_bytes
    assert plan.peak_bytes == plan.weights_bytes + 7 + plan.product_bytes + plan.kernels_bytes


def test_it_says_all_of_it_in_one_line_and_in_units_for_people():
    text = str(memory_plan(_operator(), 1000).with_basis(Placement(CPU, torch.float32), 10, 3))
    assert "at the peak: weights 0.0 MiB, data 0.0 MiB, vectors" in text
    assert "(1000 examples per batch, graphs kept), kernels 16.0 MiB, basis" in text
    assert text.endswith("basis 0.2 MiB (10 steps of 3 runs, float32 in host memory)")
    assert [in_units(2**20 * 310), in_units(3 * 2**29)] == ["310 MiB", "1.5 GiB"]


def test_the_batch_is_the_largest_power_of_two_that_fits():
    operator = _operator()
    free = memory_plan(operator, 10**8)
    assert (free.examples_per_batch, free.num_kept_examples) == (2048, 0)
    fixed = free.weights_bytes
    budget = fixed + 2 * (free.vectors_bytes + int(100 * free.graph_bytes / free.examples_per_batch))
    plan = memory_plan(operator, 10**8, budget_bytes=budget)
    assert plan.examples_per_batch == 64
    assert 2 * plan.product_bytes <= budget - fixed


def test_graphs_are_kept_where_those_of_all_examples_take_half_of_what_is_free():
    operator = _operator()
    plan = memory_plan(operator, 5000)
    assert (plan.num_kept_examples, plan.examples_per_batch) == (5000, 2048)
    enough = plan.weights_bytes + 2 * plan.product_bytes
    assert memory_plan(operator, 5000, budget_bytes=enough).num_kept_examples == 5000
    assert memory_plan(operator, 5000, budget_bytes=enough - 2).num_kept_examples == 0


def test_on_the_cpu_large_data_change_no_batch():
    small, large = (memory_plan(_operator(), 5000, data_bytes=size) for size in (0, 10 * 2**30))
    assert (large.examples_per_batch, large.num_kept_examples) == (small.examples_per_batch, small.num_kept_examples)
    assert large.peak_bytes == 10 * 2**30 + small.peak_bytes


def _on_gpu(plan: MemoryPlan, room_bytes: int) -> MemoryPlan:
    fixed = plan.weights_bytes + plan.data_bytes + plan.product_bytes
    return replace(plan, device=GPU, budget_bytes=fixed + room_bytes)


@pytest.mark.parametrize(
    ("room", "host", "expected"),
    [
        (1.0, 0.0, Placement(GPU, torch.float32)),
        (0.9, 1.0, Placement(CPU, torch.float32)),
        (0.9, 0.0, Placement(GPU, torch.float16)),
    ],
)
def test_a_basis_goes_where_graphs_leave_room(room, host, expected):
    plan = memory_plan(_operator(), 1000)
    needed = 16 * plan.dim * 4  # in whole blocks
    on_gpu = _on_gpu(plan, int(room * needed))
    placement = on_gpu.placement(10, host_bytes=host * needed)
    assert placement == expected
    placed = on_gpu.with_basis(placement, 10)
    assert placed.peak_bytes <= placed.budget_bytes
    assert placed.basis_bytes == (0 if expected.device == CPU else needed * expected.dtype.itemsize // 4)


@pytest.mark.parametrize(("room", "expected"), [(0.5, 1), (1.0, 1), (2.9, 2), (5.0, 5), (1000.0, 6)])
def test_a_block_has_as_many_columns_as_fit_beside_the_product(room, expected):
    operator = _operator()
    operator.plan = plan = _on_gpu(memory_plan(operator, 1000), int(room * 2 * operator.dim * 4))
    assert num_columns(operator, 6) == expected
    assert expected == 1 or 2 * expected * operator.dim * 4 + plan.product_bytes <= plan.budget_bytes


def test_on_the_cpu_a_block_takes_a_constant():
    operator = _operator()
    for plan in (None, memory_plan(operator, 1000)):
        operator.plan = plan
        assert num_columns(operator, 10**9) == CPU_BUDGET_BYTES // (2 * operator.dim * 4)
        assert num_columns(operator, 64) == 64


def test_runs_that_do_not_fit_together_wait_in_host_memory():
    plan = memory_plan(_operator(), 1000)
    placed = _on_gpu(plan, 2 * 16 * plan.dim * 4).with_basis(Placement(GPU, torch.float32), 10, 5)
    assert placed.peak_bytes == placed.budget_bytes
    assert "10 steps of 5 runs, float32 in cuda:0, 3 of them waiting in host memory" in str(placed)


@pytest.mark.parametrize("keeping", [False, True])
def test_fixed_and_growing_runs_place_their_bases_by_the_plan_and_say_so_once(keeping, caplog):
    caplog.set_level(logging.INFO)
    operator, request = _operator(), ProbeRequest(0, 0, "rademacher", 6)
    wanted = run_probe(operator, request).tridiagonal.diagonal
    assert caplog.text == ""  # nobody has planned it
    operator.plan = _on_gpu(memory_plan(operator, 1000), 8)
    runs = GrowingRuns(operator)
    for _ in range(2):
        result = runs.run(request) if keeping else run_probe(operator, request)
    assert (result.tridiagonal.diagonal == wanted).all()
    said = [record.getMessage() for record in caplog.records if record.name == "suite.curvature.memory"]
    assert len(said) == 1
    assert "basis 0.0 MiB (6 steps, float32 in host memory)" in said[0]


def test_a_plan_that_grows_is_said_with_its_size(caplog):
    caplog.set_level(logging.INFO)
    operator = _operator()
    operator.plan = plan = memory_plan(operator, 1000)
    here = Placement(CPU, torch.float32)
    for num_rows in (8, 8, 2000):
        say_plan(operator, here, num_rows)
        assert operator.plan.peak_bytes == plan.with_basis(here, num_rows).peak_bytes
    assert [record.peak_bytes for record in caplog.records] == [
        plan.with_basis(here, num_rows).peak_bytes for num_rows in (8, 2000)
    ]


def test_kept_graphs_give_the_same_bits():
    operator = _operator()
    batches = [(torch.randn(5, 20, generator=torch.Generator().manual_seed(1)), torch.arange(5) % 3)]
    vectors = torch.randn(operator.dim, 2, generator=torch.Generator().manual_seed(2))
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(20, 50), nn.Tanh(), nn.Linear(50, 3))
    names = ["0.weight", "2.weight"]
    plain = HessianOperator(model, names, batches)
    kept = HessianOperator(model, names, batches, execution=Execution(keep_graphs=True))
    for _ in range(2):  # the second time from what the first kept
        assert torch.equal(kept.matmat(vectors), plain.matmat(vectors))
        assert torch.equal(kept.matvec(vectors[:, 0]), plain.matvec(vectors[:, 0]))


def test_what_does_not_fit_is_refused_before_it_starts():
    with pytest.raises(ValueError, match=r"with one example per batch, and the basis.*Expected: a product within"):
        memory_plan(_operator(), 10, budget_bytes=1000)
