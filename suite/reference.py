"""Functions that a user names as MODULE:FUNCTION, imported with one clear line for whatever is wrong."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suite.errors import UserError, nearest

_EXPECTED = "Expected: MODULE:FUNCTION, for example mynet:build for the function build in mynet.py."


def import_function(reference: str) -> Callable[..., Any]:
    """Import MODULE:FUNCTION, looking first in the working directory.

    Raises:
        UserError: the reference is no MODULE:FUNCTION, the module is missing or does not run, or it has no such
            function; one line with the repair.
    """
    module_name, colon, function_name = reference.partition(":")
    if not (colon and module_name and function_name):
        raise UserError(f"{reference!r} names no function. {_EXPECTED}")
    if module_name.endswith(".py") or "/" in module_name:
        stem = Path(module_name).stem
        raise UserError(
            f"{reference!r} names a file. Did you mean '{stem}:{function_name}', from its folder? {_EXPECTED}"
        )
    module = _imported(module_name, reference)
    function = getattr(module, function_name, None)
    if function is None:
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UserError(
            f"{reference!r}: {module_name} has no {function_name!r}.{nearest(function_name, known)} {_EXPECTED}"
        )
    if not callable(function):
        raise UserError(f"{reference!r} is not a function. Expected: a function that returns a torch.nn.Module.")
    found: Callable[..., Any] = function
    return found


def _imported(name: str, reference: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise UserError(
            f"{reference!r}: {error.filename}, line {error.lineno}: {error.msg}. Mend that line."
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises is the user's to mend
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
            raise UserError(
                f"{reference!r}: there is no module {error.name!r} in the working directory or the environment. "
                f"Run from the folder that holds it. {_EXPECTED}"
            ) from error
        raise UserError(
            f"{reference!r}: importing {name} failed: {type(error).__name__}: {str(error).strip().rstrip('.')}. "
            "Mend the module."
        ) from error
