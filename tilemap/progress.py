"""What a run tells while it lasts."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what happens; see ``tilemap.cli.progress`` for one that prints."""

    def note(self, text: str) -> None:
        """A line for the person who waits."""

    def begin(self, total: int, done: int, pixels: int) -> None:
        """``total`` tasks stand, ``done`` of them from before; ``pixels`` of the scene."""

    def advance(self, receipt: object, pixels: int) -> None:
        """A task ended; ``pixels`` of the scene are newly mapped."""

    def end(self) -> None:
        """All tasks ended."""


class Silent:
    """Progress that nobody sees."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, total: int, done: int, pixels: int) -> None:
        """Nothing."""

    def advance(self, receipt: object, pixels: int) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
