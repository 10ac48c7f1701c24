"""What jobs and drivers write into a submission's events, checked: whatever else is in these files is left out."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class ToldAgain(BaseModel):
    """Why a driver queued a cell again: see `Again.told`."""

    model_config = ConfigDict(strict=True)

    cause: str
    number: int
    raised: dict[str, tuple[float, float]]


class _Event(BaseModel):
    """What every event may hold beside its own."""

    model_config = ConfigDict(strict=True)

    time_utc: str = ""
    host: str = ""
    slurmd_nodename: str = ""
    slurm_restart_count: str = ""


class _Begun(_Event):
    event: Literal["started"]
    cell: str


class _Left(_Event):
    event: Literal["left", "paused", "stayed", "lost"]
    cell: str
    message: str


class _Ended(_Event):
    event: Literal["ended"]
    cell: str
    status: Literal["done", "cached", "failed", "upstream_failed"]
    message: str
    wall_s: float
    host: str
    attempts: int


class _Workers(_Event):
    event: Literal["workers"]
    of: str


class _QueuedAgain(_Event, ToldAgain):
    event: Literal["queued_again"]
    cell: str


_EVENTS: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Begun | _Left | _Ended | _Workers | _QueuedAgain, Field(discriminator="event")]
)


def event_in(line: bytes) -> dict[str, Any] | None:
    """Return the event in one line, or None: its writer was killed, or something else wrote there."""
    try:
        _EVENTS.validate_json(line)
        found: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found
