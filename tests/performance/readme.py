"""The benchmark block of the README, rendered from the committed results. Run: python -m tests.performance.readme"""

from collections.abc import Sequence
from pathlib import Path

from tests.performance.interleaved import Result, read_results

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- benchmarks: make benchmark -->", "<!-- end of benchmarks -->"


def rendered(results: Sequence[Result]) -> str:
    """Return the block with its marks: per result its title, its text, its table and where it was measured."""
    return "\n\n".join([BEGIN, *(_section(result) for result in results), END])


def replaced(text: str, block: str) -> str:
    """Return a README with its block exchanged.

    Raises:
        ValueError: it does not have each mark exactly once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"The README has not exactly one block. Expected: a line {BEGIN} and then a line {END}.")
    return before + block + after


def _section(result: Result) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in [result.columns, ["---"] * len(result.columns), *result.rows]]
    return "\n\n".join([f"**{result.title}** {result.text}", "\n".join(lines), _measured(result)])


def _measured(result: Result) -> str:
    found = result.environment
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    where = f"{found['machine']}, {found['threads']} threads, {found.get('clock', 'wall')} time"
    return f"Measured on {where}; {versions}; commit {found['commit']}."


def main() -> None:
    """Exchange the README's block."""
    text = README.read_text(encoding="utf-8")
    README.write_text(replaced(text, rendered(read_results())), encoding="utf-8")


if __name__ == "__main__":
    main()
