import json

import pytest

from launchers._slurm_facts import (
    Allowance,
    allowance,
    configuration,
    minutes,
    num_queued,
    partition_called,
    partitions,
)
from tests.launchers.fake_slurm import FakeSlurm

LIMITS = {"AccountingStorageEnforce": "associations,limits", "ClusterName": "fake"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("infinite", None),
        ("n/a", None),
        ("30", 30),
        ("30:00", 30),
        ("1:00:30", 60),
        ("1-00:00:00", 1440),
        ("2-03:04:05", 3064),
        ("7-12", 10800),
    ],
)
def test_slurm_s_times_in_minutes(text: str, expected: int | None) -> None:
    assert minutes(text) == expected


def test_a_partition_of_unlike_nodes_has_the_most_that_one_of_them_has(fake: FakeSlurm) -> None:
    (fake.root / "partitions").write_text(
        "cpu*|up|infinite|OFF|10|64|256000|(null)\n"
        "gpu|up|2-00:00:00|REQUEUE|3|32|128000|gpu:a100:4(S:0-1),shard:8\n"
        "gpu|up|2-00:00:00|REQUEUE|2|48|512000+|gpu:2\n"
        "broken line\n"
    )
    found = partitions()
    assert set(found) == {"cpu", "gpu"}
    assert found["cpu"].is_default
    assert (found["cpu"].time_limit_min, found["cpu"].gpus) == (None, 0)
    gpu = found["gpu"]
    assert (gpu.num_nodes, gpu.cpus, gpu.memory_gib, gpu.gpus) == (5, 48, 500, 4)
    assert (gpu.time_limit_min, gpu.preempt_mode) == (2880, "REQUEUE")
    assert partition_called(None, found) == found["cpu"]
    assert partition_called("gpus", found) is None


def test_the_configuration_is_read_by_one_call(fake: FakeSlurm) -> None:
    assert configuration()["ClusterName"] == "fake"
    assert fake.calls() == {"scontrol": 1}


def test_nobody_is_asked_where_limits_do_not_count(fake: FakeSlurm) -> None:
    for enforced in ("none", "associations,qos", ""):
        assert allowance({"AccountingStorageEnforce": enforced}, None, None, None) == Allowance()
    assert not fake.calls()


@pytest.mark.parametrize(
    ("associations", "qos", "asked", "expected"),
    [
        ("lab|fake|lab||100|", "normal|", (None, None, None), (100, "account lab")),
        ("lab|fake|lab|||", "normal|", (None, None, None), (None, "")),
        ("lab|fake|lab||100|", "normal|20", (None, None, None), (20, "qos normal")),  # the qos goes first
        ("lab|fake|lab||100|\nlab|fake|other||7|", "normal|", ("other", None, None), (7, "account other")),
        ("lab|fake|lab||100|\nlab|far|lab||7|", "normal|", (None, None, None), (100, "account lab")),
        ("lab|fake|lab||100|\nlab|fake|lab|gpu|7|", "normal|", (None, None, "gpu"), (7, "account lab")),
        ("lab|fake|lab||100|\nlab|fake|lab|gpu|7|", "normal|", (None, None, None), (100, "account lab")),
        ("lab|fake|lab||100|long", "long|3", (None, None, None), (3, "qos long")),
    ],
)
def test_the_limit_that_counts(
    associations: str,
    qos: str,
    asked: tuple[str | None, str | None, str | None],
    expected: tuple[int | None, str],
    fake: FakeSlurm,
) -> None:
    (fake.root / "associations").write_text(associations)
    (fake.root / "qos").write_text(qos)
    found = allowance(LIMITS, *asked)
    assert (found.limit, found.source) == expected
    assert fake.calls() == {"sacctmgr": 2}


def test_jobs_count_against_the_limit_of_their_account(fake: FakeSlurm) -> None:
    flags = [{"account": "lab"}, {"account": "other"}, {"account": "lab", "qos": "long"}]
    jobs = {str(number): {"name": "x", "state": "PENDING", "flags": each} for number, each in enumerate(flags)}
    (fake.root / "jobs.json").write_text(json.dumps(jobs))
    assert num_queued(Allowance(9, "", account="lab")) == 2
    assert num_queued(Allowance(9, "", qos="long")) == 1
    assert num_queued(Allowance(9, "")) == 3
