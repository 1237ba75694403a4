"""What the loop asks of its data, whom it tells, where it runs, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tilemap.training.split import Part

if TYPE_CHECKING:
    from torch import nn

    from tilemap.models.card import ClassInfo
    from tilemap.training.checkpoint import Progress
    from tilemap.training.samples import Batch, Block


class Data(Protocol):
    """What the loop asks of its data; ``samples.TrainingData`` is one."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """In the order of the output."""
        ...

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Labelled pixels (part, class): rows training, validation, test."""
        ...

    def batch(self, step: int) -> Batch:
        """A pure function of the step; called from one other thread."""
        ...

    def blocks(self, part: Part) -> Iterator[Block]:
        """All blocks of a part, in the same order every time."""
        ...


class Listener(Protocol):
    """Told what happens; see ``tilemap.cli.progress`` for one that prints."""

    def note(self, text: str) -> None:
        """A line for the person who waits."""

    def begin(self, total: int, done: int) -> None:
        """``total`` steps stand, ``done`` of them from before."""

    def step(self, step: int, loss: float) -> None:
        """``step`` steps are done; the loss of the last."""

    def end(self) -> None:
        """No further step."""


class Silent:
    """A listener that nobody hears."""

    def note(self, text: str) -> None:
        """Nothing."""

    def begin(self, total: int, done: int) -> None:
        """Nothing."""

    def step(self, step: int, loss: float) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training runs and is kept.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: of the CPU within one operation.
        folder: of checkpoint and history; None keeps nothing.
        identity: name of the training; a checkpoint of another is refused.
    """

    device: str = "cpu"
    threads: int = 1
    folder: Path | None = None
    identity: str = ""


@dataclass(frozen=True)
class Fitted:
    """What a training made.

    Args:
        network: with the best weights on the validation part (the last, if there is no such
            part), in evaluation mode, on the device it was trained on.
        progress: where it ended.
        lines: of the history.
    """

    network: nn.Module
    progress: Progress
    lines: list[dict[str, Any]]
