"""How the dates of a series lie on each other, from the shifts of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilemap.changing.batch import Key, Receipt
from tilemap.comparison.qa import Qa
from tilemap.comparison.registration import BlockShift, Shift, robust_shift, verdict
from tilemap.errors import SceneMismatchError
from tilemap.stages.change import Move

BLOCK = 256
_LEAST_BLOCK = 64
MOST_BLOCKS = 64
"""Of one date; more than that do not make the median better by anything that matters."""
FEW_BLOCKS, SURE = 3, 0.8
"""Fewer blocks than these tell a shift only if their phases agree so well: one or two fields that
were sown meanwhile look like a shift too (measured on NDVI of one season: 0.6 and less)."""


@dataclass(frozen=True)
class Registered:
    """What was found of each date.

    Args:
        days: ISO days, in order.
        shifts: against the first date; None where nothing could be measured.
        verdicts: "reference", "ok", "shift", "accepted" or "unknown".
    """

    days: tuple[str, ...]
    shifts: tuple[Shift | None, ...]
    verdicts: tuple[str, ...]

    @property
    def moves(self) -> tuple[Move | None, ...]:
        """How far each date is moved; None leaves it as it is."""
        return tuple(
            (shift.row, shift.col) if shift is not None and word == "shift" else None
            for shift, word in zip(self.shifts, self.verdicts, strict=True)
        )

    @property
    def always(self) -> int:
        """Bits of every pixel."""
        flagged = any(word in ("shift", "accepted") for word in self.verdicts)
        return int(Qa.SHIFTED) if flagged else 0

    def record(self) -> list[dict[str, Any]]:
        """For ``run.json``, a row per date."""
        return [
            {
                "date": day,
                "row": None if shift is None else round(shift.row, 4),
                "col": None if shift is None else round(shift.col, 4),
                "spread": None if shift is None else round(shift.spread, 4),
                "blocks": 0 if shift is None else shift.blocks,
                "verdict": word,
            }
            for day, shift, word in zip(self.days, self.shifts, self.verdicts, strict=True)
        ]


def block_side(scene: tuple[int, int]) -> int:
    """Side of the blocks, pixels: smaller where the scene is small."""
    return max(_LEAST_BLOCK, min(BLOCK, min(scene) // 2))


def block_keys(scene: tuple[int, int], side: int, dates: int) -> list[Key]:
    """(date, row, col) of the blocks, spread evenly; slivers along the edges are left out."""
    rows, cols = (max(1, extent // side) for extent in scene)
    every = 1
    while len(range(0, rows, every)) * len(range(0, cols, every)) > MOST_BLOCKS:
        every += 1
    return [
        (date, row, col)
        for date in range(1, dates)
        for row in range(0, rows, every)
        for col in range(0, cols, every)
    ]


def register(receipts: Sequence[Receipt], days: Sequence[str], accept: bool) -> Registered:
    """Put the blocks' shifts together, and decide what becomes of each date.

    Raises:
        SceneMismatchError: if a date lies too far off and that is not accepted.
    """
    shifts: list[Shift | None] = [None]
    verdicts = ["reference"]
    for date in range(1, len(days)):
        found = [BlockShift(*r.value) for r in receipts if r.key[0] == date and r.value]
        shift = robust_shift(found)
        if shift is not None and not _is_sure(shift, found):
            shift = None
        shifts.append(shift)
        if shift is None:
            verdicts.append("unknown")
            continue
        try:
            verdicts.append(verdict(shift, accept))
        except SceneMismatchError as error:
            raise SceneMismatchError(f"{days[date]}: {error}") from error
    return Registered(tuple(days), tuple(shifts), tuple(verdicts))


def _is_sure(shift: Shift, found: Sequence[BlockShift]) -> bool:
    """Whether enough blocks tell of a shift, or the few that do are beyond doubt."""
    qualities = sorted(block.quality for block in found)
    return shift.blocks >= FEW_BLOCKS or qualities[len(qualities) // 2] >= SURE
