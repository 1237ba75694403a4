"""Spatial split: whole blocks of a scene are for training, for validation or for the test.

Neighbouring pixels are alike: drawn at random, they would be tested on what they were trained on.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError
from tilemap.geometry import Window
from tilemap.models.trained_on import Part

__all__ = ["Part", "Split", "assign_blocks", "block_counts", "part_of_window"]


@dataclass(frozen=True, slots=True)
class Split:
    """How a scene is divided.

    Args:
        block: side of a block, pixels.
        validation: share of the labelled blocks, 0..1.
        test: share of the labelled blocks, 0..1.
        seed: the same seed gives the same blocks.
    """

    block: int = 256
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ConfigError(f"block must be at least 1 pixel, got {self.block}")
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 <= share < 1:
                raise ConfigError(f"{name} must be a share from 0 to below 1, got {share}")
        if self.validation + self.test >= 1:
            raise ConfigError(
                "validation and test must leave blocks for training: "
                f"{self.validation} + {self.test} is not below 1"
            )


def block_counts(counted: npt.NDArray[np.bool_], block: int) -> npt.NDArray[np.int64]:
    """True pixels by block, int64 (block row, block col); the last row and column are as they come.

    Args:
        counted: (y, x).
        block: side of a block, pixels.
    """
    rows = np.arange(0, counted.shape[0], block)
    cols = np.arange(0, counted.shape[1], block)
    sums = np.add.reduceat(counted.astype(np.int64), rows, axis=0)
    return np.asarray(np.add.reduceat(sums, cols, axis=1), dtype=np.int64)


def assign_blocks(
    counts: npt.NDArray[np.int64], split: Split, least: int = 1
) -> npt.NDArray[np.uint8]:
    """What each block is for.

    Blocks are drawn in strata: they are ordered by ``counts``, and each run of neighbours in that
    order is shared out, so that the three parts see the rare and the plain blocks in proportion.

    Args:
        counts: what makes blocks alike, such as pixels of the rarest class, int (row, col).
            Blocks below ``least`` take no part.
        split: shares and seed.
        least: smallest count of a block that takes part.

    Returns:
        A ``Part`` for each block, uint8 (row, col). A share above 0 gets at least one block.

    Raises:
        ConfigError: if there are fewer blocks than parts.
    """
    flat = counts.ravel()
    random = np.random.default_rng(split.seed)
    shuffled = random.permutation(flat.size)
    order = shuffled[np.argsort(-flat[shuffled], kind="stable")]
    order = order[flat[order] >= least]
    total = order.size
    shares = {Part.VALIDATION: split.validation, Part.TEST: split.test}
    wanted = {part: max(1, round(share * total)) for part, share in shares.items() if share > 0}
    if total <= sum(wanted.values()):
        raise ConfigError(
            f"a split needs at least {len(wanted) + 1} labelled blocks, got {total} of "
            f"{split.block} pixels; make block smaller or label more"
        )
    parts = np.full(flat.size, Part.NONE, dtype=np.uint8)
    parts[order] = Part.TRAIN
    for part, number in wanted.items():
        free = order[parts[order] == Part.TRAIN]
        # one of each of `number` equal runs of the free blocks
        edges = np.linspace(0, free.size, number + 1).astype(int)
        for low, high in itertools.pairwise(edges):
            parts[free[random.integers(low, high)]] = part
    return parts.reshape(counts.shape)


def part_of_window(
    parts: npt.NDArray[np.uint8], block: int, window: Window
) -> npt.NDArray[np.uint8]:
    """What each pixel of a window is for; outside the scene it is for nothing.

    Args:
        parts: from ``assign_blocks``.
        block: side of a block, pixels.

    Returns:
        A ``Part`` for each pixel, uint8 (y, x).
    """
    rows = np.arange(window.top, window.bottom) // block
    cols = np.arange(window.left, window.right) // block
    out = np.full(window.shape, Part.NONE, dtype=np.uint8)
    inside_rows = (rows >= 0) & (rows < parts.shape[0])
    inside_cols = (cols >= 0) & (cols < parts.shape[1])
    # row by row, then column by column: many times faster than both at once
    known = parts.take(rows[inside_rows], axis=0).take(cols[inside_cols], axis=1)
    if known.shape == out.shape:
        return np.asarray(known, dtype=np.uint8)
    out[np.ix_(inside_rows, inside_cols)] = known
    return out
