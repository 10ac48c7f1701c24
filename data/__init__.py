"""Data sets: one file in this folder each, one HDF5 file each; nothing here imports another room."""

from data._dataset import Dataset, Split, dataset_sha256, inputs_bytes, read_dataset, write_dataset
from data._registry import (
    DatasetDescription,
    Expectation,
    UnknownDataset,
    available,
    dataset_path,
    describe,
    ensure,
    expected,
    options_model,
    prepare,
    prepare_command,
)
from data._stored import SPLIT_NAMES, StoredSplit

__all__ = [
    "SPLIT_NAMES",
    "Dataset",
    "DatasetDescription",
    "Expectation",
    "Split",
    "StoredSplit",
    "UnknownDataset",
    "available",
    "dataset_path",
    "dataset_sha256",
    "describe",
    "ensure",
    "expected",
    "inputs_bytes",
    "options_model",
    "prepare",
    "prepare_command",
    "read_dataset",
    "write_dataset",
]
