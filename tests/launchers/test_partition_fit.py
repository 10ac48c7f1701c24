"""Jobs that Slurm would take and never run are refused before the first sbatch, with what is there."""

from pathlib import Path

import pytest

from launchers import slurm
from launchers._partition_fit import AMOUNTS, lack
from launchers._profile import Profile, Resources
from launchers._refusals import Refused
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_facts import Partition
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm

PARTITIONS = "batch*|up|1:00:00|OFF|2|2|6000|gpu:2\nlong|up|infinite|OFF|1|64|500000|(null)\n"


@pytest.fixture
def sites(fake: FakeSlurm) -> FakeSlurm:
    (fake.root / "partitions").write_text(PARTITIONS)
    return fake


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"time_min": 90},
            "time limit: 90 asked, the default has 60 min. Change the profile: time_min = 60, or partition = long.",
        ),
        (
            {"cpus": 16, "partition": "batch"},
            "processors: 16 asked, batch has 2 on a node. Change the profile: cpus = 2, or partition = long.",
        ),
        (
            {"gpus": 1, "partition": "long"},
            "GPUs: 1 asked, long has 0 on a node. Change the profile: gpus = 0, or partition = batch.",
        ),
        (
            {"memory_gib": 600.0},
            "memory: 600 asked, the default has 5.85 GiB on a node. Change the profile: memory_gib = 5.85.",
        ),
        (
            {"cpus": 65, "partition": "batch,long"},
            "processors: 65 asked, batch,long has 64 on a node. Change the profile: cpus = 64.",
        ),
        ({"nodes": 3}, "nodes: 3 asked, the default has 2. Change the profile: nodes = 2."),
    ],
)
def test_what_no_node_has_is_refused_before_the_first_sbatch(
    asked: dict[str, object], line: str, tiny_plan: Plan, sites: FakeSlurm, study: Path
) -> None:
    with pytest.raises(Refused) as caught:
        slurm.submit(tiny_plan, study, Profile(**{"time_min": 5, **asked}), SlurmCluster())
    assert str(caught.value) == line
    assert sites.calls()["sbatch"] == 0
    assert sites.calls()["sinfo"] == 1
    assert not (study / "slurm").exists()


def test_one_kind_of_cell_that_asks_for_too_much_is_enough(tiny_plan: Plan, sites: FakeSlurm, study: Path) -> None:
    kind = tiny_plan.cells[-1].id.kind
    with pytest.raises(Refused, match=r"^processors: 16 asked"):
        slurm.submit(tiny_plan, study, Profile(time_min=5, kinds={kind: {"cpus": 16}}), SlurmCluster())
    assert not sites.jobs


def test_a_qos_may_allow_more_time_than_the_partition(tiny_plan: Plan, sites: FakeSlurm, study: Path) -> None:
    assert slurm.submit(tiny_plan, study, Profile(time_min=90, qos="normal"), SlurmCluster()) is not None
    assert sites.jobs


@pytest.mark.parametrize("said", ["Unable to contact slurm controller", ""])
def test_what_slurm_does_not_tell_refuses_nothing(said: str, tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    if said:
        fake.fails("sinfo", said)
    else:
        (fake.root / "partitions").write_text("")
    assert slurm.submit(tiny_plan, study, Profile(time_min=90, cpus=16), SlurmCluster()) is not None


def test_a_partition_without_limit_lacks_nothing() -> None:
    known = {"long": Partition("long", True, "up", None, "OFF", 1, 64, 488.3, 0)}
    asked = Resources(time_min=100_000, gpus=0, cpus=64, memory_gib=488.3, nodes=1)
    assert [lack(asked, known, amount) for amount in AMOUNTS] == [None] * 5


def test_of_several_partitions_any_one_may_have_enough(tiny_plan: Plan, sites: FakeSlurm, study: Path) -> None:
    profile = Profile(time_min=90, cpus=16, partition="batch,long")
    assert slurm.submit(tiny_plan, study, profile, SlurmCluster()) is not None
    assert {job["flags"]["partition"] for job in sites.jobs.values()} == {"batch,long"}
