"""Amounts as a person reads them: counts, times, hours and bytes to two or three digits, guesses with their range."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.estimate.work import Guess

_FEW_S = 36.0  # a hundredth of an hour: less is written in seconds
_LEAST_S = 0.001  # less says nothing to anybody


def likely(guess: "Guess", text: Callable[[float], str]) -> str:
    """Return the likely value, marked where it is a guess; a dash for nothing."""
    if guess.high == 0:
        return "-"
    return "~" * (guess.low < guess.high) + text(guess.likely)


def ends(guess: "Guess", text: Callable[[float], str]) -> str:
    """Return the range of a guess, its unit once where both ends have the same; nothing where there is no range."""
    low, high = text(guess.low), text(guess.high)
    if low == high:
        return ""
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {unit}')}-{high}"


def guessed(guess: "Guess", text: Callable[[float], str]) -> str:
    """Return the likely value, with its range where there is one."""
    between = ends(guess, text)
    return likely(guess, text) + (f" ({between})" if between else "")


def gpu_hours(seconds: "Guess") -> str:
    """Return the likely hours of GPUs, or seconds, with their range where there is one."""
    return guessed(seconds, hours).replace("hours", "GPU-hours").replace("seconds", "GPU-seconds")


def count(number: float) -> str:
    """Return a count for people: 153, 18.3 k, 1.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size and number >= 10_000:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}" if number >= 10 or number == round(number) else f"{number:.2g}"


def operations(number: float) -> str:
    """Return operations to two digits, such as 4.4e12."""
    return f"{number:.1e}".replace("e+", "e")


def hours(seconds: float) -> str:
    """Return hours to two digits, such as 0.085 hours or 130 hours; below a hundredth of one, such as 0.21 seconds."""
    value, unit = (seconds / 3600, "hours") if seconds >= _FEW_S else (seconds, "seconds")
    if 0 < value < _LEAST_S:
        return f"less than {_LEAST_S} seconds"
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 1
    return f"{value:,.{digits}f} {unit}"


def in_bytes(number: int) -> str:
    """Return bytes for people: 310 MiB, 1.2 GiB."""
    from suite.curvature.memory import in_units

    return in_units(number)
