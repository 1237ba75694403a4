"""Where crops are taken: a class evenly or any labelled pixel, without lists of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError
from tilemap.training.labels import IGNORE
from tilemap.training.sample_store import chunk_grid
from tilemap.training.split import Part
from tilemap.training.tally import SceneParts, SceneTally


@dataclass(frozen=True)
class Spot:
    """A pixel of the training part that is labelled.

    Args:
        scene: its number.
        row: in pixels of the scene.
        col: see ``row``.
    """

    scene: int
    row: int
    col: int


class Spots:
    """Draws pixels of the training part.

    Counts by chunk say in which chunk the n-th pixel of a class lies; only that chunk is looked
    at. So memory does not grow with the scene, and every pixel is as likely as any other.

    Args:
        scenes: what each pixel is for.
        tallies: how many there are by chunk, one per scene.
        weights: how often each scene is drawn, in proportion.

    Raises:
        SceneError: if nothing is labelled.
    """

    def __init__(
        self,
        scenes: Sequence[SceneParts],
        tallies: Sequence[SceneTally],
        weights: Sequence[float],
    ) -> None:
        self._scenes, self._weights = tuple(scenes), np.asarray(weights, dtype=np.float64)
        # (chunk, class and then any): pixels up to and with each chunk
        self._ends = [
            np.cumsum(np.column_stack([t.chunks, t.chunks.sum(axis=1)]), axis=0) for t in tallies
        ]
        self._totals = np.stack([ends[-1] for ends in self._ends])  # (scene, class and then any)
        self._any = self._totals.shape[1] - 1
        self._classes = np.flatnonzero(self._totals[:, :-1].sum(axis=0))
        if not self._classes.size:
            raise SceneError("training blocks must have labelled pixels, there are none")

    def draw(self, random: np.random.Generator, balanced: float) -> Spot:
        """One pixel.

        Args:
            random: where chance comes from.
            balanced: how often its class is drawn first, evenly among those there are; else any
                labelled pixel is as likely as any other of its scene.
        """
        wanted = self._any
        if random.random() < balanced:
            wanted = int(self._classes[random.integers(self._classes.size)])
        odds = self._weights * (self._totals[:, wanted] > 0)
        scene = int(random.choice(len(odds), p=odds / odds.sum()))
        ends = self._ends[scene][:, wanted]
        number = int(random.integers(ends[-1]))
        chunk = int(np.searchsorted(ends, number, side="right"))
        before = int(ends[chunk - 1]) if chunk else 0
        return self._pixel(scene, chunk, wanted, number - before)

    def _pixel(self, scene: int, chunk: int, wanted: int, number: int) -> Spot:
        parts = self._scenes[scene]
        grid = chunk_grid(parts.store.scene.shape)
        window = grid.core_window(divmod(chunk, grid.shape[1]))
        label = parts.store.remember("trained", (chunk,), lambda: parts.label(window, Part.TRAIN))
        there: npt.NDArray[np.bool_] = label != IGNORE if wanted == self._any else label == wanted
        row, col = divmod(int(np.flatnonzero(there)[number]), window.width)
        return Spot(scene, window.top + row, window.left + col)
