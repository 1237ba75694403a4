"""dBASE tables, as ArcGIS wants them for the classes of a raster (``<name>.tif.vat.dbf``).

The format is dBASE III: a header, a descriptor per column, records of fixed width.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tilemap.errors import StoreError

WIDEST = 254
"""Bytes of a text."""
DAY = (70, 1, 1)
"""Of the last change, as the header wants one; the same always, so that equal tables are equal."""


@dataclass(frozen=True)
class DbfColumn:
    """One column.

    Args:
        name: at most ten ASCII characters.
        values: all numbers or all texts; texts beyond 254 bytes of UTF-8 are cut.
        width: bytes of a number; a text takes what it needs.
        decimals: of a number.

    Raises:
        StoreError: if the name is too long or a number too wide.
    """

    name: str
    values: Sequence[int | float | str]
    width: int = 9
    decimals: int = 0

    def __post_init__(self) -> None:
        if len(self.name) > 10 or not self.name.isascii():
            raise StoreError(f"a dBASE column has at most 10 ASCII letters, got {self.name!r}")

    @property
    def is_text(self) -> bool:
        """Whether the column holds texts."""
        return any(isinstance(value, str) for value in self.values)

    def cells(self) -> list[bytes]:
        """The values, all of one width."""
        if self.is_text:
            texts = [_cut(str(value)) for value in self.values]
            width = max(map(len, texts), default=1) or 1
            return [text.ljust(width) for text in texts]
        cells = [f"{value:{self.width}.{self.decimals}f}".encode() for value in self.values]
        if any(len(cell) > self.width for cell in cells):
            raise StoreError(f"{self.name} needs numbers of at most {self.width} characters")
        return cells


def dbf(columns: Sequence[DbfColumn]) -> bytes:
    """A whole table; texts are UTF-8, which a ``.cpg`` file beside it should say.

    Raises:
        StoreError: if columns differ in length, or a number is too wide.
    """
    lengths = {len(column.values) for column in columns}
    if len(lengths) != 1:
        raise StoreError(f"columns of a table must be equally long, got {sorted(lengths)}")
    rows = lengths.pop()
    cells = [column.cells() for column in columns]
    widths = [
        len(column_cells[0]) if column_cells else column.width
        for column, column_cells in zip(columns, cells, strict=True)
    ]
    head = struct.pack("<4BIHH20x", 3, *DAY, rows, 32 * (len(columns) + 1) + 1, 1 + sum(widths))
    described = b"".join(
        struct.pack(
            "<11sc4xBB14x",
            column.name.encode(),
            b"C" if column.is_text else b"N",
            width,
            column.decimals,
        )
        for column, width in zip(columns, widths, strict=True)
    )
    records = b"".join(b" " + b"".join(record) for record in zip(*cells, strict=True))
    return head + described + b"\r" + records + b"\x1a"


def _cut(text: str) -> bytes:
    """UTF-8 of at most 254 bytes, not cut within a character."""
    return text.encode()[:WIDEST].decode(errors="ignore").encode()
