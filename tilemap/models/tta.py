"""Test-time augmentation: the mean over a patch mirrored and turned.

The ground has no up. A network that says otherwise of a patch and of its mirror image contradicts
itself; the mean of both does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tilemap.errors import UsageError
from tilemap.geometry import Window
from tilemap.models.protocol import FloatArray, Model

if TYPE_CHECKING:
    from tilemap.models.card import ModelCard

Mode = Literal["none", "flips", "rotations"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight symmetries of the square: transposed first, then mirrored.

    Args:
        swap: rows become columns.
        upside: mirrored top to bottom, afterwards.
        aside: mirrored left to right, afterwards.
    """

    swap: bool
    upside: bool
    aside: bool

    def apply(self, array: FloatArray) -> FloatArray:
        """A view of (plane, y, x), turned."""
        if self.swap:
            array = array.swapaxes(1, 2)
        return array[:, :: -1 if self.upside else 1, :: -1 if self.aside else 1]

    def undo(self, array: FloatArray) -> FloatArray:
        """A view of (plane, y, x), turned back."""
        array = array[:, :: -1 if self.upside else 1, :: -1 if self.aside else 1]
        return array.swapaxes(1, 2) if self.swap else array

    def window(self, window: Window, shape: tuple[int, int]) -> Window:
        """Where a window of an array of ``shape`` (y, x) lies once that is turned."""
        top, left, bottom, right = window.top, window.left, window.bottom, window.right
        rows, cols = shape
        if self.swap:
            top, left, bottom, right, rows, cols = left, top, right, bottom, cols, rows
        if self.upside:
            top, bottom = rows - bottom, rows - top
        if self.aside:
            left, right = cols - right, cols - left
        return Window(top, left, bottom, right)


_FLIPS = tuple(Turn(False, upside, aside) for upside in (False, True) for aside in (False, True))
TURNS: dict[str, tuple[Turn, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "rotations": (*_FLIPS, *(Turn(True, turn.upside, turn.aside) for turn in _FLIPS)),
}
"""By mode; each a group, so that the mean does not depend on which of its images comes in."""


def check_mode(mode: str) -> Mode:
    """The mode, if it is one.

    Raises:
        UsageError: if it is none.
    """
    for known in ("none", "flips", "rotations"):
        if mode == known:
            return known
    raise UsageError(f"tta must be one of {', '.join(TURNS)}, got {mode!r}")


class Augmented:
    """A model that predicts every image of a patch, turns back, and takes the mean.

    Sums are float32 in a fixed order. Patches begin at multiples of the stride and are multiples of
    it long, so a mirrored patch shows a strided network the same phase wherever the cut runs.

    Args:
        model: any.
        mode: "flips" (4 forwards) or "rotations" (8, the whole symmetry of the square); "none"
            changes nothing.

    Raises:
        UsageError: if there is no such mode.
    """

    def __init__(self, model: Model, mode: str) -> None:
        self._model = model
        self._mode = check_mode(mode)
        self._turns = TURNS[mode]

    @property
    def card(self) -> ModelCard:
        """That of the model."""
        return self._model.card

    @property
    def backend(self) -> str:
        """For the record of the run."""
        return f"{self._model.backend}, {self._mode}"

    def predict(self, image: FloatArray, crop: Window | None = None) -> FloatArray:
        """See ``protocol.Model.predict``."""
        shape = image.shape[1], image.shape[2]
        first, *others = self._turns
        total = self._predict(first, image, crop, shape)
        if not others:
            return total
        for turn in others:
            total += self._predict(turn, image, crop, shape)
        total *= np.float32(1 / len(self._turns))  # a power of two: exact
        return total

    def _predict(
        self, turn: Turn, image: FloatArray, crop: Window | None, shape: tuple[int, int]
    ) -> FloatArray:
        turned = np.ascontiguousarray(turn.apply(image))
        part = None if crop is None else turn.window(crop, shape)
        return np.ascontiguousarray(turn.undo(self._model.predict(turned, part)))
