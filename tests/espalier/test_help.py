import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from data import available
from espalier import command_line, data_commands
from suite.catalogue import KINDS, catalogue

COMMANDS = [[info.name or info.callback.__name__] for info in command_line.app.registered_commands if info.callback]
COMMANDS += [
    ["data", info.name or info.callback.__name__] for info in data_commands.app.registered_commands if info.callback
]


def named(words: list[str]) -> str:
    return " ".join(words)


@pytest.mark.parametrize("words", COMMANDS, ids=named)
def test_every_command_has_help_with_an_example_that_parses(words: list[str], espalier: Callable[..., Any]) -> None:
    answer = espalier(*words, "--help")
    assert answer.code == 0
    assert not answer.err
    text = " ".join(answer.out.split())
    _, found, example = text.partition("Example: espalier ")
    assert found, answer.out
    arguments = shlex.split(example)
    assert arguments[: len(words)] == words
    command: Any = typer.main.get_command(command_line.app)
    for word in words:
        command = command.commands[word] if hasattr(command, "commands") else command
    command.make_context(named(words), arguments[len(words) :])  # raises if an option does not exist


@pytest.mark.parametrize("command", ["limit", "spectrum"])
def test_the_help_says_when_numbers_are_equal(command: str, espalier: Callable[..., Any]) -> None:
    text = " ".join(espalier(command, "--help").out.split())
    assert "Equal numbers for any number of workers need an equal --threads." in text
    assert "where there are GPUs on one each at most" in text
    assert "Another number of threads changes the last digits" in text


def test_all_commands_are_listed(espalier: Callable[..., Any]) -> None:
    out = espalier("--help").out
    assert {words[0] for words in COMMANDS} <= set(out.split())
    assert "--install-completion" not in out


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_a_call_without_a_command_shows_the_help(arguments: tuple[str, ...], espalier: Callable[..., Any]) -> None:
    answer = espalier(*arguments)
    assert answer.code == 2
    assert "Commands:" in answer.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("runn", "x"), "No such command 'runn'. Did you mean 'run'? See: espalier --help"),
        (("run",), "Missing argument 'study'. See: espalier run --help"),
        (("run", "quickstart", "--nonsense"), "No such option: --nonsense. See: espalier run --help"),
        (("run", "quickstart", "--workers", "0"), "(given: 0). See: espalier run --help"),
        (("data", "lst"), "No such command 'lst'. Did you mean 'list'? See: espalier data --help"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments: tuple[str, ...], line: str, refused: Callable[..., str]) -> None:
    assert refused(*arguments).endswith(line)


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_named_is_listed_with_one_line_each(kind: str, espalier: Callable[..., Any]) -> None:
    answer = espalier(kind)
    assert answer.code == 0
    assert [line.split()[0] for line in answer.out.splitlines()] == list(catalogue(kind))
    descriptions = [
        line.removeprefix(name) for line, name in zip(answer.out.splitlines(), catalogue(kind), strict=True)
    ]
    assert all(text.startswith("  ") and text.strip() for text in descriptions)


def test_data_sets_are_listed_with_their_place(espalier: Callable[..., Any], data_folder: Path) -> None:
    out = espalier("data", "list").out
    assert str(data_folder / "digits.h5") in out
    names = [line.split()[0] for line in out.splitlines() if line[0] != " "]
    assert names == available()
    assert "then: espalier data prepare cifar10 --from cifar-10-binary.tar.gz" in out


@pytest.mark.slow
def test_the_doctor_finds_nothing_missing_here(espalier: Callable[..., Any]) -> None:
    answer = espalier("doctor")
    assert answer.code == 0, answer.out
    assert not answer.err
    assert all(line.split()[0] in ("ok", "optional") for line in answer.out.splitlines())


def test_the_doctor_exits_1_when_something_is_missing(
    espalier: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from launchers import _survey

    monkeypatch.setattr(
        _survey, "survey", lambda: iter([_survey.Finding("disk", "missing", "full", "free at least 1 GiB")])
    )
    answer = espalier("doctor")
    assert (answer.code, answer.out) == (1, "missing  disk              full -> free at least 1 GiB\n")
