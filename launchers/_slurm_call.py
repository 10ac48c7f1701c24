"""One call of a command of Slurm: no shell, a limit in time, and what it said when it fails."""

import subprocess

PATIENCE_S = 60.0  # for one call


class SlurmFailed(RuntimeError):
    """A call to Slurm failed or took too long; it may succeed later."""


class AccountingOff(SlurmFailed):
    """This cluster keeps no accounting: sacct will never answer."""


def call(*words: str) -> str:
    """Return what a command prints.

    Raises:
        SlurmFailed: it cannot be started, takes longer than a minute, or says no; in its own words, one line.
    """
    return spoken(*words)[0]


def spoken(*words: str) -> tuple[str, str]:
    """Return what a command prints, and what it says on its standard error.

    Raises:
        SlurmFailed: as for `call`.
    """
    try:
        done = subprocess.run(  # noqa: S603  no shell; every word is ours or has passed the profile's checks
            words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmFailed(f"{words[0]}: {str(error).splitlines()[0]}") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        kind = AccountingOff if "accounting storage is disabled" in said.lower() else SlurmFailed
        raise kind(f"{words[0]}: {said}")
    return done.stdout, done.stderr
