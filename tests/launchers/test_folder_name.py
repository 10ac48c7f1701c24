from pathlib import Path

import pytest

from launchers._folder_name import check_folder_name, folder_name_trouble
from suite.errors import UserError


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a%jb", "a\\b", "a\x7fb", "a\x9bb", "a\u2028b", "a\udcffb"])
def test_a_name_that_would_mean_something_else_in_a_script_is_refused_in_one_printable_line(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_folder_name(Path("/shared") / name / "study")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a b", "ä", "a'b", 'a"b', "a$(b)", "a;b", "#a"])
def test_names_that_are_quoted_are_no_trouble(name: str) -> None:
    assert folder_name_trouble(Path("/shared") / name) == ""
