"""A private Ray on this machine: explicit resources, token, short folder of its own, always shut down."""

import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suite.errors import UserError

OBJECT_STORE_BYTES = 100 * 2**20  # only configurations and tridiagonals travel
MEMORY_BYTES_PER_CPU = 2 * 2**30  # bookkeeping only: Ray does not enforce it
SOCKET_ROOT_LIMIT = 26  # AF_UNIX paths end at 107 bytes; this session appends 15, Ray up to 66 with a pid of 7 digits

# The environment of every Ray process, beside the token.
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(num_cpus: int, num_gpus: int) -> Iterator[Any]:
    """Start Ray for this process alone, yield the ray module, and stop what was started whatever happens.

    Args:
        num_cpus: what Ray may hand out; never what it would detect, which is the whole node even inside a job.
        num_gpus: likewise.

    Raises:
        UserError: ray is not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="esp-", dir=_short_root()))  # mode 0700
    try:
        with connected(
            new_token(folder),
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            _memory=MEMORY_BYTES_PER_CPU * num_cpus,
            _temp_dir=str(folder / "r"),  # Ray opens it to everybody: only the folder around it keeps the token safe
            include_dashboard=False,
            namespace=folder.name,
        ) as ray:
            yield ray
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def connected(token: Path, **arguments: Any) -> Iterator[Any]:
    """Connect this process to a Ray with a token, yield the ray module, and leave nothing of it in the process.

    Args:
        token: a file of mode 0600.
        arguments: of ray.init.

    Raises:
        UserError: ray is not installed.
    """
    before = dict(os.environ)
    on_terminate = signal.getsignal(signal.SIGTERM)
    ray = None
    try:
        os.environ.update(SETTINGS | {"RAY_AUTH_TOKEN_PATH": str(token)})
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):  # never join a cluster that this run did not start
            os.environ.pop(name, None)
        ray = _import_ray()
        ray.init(**arguments, log_to_driver=False, logging_level="error")
        if on_terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray's own handler prints a stack and ends the process
        yield ray
    finally:
        if ray is not None:
            ray.shutdown()
        for name in set(os.environ) - set(before):  # Ray leaves some of its own
            del os.environ[name]
        os.environ.update(before)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("The launcher 'ray' needs the package ray. Install it: pip install -e '.[ray]'.") from None
    # Ray reads its settings once per process and keeps the token: without this a second session knows the first's.
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    return ray


def _short_root() -> str | None:
    """Return the folder for Ray's sockets: the system's temporary folder, or /tmp where that one is too long."""
    return None if len(tempfile.gettempdir()) <= SOCKET_ROOT_LIMIT else "/tmp"  # noqa: S108


def new_token(folder: Path) -> Path:
    """Write a new token into a folder, as a file of mode 0600, and return its path."""
    token = folder / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return token
