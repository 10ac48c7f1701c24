from pathlib import Path

import pytest

from launchers import slurm
from launchers._profile import Profile
from launchers._refusals import Refused
from launchers._slurm_cluster import SlurmCluster
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm


def limited(fake: FakeSlurm, number: int) -> None:
    """Let the user have that many jobs at a time."""
    (fake.root / "configuration").write_text("AccountingStorageEnforce = associations,limits\n")
    (fake.root / "associations").write_text(f"lab||lab||{number}|\n")


def test_a_plan_of_too_many_jobs_is_refused_before_its_first_sbatch(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    limited(fake, 3)  # two cells of the first wave, three of the second
    with pytest.raises(Refused) as caught:
        slurm.submit(tiny_plan, study, Profile(time_min=5), SlurmCluster())
    assert str(caught.value) == (
        "5 jobs are too many: account lab allows 3 in the queue at a time, and 0 are there. "
        "Pack more cells in a job: cells_per_job = 2 in the profile."
    )
    assert fake.calls() == {"scontrol": 1, "sinfo": 1, "sacctmgr": 2, "squeue": 1}
    assert not (study / "slurm").exists()
    slurm.submit(tiny_plan, study, Profile(time_min=5, cells_per_job=2), SlurmCluster())
    assert len(fake.jobs) == 3


def test_jobs_that_are_there_already_count(tiny_plan: Plan, fake: FakeSlurm, study: Path, tmp_path: Path) -> None:
    limited(fake, 5)
    slurm.submit(tiny_plan, study, Profile(time_min=5), SlurmCluster())
    other = tmp_path / "other"
    (other / "cells").mkdir(parents=True)
    with pytest.raises(Refused, match=r"5 are there\. .*cells_per_job = 1 in the profile and wait until the others"):
        slurm.submit(tiny_plan, other, Profile(time_min=5), SlurmCluster())


def test_a_limit_below_the_number_of_waves_cannot_be_met(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    limited(fake, 1)
    with pytest.raises(Refused, match=r"at least 2 jobs\. Ask for a higher limit"):
        slurm.submit(tiny_plan, study, Profile(time_min=5), SlurmCluster())


def test_a_silent_accounting_refuses_nothing(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    limited(fake, 1)
    fake.fails("sacctmgr", "Problem talking to the database")
    assert slurm.submit(tiny_plan, study, Profile(time_min=5), SlurmCluster()) is not None
