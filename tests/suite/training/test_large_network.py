"""ResNet-50 for 64 x 64 pixels and 200 classes: a step, evaluations, a mask of 1 %, a product, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NUM_PRUNABLE, NUM_KEEP = 23_864_512, 238_645  # 1 %
MOST_BYTES = 6 << 30
ONE_OF_EACH = """
import json
from pathlib import Path
import torch
from suite.network import model_spec
from suite.networks.loaded import Network
from suite.problem import Problem
from suite.pruning.contract import Search
from suite.pruning.masks import num_kept
from suite.pruning.methods import lomp
from suite.splits import Normalisation, Split
from suite.study import read_study
from suite.training.loop import train

torch.set_num_threads(1)
_, tasks = read_study("quickstart", ["tasks=['resnet50-tinyimagenet']"])
task = tasks["resnet50-tinyimagenet"]
draw = torch.Generator().manual_seed(0)


def split(count):
    pixels = torch.randint(0, 256, (count, 3, 64, 64), generator=draw, dtype=torch.uint8)
    targets = torch.randint(0, 200, (count,), generator=draw)
    return Split(pixels, targets, Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


splits = {"train": split(16), "validation": split(48), "test": split(48)}
targets, sizes = splits["train"].targets, []
spec = model_spec(task.model, task.model_options, (3, 64, 64), 200)
recipe = task.recipe("lomp").model_copy(update={"batch_size": 16, "micro_batch_size": 16, "warmup_epochs": 0})
problem = Problem.of(spec, splits, initialisation=recipe.initialisation, seed=0, device="cpu")
initial = problem.state()
hook = problem.model.register_forward_pre_hook(lambda model, given: sizes.append(len(given[0])))
history = train(problem.model, splits, recipe, 0, stop_step=1)
hook.remove()
num_at_once = max(sizes)
dense = problem.state()
search = Search(problem, NUM_KEEP, 0, recipe, task.training, initial, dense, None, None, lambda *_: None)
ticket = lomp.find_ticket(search, lomp.Options(fine_tune=False))
problem.load(ticket.start)
weights = torch.cat([each.detach().flatten() for each in problem.prunable.values()])
threshold = weights[weights != 0].abs().min()
hessian = Network(problem.model.eval(), splits).hessian("float32")
vector = torch.randn(problem.num_prunable, generator=draw)
product = hessian.matvec(vector)
step = 1e-3 / float(vector.norm())


def gradient(shift):  # by torch alone; the difference of two is the product, but for what is rounded
    problem.load(ticket.start)
    for weight, each in zip(problem.prunable.values(), torch.split(shift * vector, sizes), strict=True):
        weight.data += each.view_as(weight)
    problem.model.zero_grad()
    torch.nn.functional.cross_entropy(problem.model(splits["train"].network_inputs()), targets).backward()
    return torch.cat([weight.grad.flatten() for weight in problem.prunable.values()]).double()


sizes = [weight.numel() for weight in problem.prunable.values()]
difference = (gradient(step) - gradient(-step)) / (2 * step)
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({
    "num_prunable": problem.num_prunable,
    "num_moved": sum(not torch.equal(initial[name], dense[name]) for name in problem.prunable),
    "num_tensors": len(problem.prunable),
    "num_at_once": num_at_once,
    "num_curves": len(history.curves),
    "train_loss": history.curves["train_loss"][0],
    "num_kept": num_kept(ticket.masks),
    "num_nonzero": int(weights.count_nonzero()),
    "num_larger": sum(int((dense[name].abs() > threshold).sum()) for name in problem.prunable),
    "cosine": float(torch.nn.functional.cosine_similarity(product.double(), difference, dim=0)),
    "ratio": float(difference.norm() / product.double().norm()),
    "peak_bytes": 1024 * int(peak),
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the peak of one process")
def test_resnet50_trains_is_pruned_and_multiplied_in_bounded_memory() -> None:
    code = ONE_OF_EACH.replace("NUM_KEEP", str(NUM_KEEP))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    print(f"{found}, peak {found['peak_bytes'] / 2**30:.2f} GiB")
    assert found["num_prunable"] == NUM_PRUNABLE
    assert found["num_moved"] == found["num_tensors"] == 54
    assert found["num_at_once"] == 16  # of 48 that are evaluated
    assert found["num_curves"] == 7
    assert 4 < found["train_loss"] < 8  # ln 200 = 5.3, and what random logits of this start add
    assert found["num_kept"] == found["num_nonzero"] == NUM_KEEP
    assert found["num_larger"] == NUM_KEEP - 1  # the weights that are kept are the largest
    assert found["cosine"] > 0.999
    assert found["ratio"] == pytest.approx(1, abs=0.01)
    assert found["peak_bytes"] < MOST_BYTES
