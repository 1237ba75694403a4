"""Logs and summaries of old passes, told by their names: no clock and no file time is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

LEAST = 10
"""The newest so many always stay."""
_ID = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d{1,9}))?")
_OF_A_PASS = ("summary.html", "summary.json", "summary.html.partial", "summary.json.partial")


def began(pass_id: str) -> tuple[datetime, int] | None:
    """When a pass began by its id, and its number; None if it is not one.

    >>> began("20261126T021500Z-2")
    (datetime.datetime(2026, 11, 26, 2, 15, tzinfo=datetime.timezone.utc), 2)
    """
    found = _ID.fullmatch(pass_id)
    if found is None:
        return None
    try:
        moment = datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment, int(found[2] or 1)


def old_passes(ids: Iterable[str], keep_s: float, now: datetime, least: int = LEAST) -> list[str]:
    """Ids that began more than ``keep_s`` seconds before ``now``, oldest first.

    The newest ``least`` are never among them, nor is what is no id.
    """
    known = sorted((when, one) for one in ids if (when := began(one)) is not None)
    before = now - timedelta(seconds=keep_s)
    kept = len(known) - least
    return [
        one for index, ((moment, _), one) in enumerate(known) if index < kept and moment < before
    ]


def rotate(folder: Path, keep_s: float, now: datetime) -> list[Path]:
    """Remove logs ``PASS.jsonl``, and folders ``PASS`` of summaries, that are old by their name.

    Args:
        folder: of the logs, or of the summaries.
        keep_s: seconds that they stay.
        now: with a zone.

    Returns:
        What was removed. What cannot be removed, and what has another name, stays.
    """
    try:
        found = {_id_of(path): path for path in folder.iterdir()}
    except OSError:
        return []
    removed = []
    for one in old_passes(found, keep_s, now):
        try:
            _remove(found[one])
        except OSError:
            continue
        removed.append(found[one])
    return removed


def _id_of(path: Path) -> str:
    whole = path.suffix in ("", ".jsonl")
    return path.stem if whole else path.name


def _remove(path: Path) -> None:
    """A file; or a folder, unless something is in it that no pass has written."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for name in _OF_A_PASS:
        (path / name).unlink(missing_ok=True)
    path.rmdir()
