"""Whether a study's folder can be named to Slurm: its name goes into the scripts of jobs, and is a pattern there."""

from pathlib import Path

from suite.errors import UserError


def check_folder_name(folder: Path) -> None:
    """Refuse a folder whose name would not mean the same in the script of a job.

    Raises:
        UserError: see folder_name_trouble.
    """
    trouble = folder_name_trouble(folder)
    if trouble:
        raise UserError(f"{trouble} Give another folder with --out DIR.")


def folder_name_trouble(folder: Path) -> str:
    """Return why a folder cannot be named to Slurm, or nothing.

    A line break would end an option of sbatch and begin a line of shell. Slurm replaces %j and its like in names of
    files, and takes a backslash for the sign not to.
    """
    bad = next((char for char in str(folder) if char in "%\\" or not char.isprintable()), None)
    if bad is None:
        return ""
    return (
        f"the folder {str(folder)!a} has {bad!a} in its name. Expected: printable characters without % and backslash."
    )
