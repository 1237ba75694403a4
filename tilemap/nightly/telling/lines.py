"""A file of JSON lines that is only ever added to, and whose troubles are nobody else's."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class LineFile:
    """Appends one object a line, each in one write.

    What cannot be written is counted, told once, and tried again with the next line; when it works
    again, a line ``log_gap`` says how many are missing.

    Args:
        path: of the file; made with its folder by the first line.
        complain: told, once, why a line could not be written.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._path, self._complain = path, complain
        self._file: int | None = None
        self._torn = self._told = False
        self.lost = 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line."""
        try:
            if self._file is None:
                self._open()
            self._append(self._gap(record) + _line(record))
        except OSError as error:
            self.lost += 1
            if not self._told:
                self._told = True
                reason = error.strerror or str(error)
                self._complain(f"cannot write the log {self._path}: {reason}; the pass goes on")
        else:
            self.lost = 0

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o644)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def _gap(self, record: Mapping[str, Any]) -> bytes:
        if not self.lost:
            return b""
        told = {key: record[key] for key in ("time", "pass") if key in record}
        return _line({**told, "level": "warning", "event": "log_gap", "lost": self.lost})

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        left = b"\n" + line if self._torn else line
        while left:
            written = os.write(self._file, left)
            left = left[written:]
            self._torn = bool(left)  # half a line stands there if the next write fails

    def close(self) -> None:
        """Bring it to the disk and close it."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # what cannot be synced, such as a pipe
            os.fsync(self._file)
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
