"""One check of the doctor."""

from typing import Literal, NamedTuple

Verdict = Literal["ok", "optional", "change", "missing"]


class Finding(NamedTuple):
    """One check: what was looked at, how it stands, and what to do about it."""

    what: str
    verdict: Verdict
    state: str
    repair: str = ""

    @property
    def is_bad(self) -> bool:
        """Return whether something has to be done before work can begin."""
        return self.verdict in ("change", "missing")
