import pytest

from tests.performance.interleaved import Result, read_results
from tests.performance.readme import BEGIN, END, README, rendered, replaced

PLACE = {"machine": "2 cores", "threads": 2, "versions": {"torch": "2.13.0"}, "commit": "abc"}


def test_the_readme_shows_the_committed_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert replaced(text, rendered(read_results())) == text, "Run: python -m tests.performance.readme"


def test_a_result_becomes_a_table_with_its_place() -> None:
    block = rendered([Result("n", "Title.", "Text.", ["", "a"], [["x", "1"], ["y", "2"]], PLACE)])
    assert block == (
        f"{BEGIN}\n\n**Title.** Text.\n\n|  | a |\n| --- | --- |\n| x | 1 |\n| y | 2 |\n\n"
        f"Measured on 2 cores, 2 threads, wall time; torch 2.13.0; commit abc.\n\n{END}"
    )


def test_only_the_block_is_exchanged() -> None:
    assert replaced(f"before {BEGIN} old {END} after", f"{BEGIN} new {END}") == f"before {BEGIN} new {END} after"


@pytest.mark.parametrize("text", ["none", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN} {END} {END}"])
def test_a_readme_without_exactly_one_block_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="exactly one block"):
        replaced(text, "")
