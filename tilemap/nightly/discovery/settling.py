"""Whether a scene is whole yet, as far as one look can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tilemap.nightly.discovery.listing import File


def unsettled(
    files: Sequence[File], sidecars: Sequence[File], now: float, settle: float
) -> str | None:
    """Why the files of a scene may not be whole yet.

    Args:
        files: of the scene.
        sidecars: beside them; they may be empty.
        now: seconds since 1970.
        settle: seconds after which a file is no longer being written.

    Returns:
        The first reason, for a person; None if there is none.
    """
    for file in files:
        if file.size == 0:
            return f"{_name(file.path)} is empty"
    for file in (*files, *sidecars):
        age = now - file.mtime_ns / 1e9
        if age < 0:
            return (
                f"{_name(file.path)} was modified in the future ({_moment(file)}): a clock is "
                "wrong, here or where it comes from"
            )
        if age < settle:
            return f"{_name(file.path)} was modified {age:.0f} s ago, less than {settle:g} s"
    return None


def moved(before: Iterable[File], after: Iterable[File | None]) -> str | None:
    """Why files that were looked at twice are still being written; None if they are not."""
    for old, new in zip(before, after, strict=True):
        if new is None:
            return f"{_name(old.path)} has gone while it was looked at"
        if new != old:
            return f"{_name(old.path)} has changed while it was looked at"
    return None


def _moment(file: File) -> str:
    try:
        return datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return "beyond the year 9999"


def _name(path: str) -> str:
    return path.rpartition("/")[2]
