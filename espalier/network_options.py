"""What is wrong with options of `limit` and `spectrum`, told with the names that they have on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager

from espalier.terminal import num_processors


def check_positive(option: str, value: float | None, expected: str) -> None:
    """Refuse a tolerance that is no positive, finite number."""
    from suite.errors import UserError

    if value is not None and not 0 < value < float("inf"):
        raise UserError(f"{option} {value} is no tolerance. Expected: {expected}.")


def check_threads(threads: int | None) -> None:
    """Refuse more threads than this process has processors."""
    from suite.errors import UserError

    most = num_processors()
    if threads is not None and threads > most:  # torch ends without a word where the system has no such number
        raise UserError(f"--threads {threads} is more than this process has processors. Expected: 1 to {most}.")


def check_group(workers: int, group_size: int) -> None:
    """Refuse a group that is larger than the number of workers, and name both options."""
    from suite.errors import UserError

    if group_size > workers:
        raise UserError(
            f"--group-size {group_size} does not go with --workers {workers}. "
            f"Expected: --workers {group_size}, or a multiple of it."
        )


@contextmanager
def named_as_given() -> Iterator[None]:
    """Put an option's name where an error begins with that of the argument it became."""
    from suite.errors import UserError

    try:
        yield
    except UserError as error:
        for argument, option in {"num_examples": "--examples", "group_size": "--group-size"}.items():
            if str(error).startswith(f"{argument}="):
                text = str(error).replace(f"{argument}=", f"{option} ").replace(argument, option)
                raise UserError(text) from error
        raise
