from collections.abc import Callable
from typing import Any

from launchers._profile import FOLDER


def test_all_profiles_are_listed_with_their_line(espalier: Callable[..., Any]) -> None:
    answer = espalier("profiles")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert all(len(line.split()) > 1 for line in answer.out.splitlines())
