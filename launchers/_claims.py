"""Claims of jobs that are gone: the queue knows so at once, a claim would be believed for ten minutes."""

from collections.abc import Collection, Iterable

from suite.claim import Owner, live_owners, release_for
from suite.plan import Cell
from suite.store import Store


def is_of(owner: Owner, names: Collection[str]) -> bool:
    """Return whether a claim was made by a job with one of these names; those of submissions are random."""
    return owner.job_name in names


def release_claims(cells: Iterable[Cell], store: Store, names: Collection[str]) -> None:
    """Let go of cells that jobs were computing when they were killed, so that the next try does not wait for them.

    Args:
        cells: those that no job in the queue holds.
        store: the study's folder.
        names: of the submissions whose jobs these were; claims of anybody else are left alone.

    Cost: one listing of the folder, and one small file read for each claim.
    """
    if not names:
        return
    wanted = {cell.id.name: cell for cell in cells}
    for name, owner in live_owners(store.folder / "cells").items():
        if name in wanted and is_of(owner, names):
            release_for(owner, store.claim_path(wanted[name].id))
