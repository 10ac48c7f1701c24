from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from suite.record import Metric, Record, read_record, write_record

ODD: dict[str, np.ndarray] = {
    "weights/0.weight": np.array([[0.1, -0.0], [np.inf, np.nan]], dtype=np.float32),
    "weights/num_batches_tracked": np.array(7, dtype=np.int64),
    "mask": np.array([255, 1, 0], dtype=np.uint8),
    "deeply/nested/nämé with spaces": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "tiny": np.array([5e-324, -5e-324, 2.0**-149]),
    "big": np.array([2**63 - 1, -(2**63)], dtype=np.int64),
    "half": np.array([65504, 6e-8], dtype=np.float16),
    "complex": np.array([1 + 2j]),
}


def round_trip(path: Path, record: Record, **config: Any) -> Record:
    with h5py.File(path / "record.h5", "w") as file:
        write_record(file, record, config, "key")
        return read_record(file)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_arrays_of_every_kind_come_back_bit_by_bit(tmp_path: Path) -> None:
    found = round_trip(tmp_path, Record(arrays=ODD, curves={"loss": np.array([1.0, np.nan])}))
    assert set(found.arrays) == set(ODD)
    assert all(same(found.arrays[name], ODD[name]) for name in ODD)
    assert same(found.curves["loss"], np.array([1.0, np.nan]))


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e308, float("inf"), float("nan"), 5e-324])
def test_a_metric_keeps_value_unit_and_direction(tmp_path: Path, value: float) -> None:
    record = Record(metrics={"slq/gaussian_width/0.5/lower": Metric(value, "nats per squared weight", "lower")})
    metric = round_trip(tmp_path, record).metrics["slq/gaussian_width/0.5/lower"]
    assert np.float64(metric.value).tobytes() == np.float64(value).tobytes()
    assert (metric.unit, metric.better) == ("nats per squared weight", "lower")


def test_everything_else_comes_back(tmp_path: Path) -> None:
    record = Record(
        status="nonfinite",
        cost={"gradient_steps": 3.0, "total/nested": 0.1},
        timings={"wall_s": 1.5},
        environment={"packages": {"torch": "2"}, "host": "nöde"},
    )
    assert round_trip(tmp_path, record) == record


def test_an_empty_record_comes_back_empty(tmp_path: Path) -> None:
    assert round_trip(tmp_path, Record()) == Record()


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "record.h5", "w") as file:
        write_record(file, Record(metrics={"loss": Metric(1.0, "nats", "lower")}), {"seed": 3}, "abc")
        assert dict(file.attrs) == {"schema": "espalier-cell/1", "key": "abc", "status": "ok"}
        assert dict(file["metrics/loss"].attrs) == {"unit": "nats", "better": "lower"}
        assert file["config"].asstr()[()] == '{\n "seed": 3\n}'


def test_text_among_the_arrays_is_a_mistake_of_the_code(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="array 'arrays/names' has dtype"):
        round_trip(tmp_path, Record(arrays={"names": np.array(["a"])}))


def test_arrays_under_a_prefix_lose_it() -> None:
    record = Record(arrays={"weights/a": np.zeros(1), "weights/b/c": np.ones(1), "weights_b/d": np.ones(1)})
    assert list(record.arrays_under("weights")) == ["a", "b/c"]
    assert record.arrays_under("none") == {}


def test_all_but_the_arrays_can_be_read(tmp_path: Path) -> None:
    record = Record(metrics={"loss": Metric(1.5, "nats", "lower")}, curves={"loss": np.arange(3.0)}, arrays=ODD)
    with h5py.File(tmp_path / "record.h5", "w") as file:
        write_record(file, record, {}, "key")
        found = read_record(file, with_arrays=False)
    assert not found.arrays
    assert found.metrics == record.metrics
    assert same(found.curves["loss"], record.curves["loss"])
