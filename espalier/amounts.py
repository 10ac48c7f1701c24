"""Amounts as a person reads them: counts, times, hours and bytes to two or three digits, guesses with their range."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.estimate.work import Guess


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
    """Return the likely hours of GPUs, with their range where there is one."""
    return guessed(seconds, hours).replace("hours", "GPU-hours")


def count(number: float) -> str:
    """Return a count for people: 153, 18.3 k, 1.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size and number >= 10_000:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}" if number >= 10 or number == round(number) else f"{number:.2g}"


def operations(number: float) -> str:
    """Return operations to two digits, such as 4.4e12."""
    return f"{number:.1e}".replace("e+", "e")


def span(seconds: float) -> str:
    """Return a time for people, to two digits: 4.1 s, 12 min, 3.4 h, 250 h."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size or unit == "s":
            value = seconds / size
            return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    raise AssertionError


def hours(seconds: float) -> str:
    """Return hours to two digits, such as 0.085 hours or 130 hours."""
    value = seconds / 3600
    if 0 < value < 0.001:
        return f"{value:.1e} hours"
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 1
    return f"{value:,.{digits}f} hours"


def in_bytes(number: int) -> str:
    """Return bytes for people: 310 MiB, 1.2 GiB."""
    from suite.curvature.memory import in_units

    return in_units(number)
