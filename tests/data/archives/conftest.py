"""What a refusal of an archive is."""

from collections.abc import Callable
from pathlib import Path

import pytest

import data
from data.hdf5 import FileRefused

Refused = Callable[[str, Path], str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Prepare from an archive that must be refused in one line, with nothing left; return what was said of it."""

    def call(name: str, source: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FileRefused) as caught:
            data.prepare(name, source, tmp_path / "out.h5", tell=lambda *_: None, allow_other=True)
        line = str(caught.value)
        assert line.isprintable()
        assert line.startswith(str(source))
        assert sorted(tmp_path.rglob("*")) == before
        return line.removeprefix(str(source)).strip()

    return call
