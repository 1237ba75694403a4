"""``metrics.jsonl``: a line for every logged step and every validation.

A resumed training cuts it back to its checkpoint and writes the same lines again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tilemap.errors import OutputError
from tilemap.files import decode_json, storing
from tilemap.training.checkpoint import replace_file

FILE = "metrics.jsonl"


class History:
    """The lines of one training.

    Args:
        path: of the file; None keeps the lines in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []

    def begin(self, step: int) -> None:
        """Keep what was told up to a step, whatever was written after it.

        Raises:
            OutputError: if the file cannot be written.
        """
        if self.path is None:
            return
        kept = [line for line in read_history(self.path) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        replace_file(self.path, lambda partial: partial.write_text(text, encoding="utf-8"))
        self.lines = kept

    def add(self, line: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            OutputError: if it cannot be written.
        """
        self.lines.append(line)
        if self.path is None:
            return
        with (
            storing(f"{self.path}: cannot be written", kind=OutputError),
            self.path.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """To the disk, before a checkpoint vouches for it."""
        if self.path is not None and self.path.exists():
            with (
                storing(f"{self.path}: cannot be written", kind=OutputError),
                self.path.open("rb") as file,
            ):
                os.fsync(file.fileno())


def read_history(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, in order; what a kill left half-written is passed over.

    Args:
        path: if it is not there, there are none.
    """
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = decode_json(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines
