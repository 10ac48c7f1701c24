from pathlib import Path

import pytest

from suite.host_memory import available_bytes

GIB = 2**30


def machine(root: Path, available_kib: int, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kib} kB\nHugePages_Total: 0\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(name: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    fields = f"anon 5\ninactive_file {cached}\n"
    return {f"{name}/memory.max": limit, f"{name}/memory.current": f"{used}\n", f"{name}/memory.stat": fields}


def test_without_a_group_it_is_what_the_system_has(tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, 3 * 2**20, "0::/\n", {})) == 3 * GIB


@pytest.mark.parametrize(
    ("job", "above", "expected"),
    [
        (group("slurm/job", f"{2 * GIB}\n", GIB), group("slurm", "max\n", GIB), GIB),
        (group("slurm/job", f"{2 * GIB}\n", GIB, GIB // 2), group("slurm", "max\n", GIB), GIB + GIB // 2),
        (group("slurm/job", "max\n", GIB), group("slurm", f"{4 * GIB}\n", 2 * GIB), 2 * GIB),
        (group("slurm/job", "max\n", GIB), group("slurm", "max\n", GIB), 8 * GIB),
        (group("slurm/job", f"{GIB}\n", 2 * GIB), {}, 0),
    ],
)
def test_the_least_of_all_groups_above_counts(
    job: dict[str, str], above: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert available_bytes(machine(tmp_path, 8 * 2**20, "0::/slurm/job\n", job | above)) == expected


def test_groups_of_the_first_version(tmp_path: Path) -> None:
    files = {
        "memory/job/memory.limit_in_bytes": f"{3 * GIB}",
        "memory/job/memory.usage_in_bytes": f"{2 * GIB}",
        "memory/job/memory.stat": f"total_inactive_file {GIB // 4}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": "0",
    }
    root = machine(tmp_path, 8 * 2**20, "4:cpu,cpuacct:/job\n3:memory:/job\n0::/\n", files)
    assert available_bytes(root) == GIB + GIB // 4


def test_this_machine_has_memory() -> None:
    assert available_bytes() > 2**20
