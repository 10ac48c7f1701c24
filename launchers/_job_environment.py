"""The environment that jobs are queued from: what all of them need, and no secret of a login shell."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

# What every job needs of the environment it is queued from. Secrets of a login shell stay there.
VARIABLES = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "LD_LIBRARY_PATH",
    "MODULEPATH",
    "SLURM_CONF",
    "OMP_NUM_THREADS",
    "ESPALIER_DATA",
]


@contextmanager
def job_environment(names: Sequence[str]) -> Iterator[None]:
    """Let this process have the allow-listed variables alone: sbatch hands its environment to the job.

    What Slurm itself set is left out as well, so that submitting from inside a job asks for what the profile says.
    """
    before: Mapping[str, str] = dict(os.environ)
    kept = {name: value for name, value in before.items() if name in (*VARIABLES, *names)}
    os.environ.clear()
    os.environ.update(kept)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
