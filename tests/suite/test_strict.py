from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from suite.errors import UserError
from suite.strict import Settings, read_toml, validated


class Inner(Settings):
    width: int = Field(1, ge=1)


class Outer(Settings):
    name: str
    inner: Inner = Inner()
    rate: float = 0.5


def refused(**values: object) -> str:
    with pytest.raises(UserError) as caught:
        validated(Outer, values, "file.toml")
    return str(caught.value)


def test_good_values_are_read_with_their_defaults() -> None:
    assert validated(Outer, {"name": "x", "inner": {"width": 3}}, "") == Outer(name="x", inner=Inner(width=3))


def test_a_value_is_never_converted() -> None:
    assert refused(name=3) == "file.toml: name = 3: Input should be a valid string."
    assert refused(name="x", inner={"width": "3"}).startswith("file.toml: inner.width = '3': ")
    assert refused(name="x", inner={"width": True}).startswith("file.toml: inner.width = True: ")


def test_a_whole_number_is_a_number() -> None:
    assert validated(Outer, {"name": "x", "rate": 2}, "").rate == 2.0


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_numbers_are_finite(rate: float) -> None:
    assert refused(name="x", rate=rate) == f"file.toml: rate = {rate}: Input should be a finite number."


def test_an_unknown_key_names_the_keys_of_its_own_table() -> None:
    message = refused(name="x", inner={"widht": 3})
    assert message == "file.toml: unknown key 'inner.widht'. Did you mean 'width'? Known: width."


def test_the_first_violation_is_shown_and_the_others_counted() -> None:
    message = refused(name=3, rate="fast", inner={"width": 0})
    assert message == "file.toml: name = 3: Input should be a valid string. (2 more after this one.)"


class Listed(Settings):
    first: str
    second: str
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)


def test_all_missing_keys_are_named_and_what_follows_from_an_element_is_not_counted() -> None:
    def line(**values: object) -> str:
        with pytest.raises(UserError) as caught:
            validated(Listed, values, "file.toml")
        return str(caught.value)

    assert line(first="x", second="y", seeds=[-1]) == (
        "file.toml: seeds.0 = -1: Input should be greater than or equal to 0."
    )
    assert line(first="x") == "file.toml: the key 'second' is missing. Add it."
    assert line(seeds=[-1, -2]) == (
        "file.toml: the keys 'first' and 'second' are missing. Add them. (2 more after this one.)"
    )


def test_a_violation_by_set_says_so() -> None:
    for keys, by_set in (([["inner", "width"]], True), ([["inner"]], True), ([["rate"], ["inner", "x"]], False)):
        with pytest.raises(UserError) as caught:
            validated(Outer, {"name": "x", "inner": {"width": 0}}, "file.toml", keys)
        assert str(caught.value).startswith("--set on file.toml: inner.width = 0" if by_set else "file.toml: inner.w")


def test_a_value_is_shown_as_it_was_written() -> None:
    assert "name = ['..', 'a?.b']" in refused(name=["..", "a?.b"])


def test_a_value_that_no_setting_knows() -> None:
    message = refused(name={1, 2})
    assert message == (
        "file.toml: Object of type set is not JSON serializable. Expected: text, numbers, booleans, lists and tables."
    )


def test_toml_errors_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\nseeds = [0,, 1]\n')
    with pytest.raises(UserError, match=r"study\.toml is not valid TOML: .*line 2, column 12.*\. Mend that line\.$"):
        read_toml(path)


def test_what_is_no_text_file(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"study\.toml is not a text file\. Expected: TOML in UTF-8\."):
        read_toml(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml cannot be read: No such file or directory\. Give the path"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory\. Give the path of a readable \.toml file\."):
        read_toml(tmp_path)
