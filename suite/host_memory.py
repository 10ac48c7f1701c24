"""Host memory that is there to be taken: what the machine has left, and what a job or a container may use of it."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int:
    """Return how much host memory this process may still take, the least of what bounds it.

    Args:
        root: where /proc and /sys are.

    What bounds it is the memory that the system calls available, and in every control group above the process, of
    either version, the limit less what is in use; files that are cached count as free.
    """
    return max(0, min([_system_bytes(root), *_group_rooms(root)]))


def _system_bytes(root: Path) -> int:
    found = _fields(root / "proc/meminfo").get("MemAvailable:")
    if found is None:  # no Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1024 * found


def _group_rooms(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers:
            base, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / name.lstrip("/")
        for each in (group, *group.parents):
            yield from _room(each, *files)
            if each == base:
                break


def _room(group: Path, limit: str, usage: str, cached: str) -> Iterator[int]:
    try:
        most = int((group / limit).read_text())
        used = int((group / usage).read_text())
    except (OSError, ValueError):  # the outermost group has no limit; "max" is none
        return
    yield most - used + _fields(group / "memory.stat").get(cached, 0)


def _fields(path: Path) -> dict[str, int]:
    """Return the first two words of every line, where the second is a number."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}
