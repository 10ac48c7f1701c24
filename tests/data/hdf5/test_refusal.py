import pickle

from data.hdf5 import FileRefused, printable, refusal


def test_message_has_path_fault_rule_and_repair_in_one_line() -> None:
    error = refusal("a/b.h5", "is empty", "an HDF5 file", "Delete it.")
    assert str(error) == "a/b.h5 is empty. Expected: an HDF5 file. Delete it."
    assert str(refusal("b.h5", "is empty", "HDF5")) == "b.h5 is empty. Expected: HDF5."


def test_names_from_a_file_cannot_steer_the_terminal() -> None:
    assert str(refusal("x.h5", "has \x1b[31mred\nline", "plain names")).isprintable()
    assert printable("naïve – 8×8") == "naïve – 8×8"


def test_survives_the_way_back_from_a_worker_process() -> None:
    error = refusal("x.h5", "is empty", "HDF5")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is FileRefused
    assert str(copy) == str(error)
