"""The files of a submission: damaged ones are refused or left out, and a torn line takes no other with it."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers import slurm
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import Submission, SubmissionFolder, submissions
from suite.errors import UserError
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5)
KEY = "0" * 64
STARTED = {"event": "started", "cell": KEY}
ENDED = {"event": "ended", "cell": KEY, "status": "failed", "message": "m", "wall_s": 1.0, "host": "n1", "attempts": 1}
AGAIN = {"event": "queued_again", "cell": KEY, "cause": "TIMEOUT", "number": 1, "raised": {"time_min": [5, 10]}}


@pytest.fixture
def files(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> SubmissionFolder:
    done = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert done is not None
    return SubmissionFolder(study, done.name)


def cut_ids(values: dict[str, Any]) -> None:
    values["arrays"][-1]["ids"].pop()


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "ids are fewer than elements": cut_ids,
    "ids are numbers": lambda values: values["arrays"][0].update(ids=[12]),
    "no time": lambda values: values.update(time_utc="yesterday"),
    "a time in no zone": lambda values: values.update(time_utc="2026-11-26T18:00:00"),
    "a time of another type": lambda values: values.update(time_utc=3),
    "again is a list": lambda values: values.update(again=[]),
    "again without what was raised": lambda values: values.update(again={KEY: {"cause": "TIMEOUT", "number": 1}}),
    "another name": lambda values: values.update(name="other-00000000"),
    "no resources": lambda values: values["arrays"][0].update(resources={}),
    "a missing key": lambda values: values.pop("profile"),
    "an unknown key": lambda values: values.update(new=1),
}
CONTENTS = {
    "text": b'"x"',
    "null": b"null",
    "a list": b"[1]",
    "nothing": b"",
    "bytes": b"\xff\xfe",
    "deep": b"[" * 10**5,
}


@pytest.mark.parametrize("damage", [*CHANGES, *CONTENTS])
def test_a_damaged_submission_is_refused_in_one_line(damage: str, files: SubmissionFolder) -> None:
    path = files.path / "submission.json"
    if damage in CONTENTS:
        path.write_bytes(CONTENTS[damage])
    else:
        values = json.loads(path.read_text())
        CHANGES[damage](values)
        path.write_text(json.dumps(values))
    with pytest.raises(UserError) as caught:
        submissions(files.study)
    line = str(caught.value)
    assert line.startswith(f"{path} is not readable (")
    assert line.endswith(f"or scancel --name {files.name}; then remove {files.path}.")
    assert "\n" not in line


def test_what_is_written_is_read(files: SubmissionFolder) -> None:
    found = files.read()
    again = {"cause": "OUT_OF_MEMORY", "number": 1, "raised": {"memory_gib": [0.5, 1.0]}}
    written = Submission(**{**vars(found), "again": {KEY: again}})
    files.write(written)
    assert files.read() == written


NO_EVENTS = [
    5,
    [1],
    "started",
    None,
    {"cell": KEY},
    {"event": "unheard", "cell": KEY},
    {"event": ["started"], "cell": KEY},
    {**STARTED, "slurmd_nodename": 3},
    {**STARTED, "time_utc": None},
    {"event": "ended", "cell": KEY},
    {**ENDED, "wall_s": "x"},
    {**ENDED, "status": {"a": 1}},
    {**ENDED, "message": [3]},
    {"event": "left", "cell": KEY},
    {"event": "queued_again", "cell": KEY},
    {**AGAIN, "raised": {"time_min": 5}},
]


@pytest.mark.parametrize("event", NO_EVENTS, ids=str)
def test_a_line_that_is_no_event_is_left_out(event: object, files: SubmissionFolder) -> None:
    for each in (STARTED, event, AGAIN, ENDED):
        files.tell(0, 0, each)  # type: ignore[arg-type]
    assert files.told(0, 0) == [STARTED, AGAIN, ENDED]


@pytest.mark.parametrize("torn", [b'{"event": "sta', b"\xff\xfe\n", b"[" * 10**5, b"\n\n"])
def test_a_torn_line_takes_no_other_with_it(torn: bytes, files: SubmissionFolder) -> None:
    files.tell(0, 0, STARTED)
    (path,) = (files.path / "events").iterdir()
    path.write_bytes(path.read_bytes() + torn)
    files.tell(0, 0, ENDED)
    assert files.told(0, 0) == [STARTED, ENDED]


def test_a_job_that_cannot_tell_ends_with_the_line_that_says_so(
    files: SubmissionFolder, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("launchers._submission.os.fsync", full)
    failure = fake.run(files.read().arrays[0].ids[0])
    assert failure.startswith(f"UserError: {files.path} cannot be written: No space left on device. Free space; ")
