"""The command line. Each command reads its input, calls a room, and prints."""

import sys
from itertools import pairwise
from typing import Any, NoReturn

import typer

from espalier import catalogue_commands, data_commands, network_commands, progress_commands, study_commands
from espalier.terminal import BAD_INPUT, INTERRUPTED, complain, interrupt_has_arrived, interrupt_on_signals

app = typer.Typer(
    name="espalier",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How sparse can a network get, which pruning method gets there, and at what cost?",
)
for _room in (study_commands, progress_commands, network_commands, catalogue_commands):
    app.registered_commands += _room.app.registered_commands
app.add_typer(data_commands.app, name="data")


def main() -> None:
    """Run the command line; whatever the user can repair ends in one line and exit code 2."""
    interrupt_on_signals()
    try:
        code = app(prog_name="espalier", standalone_mode=False)
        if code == INTERRUPTED:  # where no command had anything to say about it
            complain("interrupted")
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        _end_with_one_line(error)
    finally:
        interrupt_has_arrived()
    sys.exit(code)


def _end_with_one_line(error: Exception) -> NoReturn:
    """Exit with code 2 when the user can repair it; else raise it again, as a defect of ours."""
    # The exceptions of a call that does not parse are those of click, which typer brings under a name of its own.
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
    if hasattr(error, "format_message"):
        line: str | None = _usage_line(error)
    else:
        from suite.errors import bad_input

        line = bad_input(error)
    if line is None:
        raise error
    complain(line)
    sys.exit(BAD_INPUT)


def _usage_line(error: Any) -> str:
    """Return what was given, the rule, and where to look."""
    path = error.ctx.command_path if error.ctx else "espalier"
    names = getattr(getattr(error, "param", None), "opts", [])
    given = next((f" (given: {after})" for word, after in pairwise(sys.argv) if word in names), "")
    rule = f"{error.format_message().rstrip('.')}{given}"
    return f"{rule}{'' if rule.endswith('?') else '.'} See: {path} --help"
