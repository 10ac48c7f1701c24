from pathlib import Path

import pytest

from launchers._submission import QueuedArray, Submission, SubmissionFolder
from launchers._told import Place, Told

ARRAY = QueuedArray(0, 0, {}, ("12_0", "12_1"), (("a", "b"), ("c", "d")))
PLACE: Place = (Submission("s", "queued", {}, "host", "2026-01-01T00:00:00+00:00", (ARRAY,)), ARRAY, 0)
OTHER: Place = (*PLACE[:2], 1)


@pytest.fixture
def files(tmp_path: Path) -> SubmissionFolder:
    """A submission whose first job began its first cell."""
    found = SubmissionFolder(tmp_path, "s")
    (found.path / "events").mkdir(parents=True)
    found.tell(0, 0, {"event": "started", "cell": "a"})
    return found


def test_what_a_job_began_and_what_stood_behind_it(tmp_path: Path, files: SubmissionFolder) -> None:
    again = {"event": "queued_again", "cell": "b", "cause": "NODE_FAIL", "number": 1, "raised": {}}
    files.tell(0, 0, again)  # by a driver, which begins nothing
    told = Told(tmp_path)
    assert told.of_cell({"b": PLACE}, "b") == [again]
    assert [told.is_begun(PLACE, key) for key in "ab"] == [True, False]
    assert [told.is_behind(PLACE, key) for key in "ab"] == [False, True]


def test_behind_a_job_that_began_nothing_is_nobody(tmp_path: Path, files: SubmissionFolder) -> None:
    told = Told(tmp_path)
    assert [told.is_behind(OTHER, key) for key in "cd"] == [False, False]


def test_each_cell_has_its_own_events_and_files_are_read_once_a_look(tmp_path: Path, files: SubmissionFolder) -> None:
    told, places = Told(tmp_path), {"a": PLACE, "b": PLACE}
    assert told.of_cell(places, "b") == told.of_cell(places, "nowhere") == []
    files.tell(0, 0, {"event": "started", "cell": "b"})
    assert told.of_cell(places, "b") == []
    told.forget()
    assert told.of_cell(places, "b") == [{"event": "started", "cell": "b"}]
    assert told.of_cell(places, "a") == [{"event": "started", "cell": "a"}]
