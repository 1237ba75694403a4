"""dBASE tables: what cannot be held is refused, texts are cut between characters."""

from __future__ import annotations

from pathlib import Path

import pyogrio
import pytest

from tilemap.errors import StoreError
from tilemap.stores.dbf import DbfColumn, dbf


def test_equal_tables_are_equal_bytes() -> None:
    """No time of writing in it."""
    column = DbfColumn("a", [1, 2])
    assert dbf([column]) == dbf([column])
    assert dbf([column])[:4] == bytes([3, 70, 1, 1])


def test_long_text_is_cut_between_characters(tmp_path: Path) -> None:
    """254 bytes at most, and still UTF-8."""
    path = tmp_path / "t.dbf"
    path.with_suffix(".cpg").write_text("UTF-8")
    path.write_bytes(dbf([DbfColumn("n", [7, 8]), DbfColumn("text", ["x" + "\u68ee" * 100, ""])]))
    _, _, _, (numbers, texts) = pyogrio.raw.read(path)
    assert numbers.tolist() == [7, 8]
    assert texts[0] == "x" + "\u68ee" * 84
    assert not texts[1]


def test_a_table_without_rows(tmp_path: Path) -> None:
    """It opens, empty."""
    path = tmp_path / "t.dbf"
    path.write_bytes(dbf([DbfColumn("n", [])]))
    assert pyogrio.read_info(path)["features"] == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("elevencharsx", [1])], "at most 10 ASCII letters"),
        ([("fl\u00e4che", [1])], "at most 10 ASCII letters"),
        ([("a", [10**9])], "at most 9 characters"),
        ([("a", [1]), ("b", [1, 2])], "equally long"),
    ],
)
def test_what_cannot_be_held(columns: list[tuple[str, list[int]]], message: str) -> None:
    """An error instead of a table that is read otherwise."""
    with pytest.raises(StoreError, match=message):
        dbf([DbfColumn(name, values) for name, values in columns])
