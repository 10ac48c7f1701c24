"""FileRefused: the one error for a file that cannot be trusted, with a message of one line."""

import os


class FileRefused(ValueError):
    """A file is missing, damaged, hostile or not what the caller asked for.

    The message is one line: path, what is wrong, the rule, the repair. It holds one string only, so that the error
    survives pickling on its way back from a worker process.
    """


def refusal(path: str | os.PathLike[str], wrong: str, expected: str, repair: str = "") -> FileRefused:
    """Return (not raise) a FileRefused with its message in the house order.

    Args:
        path: the file that is refused.
        wrong: continues the path: "is empty", "/train holds no inputs".
        expected: the rule, as a noun phrase.
        repair: one sentence, or nothing when the rule says it all.
    """
    message = f"{os.fspath(path)} {wrong}. Expected: {expected}. {repair}"
    return FileRefused(printable(message.strip()))


def printable(text: str) -> str:
    """Escape what a terminal would obey: names inside a file are chosen by whoever wrote it."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
