"""How every HDF5 file of espalier is written and read: sealed, committed in one step, guarded against strangers."""

from data.hdf5.commit import commit_bytes, sweep, temporary_name
from data.hdf5.content import (
    read_array,
    read_attribute,
    read_text,
    read_texts,
    stored_rows,
    write_array,
    write_rows,
    write_text,
    write_texts,
)
from data.hdf5.guard import refuse_hostile
from data.hdf5.lock import exclusive
from data.hdf5.refusal import FileRefused, printable, refusal
from data.hdf5.rows import StoredRows, blocks
from data.hdf5.seal import (
    USER_BLOCK_BYTES,
    is_sealed,
    open_guarded,
    open_sealed,
    sealed_image,
    verify_seal,
    write_sealed,
    write_sealed_on_disk,
)

__all__ = [
    "USER_BLOCK_BYTES",
    "FileRefused",
    "StoredRows",
    "blocks",
    "commit_bytes",
    "exclusive",
    "is_sealed",
    "open_guarded",
    "open_sealed",
    "printable",
    "read_array",
    "read_attribute",
    "read_text",
    "read_texts",
    "refusal",
    "refuse_hostile",
    "sealed_image",
    "stored_rows",
    "sweep",
    "temporary_name",
    "verify_seal",
    "write_array",
    "write_rows",
    "write_sealed",
    "write_sealed_on_disk",
    "write_text",
    "write_texts",
]
