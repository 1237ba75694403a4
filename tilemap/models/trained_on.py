"""The ground that a model was trained on: blocks of scenes, and what each was for.

The card has it, and a class map carries it in a tag, so that ``tilemap evaluate`` can say which
pixels of a reference the model has seen.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TAG = "TILEMAP_TRAINED_ON"
"""Of a class map: ``TrainedOn`` as JSON."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(IntEnum):
    """What a block is for."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    NONE = 255


_LETTERS = {"t": Part.TRAIN, "v": Part.VALIDATION, "x": Part.TEST, "-": Part.NONE}
_RUNS = re.compile(r"([1-9][0-9]{0,9})?([tvx-])")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainedArea(_Frozen):
    """A polygon that says what its pixels are for."""

    part: Literal["train", "validation", "test"]
    wkt: str
    """In the CRS of the scene."""

    @model_validator(mode="after")
    def _readable(self) -> TrainedArea:
        import shapely  # which most users of a card do not need

        try:
            shapely.from_wkt(self.wkt)
        except shapely.errors.ShapelyError:
            raise ValueError(f"wkt must be a geometry, got {self.wkt[:40]!r}") from None
        return self


class TrainedScene(_Frozen):
    """One scene that a model was trained on; divided by blocks, or by the polygons of an area."""

    crs: str | None
    """EPSG code or WKT; None for a plain image."""
    transform: tuple[float, float, float, float, float, float]
    """From pixels to the CRS: a, b, c, d, e, f as rasterio has them."""
    shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    """Rows and columns."""
    block: Annotated[int, Field(ge=1)]
    """Side of a block, pixels; the last row and column of blocks are as they come."""
    blocks: str = ""
    """Blocks row by row, t for training, v for validation, x for the test, - for nothing; a
    number before a letter repeats it. Empty where ``areas`` divide the scene."""
    areas: tuple[TrainedArea, ...] = ()
    """Later ones are on top."""
    labels: Digest | None = None
    """SHA-256 of the file of labels."""

    @field_validator("crs")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        try:
            if value is not None:
                CRS(value)
        except CRSError:
            raise ValueError(f"crs must be an EPSG code or WKT, got {value!r:.60}") from None
        return value

    @model_validator(mode="after")
    def _whole(self) -> TrainedScene:
        if not np.isfinite(self.transform).all() or not _determinant(self.transform):
            raise ValueError(f"transform must be finite and have an inverse, got {self.transform}")
        if self.areas:
            if self.blocks:
                raise ValueError("a scene is divided by blocks or by areas, got both")
            return self
        rows, cols = self.block_shape
        if (found := _length(self.blocks)) != rows * cols:
            raise ValueError(
                f"blocks must be {rows} x {cols}, for {self.shape[0]} x {self.shape[1]} pixels "
                f"in blocks of {self.block}, got {'no such text' if found is None else found}"
            )
        return self

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.shape[0] // self.block), -(-self.shape[1] // self.block)

    def parts(self) -> npt.NDArray[np.uint8]:
        """``Part`` of each block, uint8 (row, col), read-only; not for a scene with areas."""
        return _decoded(self.blocks, self.block_shape)


class TrainedOn(_Frozen):
    """All that a model says of the ground it was trained on."""

    scenes: tuple[TrainedScene, ...] = ()
    labels: tuple[Digest, ...] = ()
    """SHA-256 of files of labels of which the model does not say where its blocks are."""

    @classmethod
    def of(
        cls, scenes: tuple[TrainedScene, ...], training_data: tuple[str, ...]
    ) -> TrainedOn | None:
        """What a card says in these two fields; None if it says nothing.

        Args:
            scenes: with their blocks.
            training_data: lines for people; those of labels end with the digest of the file.
        """
        known = {scene.labels for scene in scenes}
        lines = (re.fullmatch(r"labels .* sha256 ([0-9a-f]{64})", t) for t in training_data)
        files = dict.fromkeys(found[1] for found in lines if found and found[1] not in known)
        return cls(scenes=scenes, labels=tuple(files)) if scenes or files else None


def encode_blocks(parts: npt.NDArray[np.uint8]) -> str:
    """Blocks as a card writes them.

    >>> encode_blocks(np.array([[0, 0, 0], [1, 2, 255]], dtype=np.uint8))
    '3tvx-'

    Args:
        parts: ``Part`` of each block, uint8 (row, col).
    """
    letters = {int(part): letter for letter, part in _LETTERS.items()}
    flat = parts.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1]).astype(np.int64)
    lengths = np.diff([*starts.tolist(), flat.size]).tolist()
    pairs = zip(lengths, flat[starts].tolist(), strict=True)
    return "".join(f"{number if number > 1 else ''}{letters[part]}" for number, part in pairs)


def _length(text: str) -> int | None:
    """How many blocks a text is of; None if it is of none."""
    if not re.fullmatch(rf"(?:{_RUNS.pattern})*", text):
        return None
    return sum(int(number or 1) for number, _ in _RUNS.findall(text))


@lru_cache(maxsize=64)
def _decoded(text: str, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    runs = [(int(number or 1), _LETTERS[letter]) for number, letter in _RUNS.findall(text)]
    numbers, parts = zip(*runs, strict=True)
    out = np.repeat(np.array(parts, dtype=np.uint8), numbers).reshape(shape)
    out.flags.writeable = False
    return out


def _determinant(transform: tuple[float, ...]) -> float:
    a, b, _, d, e, _ = transform
    return a * e - b * d
