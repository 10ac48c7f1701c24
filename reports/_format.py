"""Numbers as people read them. Fractions become percent here and nowhere earlier."""

import math

from reports._statistics import DIFFERENCE, FRACTION

MISSING = "–"
NOT_REACHED = "not reached"
_SI_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def sparsity_text(sparsity: float) -> str:
    """0.95 -> "95%"; as many digits as the fraction has, so that nothing below 1 is rounded to 100%."""
    if math.isnan(sparsity):
        return MISSING
    text = f"{100.0 * sparsity:.6g}"
    return f"{text}%" if text != "100" or sparsity == 1.0 else f"{100.0 * sparsity:.12g}%"


def percent_text(fraction: float, half_width: float = math.nan, bounds: tuple[float, float] = DIFFERENCE) -> str:
    """0.975, 0.0031 -> "97.50 ± 0.31"; the unit stands in the heading of the column.

    An interval that passes the bounds is cut there and written by its ends: "97.50 [95.10, 100.00]".
    """
    if math.isnan(fraction):
        return MISSING
    mean = _two_digits(fraction)
    if math.isnan(half_width):
        return mean
    ends = (fraction - half_width, fraction + half_width)
    if round(ends[0], 4) >= bounds[0] and round(ends[1], 4) <= bounds[1]:  # as far as it is printed
        return f"{mean} ± {100.0 * half_width:.2f}"
    return f"{mean} [{', '.join(_two_digits(min(max(end, bounds[0]), bounds[1])) for end in ends)}]"


def fraction_text(fraction: float, half_width: float = math.nan) -> str:
    """0.975, 0.031 -> "97.50 [94.40, 100.00]": of an accuracy or a sparsity, which is never outside 0 to 100."""
    return percent_text(fraction, half_width, FRACTION)


def difference_text(fraction: float, half_width: float = math.nan) -> str:
    """0.0031 -> "+0.31" in points of percent: a difference always shows its sign."""
    text = percent_text(fraction, half_width)
    return f"+{text}" if fraction > 0 and not text.startswith("0.00") else text


def limit_text(sparsity: float, half_width: float, num_not_reached: int, num_seeds: int) -> str:
    """A sparsity limit in percent; "not reached" where the tolerance held at every sparsity there is.

    Args:
        sparsity: mean over seeds, fraction; a seed whose limit was not reached counts with the largest one tried.
        half_width: of its interval, NaN for none.
        num_not_reached: of the seeds.
        num_seeds: that have a value.
    """
    if math.isnan(sparsity) or not num_not_reached:
        return fraction_text(sparsity, half_width)
    if num_not_reached < num_seeds:
        return f"{fraction_text(sparsity)} ({num_not_reached} of {num_seeds} {NOT_REACHED})"
    return NOT_REACHED if sparsity >= 1.0 else f"beyond {fraction_text(sparsity)}"


def count_text(count: float) -> str:
    """1234567 -> "1,234,567"."""
    return MISSING if math.isnan(count) else f"{count:,.0f}"


def si_text(value: float, unit: str) -> str:
    """1.23e12, "FLOP" -> "1.23 TFLOP": three digits, powers of 1000."""
    if math.isnan(value):
        return MISSING
    power = 0 if value < 1.0 else min(int(math.log10(value) // 3), len(_SI_PREFIXES) - 1)
    if value / 1000.0**power >= 999.5 and power < len(_SI_PREFIXES) - 1:
        power += 1  # 999.9 would print as 1e+03
    return f"{value / 1000.0**power:.3g} {_SI_PREFIXES[power]}{unit}"


def duration_text(seconds: float) -> str:
    """75.3 -> "1 min 15 s"; below a minute with one decimal."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def nats_text(nats: float) -> str:
    """0.00251 -> "0.00251": three digits, no exponent where a plain number is short."""
    return MISSING if math.isnan(nats) else f"{nats:.3g}"


def _two_digits(fraction: float) -> str:
    return signed_zero_free(f"{100.0 * fraction:.2f}")


def signed_zero_free(text: str) -> str:
    """Turn "-0.00" into "0.00", and the hyphen of a negative number into a minus sign."""
    if text.startswith("-"):
        return text[1:] if float(text) == 0.0 else f"−{text[1:]}"
    return text
