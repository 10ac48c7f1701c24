"""What this machine can do, what is missing, and how to mend it: the checks behind `espalier doctor`."""

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from data import available, dataset_path
from launchers._finding import Finding
from launchers._ray_session import SOCKET_ROOT_LIMIT, ray_session

MIN_FREE_GIB = 1.0


def survey(*, start_ray: bool = True) -> Iterator[Finding]:
    """Yield the findings one by one; starting Ray takes a few seconds."""
    yield _python()
    yield Finding("torch", "ok", torch.__version__)
    yield _processors()
    yield _devices()
    yield from _extras()
    yield from _folders()
    if importlib.util.find_spec("ray") and start_ray:
        yield _ray()


def _python() -> Finding:
    state = f"{platform.python_version()} in {sys.prefix}"
    return Finding("python", "ok", state)


def _processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("processors", "ok", f"{usable} usable, {memory:.0f} GiB memory")


def _devices() -> Finding:
    count = torch.cuda.device_count()
    if not count:
        return Finding("GPUs", "optional", "none", "everything runs on the CPU; large networks want a GPU")
    return Finding("GPUs", "ok", ", ".join(torch.cuda.get_device_name(index) for index in range(count)))


def _extras() -> Iterator[Finding]:
    for extra, modules, use in (
        ("ray", ("ray",), "espalier run --launcher ray, probes in parallel"),
        ("reports", ("altair", "vl_convert", "pandas", "jinja2"), "espalier report"),
    ):
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            repair = f"pip install -e '.[{extra}]' (for {use})"
            yield Finding(extra, "optional", f"{', '.join(missing)} not installed", repair)
        else:
            yield Finding(extra, "ok", "installed")


def _folders() -> Iterator[Finding]:
    for what, folder in (
        ("data folder", dataset_path(available()[0]).parent),
        ("working folder", Path.cwd()),
        ("temporary folder", Path(tempfile.gettempdir())),
    ):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free_gib = shutil.disk_usage(existing).free / 2**30
        state = f"{folder}, {free_gib:.1f} GiB free"
        if not os.access(existing, os.W_OK):
            yield Finding(what, "missing", f"{folder} is not writable", "choose another (ESPALIER_DATA, --out, TMPDIR)")
        elif free_gib < MIN_FREE_GIB:
            yield Finding(what, "missing", state, f"free at least {MIN_FREE_GIB:g} GiB")
        else:
            yield Finding(what, "ok", state)
    if len(tempfile.gettempdir()) > SOCKET_ROOT_LIMIT:
        yield Finding("TMPDIR", "optional", "too long for Ray's sockets", "Ray will use /tmp instead")


def _ray() -> Finding:
    try:
        with ray_session(1, 0) as ray:
            answer = ray.get(ray.remote(num_cpus=1)(lambda: 42).remote(), timeout=60)
    except Exception as error:  # whatever is wrong, the doctor reports it
        return Finding(
            "Ray starts", "missing", f"{type(error).__name__}: {error}".splitlines()[0], "see its log in TMPDIR"
        )
    return Finding("Ray starts", "ok" if answer == 42 else "missing", "a private cluster ran a task")
