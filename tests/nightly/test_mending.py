"""A product whose rasters are whole stays, whatever happened to the files beside them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tilemap.cli.main import make_app
from tilemap.nightly.database import DamagedLedgerError
from tilemap.nightly.disk import read_product

from .conftest import Nights

SCENE = "a_20200101"


def _ledger(nights: Nights, command: str) -> str:
    found = CliRunner().invoke(make_app(), ["ledger", command, "--root", str(nights.root)])
    assert found.exit_code in (0, 1), found.output
    return found.output


def _gis_rewrote(folder: Path) -> None:
    """As GDAL does it: in place, so that a hard link to the file in the run is changed too."""
    with (folder / "landcover.tif.aux.xml").open("w") as file:
        file.write("<PAMDataset><PAMRasterBand band='1'/></PAMDataset>")


def _gis_rewrote_all(folder: Path) -> None:
    _gis_rewrote(folder)
    for name in ("landcover.qml", "landcover.sld", "landcover.tif.vat.dbf"):
        (folder / name).unlink()


def _cut_item(folder: Path) -> None:
    (folder / "item.json").write_bytes((folder / "item.json").read_bytes()[:100])


def _no_item(folder: Path) -> None:
    (folder / "item.json").unlink()


def _flip_work(folder: Path) -> None:
    path = folder / "work.json"
    path.write_text(path.read_text().replace('"pixels": ', '"pixels": 1'))


def _no_work(folder: Path) -> None:
    (folder / "work.json").unlink()


def _no_report(folder: Path) -> None:
    (folder / "report.html").unlink()


HARMS = (_gis_rewrote, _gis_rewrote_all, _cut_item, _no_item, _flip_work, _no_work, _no_report)


def _publish(nights: Nights) -> tuple[Path, dict[str, bytes]]:
    nights.bring(f"{SCENE}.tif")
    nights.night()
    folder = nights.products / "coast" / nights.items()[SCENE]
    store = nights.root / read_product(nights.root, nights_folder(nights, folder)).run
    (store / "probabilities.zarr").mkdir()
    (store / "probabilities.zarr" / "zarr.json").write_text("{}")
    return store, {path.name: path.read_bytes() for path in folder.iterdir()}


def nights_folder(nights: Nights, folder: Path) -> str:
    """Folder relative to the products."""
    return folder.relative_to(nights.products).as_posix()


@pytest.mark.parametrize("harm", HARMS)
def test_a_rebuild_keeps_a_product_whose_rasters_are_whole(
    nights: Nights, harm: Callable[[Path], None]
) -> None:
    """It is listed, the files beside are as published, and the next nights leave it alone."""
    run, before = _publish(nights)
    folder = nights.products / "coast" / nights.items()[SCENE]
    harm(folder)
    assert "written again" in _ledger(nights, "rebuild")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    _ledger(nights, "check")
    config = nights.config(retention={"grace": "0s"})
    for _ in range(2):
        outcome = nights.night(config)
        assert outcome.removed == ()
    assert nights.worked == [f"coast/{SCENE}"]
    assert nights.products / "coast" / nights.items()[SCENE] == folder
    assert (run / "probabilities.zarr" / "zarr.json").is_file()


@pytest.mark.parametrize("harm", [_cut_item, _no_item, _flip_work, _no_work])
def test_a_night_writes_the_records_of_a_product_again(
    nights: Nights, harm: Callable[[Path], None]
) -> None:
    """What the ledger knows is no reason to make the product again."""
    _, before = _publish(nights)
    folder = nights.products / "coast" / nights.items()[SCENE]
    harm(folder)
    assert nights.night(nights.config(retention={"grace": "0s"})).removed == ()
    assert nights.worked == [f"coast/{SCENE}"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def _flip_raster(path: Path) -> None:
    """Of this name of the file only; the run has another."""
    content = bytearray(path.read_bytes())
    path.unlink()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["nightly", "rebuild"])
def test_a_raster_is_taken_from_its_run(nights: Nights, command: str) -> None:
    """A flipped bit in a published raster is found by its checksum; nothing is mapped again."""
    _, before = _publish(nights)
    folder = nights.products / "coast" / nights.items()[SCENE]
    _flip_raster(folder / "landcover.tif")
    if command == "nightly":
        assert nights.night().exit_code == 0
    else:
        assert "landcover.tif is written again" in _ledger(nights, "rebuild")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert nights.worked == [f"coast/{SCENE}"]


@pytest.mark.parametrize("command", ["nightly", "rebuild"])
def test_a_product_that_lost_its_raster_is_made_again(nights: Nights, command: str) -> None:
    """Where its run is gone too; the new one takes the place of the damaged one."""
    run, before = _publish(nights)
    folder = nights.products / "coast" / nights.items()[SCENE]
    _flip_raster(folder / "landcover.tif")
    shutil.rmtree(run)
    if command == "rebuild":
        assert "other bytes than were published; it is not listed" in _ledger(nights, command)
    nights.night(nights.config(retention={"grace": "0s"}))
    assert nights.worked == [f"coast/{SCENE}"] * 2
    assert nights.products / "coast" / nights.items()[SCENE] == folder
    assert (folder / "landcover.tif").read_bytes() == before["landcover.tif"]
    assert "agree" in _ledger(nights, "check")


def test_a_damaged_product_whose_scene_is_gone_is_named(nights: Nights) -> None:
    """It is not listed any more, and the night says what to do."""
    run, _ = _publish(nights)
    _flip_raster(nights.products / "coast" / nights.items()[SCENE] / "landcover.tif")
    shutil.rmtree(run)
    (nights.folder / "in" / "coast" / f"{SCENE}.tif").unlink()
    outcome = nights.night()
    assert outcome.exit_code == 3
    assert [problem.text for problem in outcome.problems if "bring it back" in problem.text]
    assert SCENE not in nights.items()


def test_products_are_compared_in_turn(nights: Nights) -> None:
    """With a small budget each night compares one product, the one longest ago first."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    config = nights.config(nightly={"root": "out", "verify": "1B"})
    nights.night(config)
    folders = [nights.products / "coast" / one for one in nights.items().values()]
    before = [(folder / "confidence.tif").read_bytes() for folder in folders]
    for folder in folders:
        _flip_raster(folder / "confidence.tif")
    whole = []
    for _ in folders:
        nights.night(config)
        now = [(folder / "confidence.tif").read_bytes() for folder in folders]
        whole.append(sum(one == two for one, two in zip(before, now, strict=True)))
    assert whole == [1, 2, 3]


def test_a_row_of_the_ledger_yields_to_the_record_of_its_product(nights: Nights) -> None:
    """A row has no checksum: it is corrected, and what lies in the folder stays as it is."""
    nights.bring(f"{SCENE}.tif")
    nights.night()
    folder = nights.products / "coast" / nights.items()[SCENE]
    before = {name: (folder / name).read_bytes() for name in ("item.json", "work.json")}

    def title() -> str:
        with closing(sqlite3.connect(nights.root / "ledger.sqlite")) as ledger, ledger:
            [[text]] = ledger.execute("SELECT item FROM product").fetchall()
            item = json.loads(text)
            found = item["properties"].get("title", "")
            item["properties"]["title"] = "another"
            ledger.execute("UPDATE product SET item = ?", (json.dumps(item),))
        return str(found)

    title()
    nights.night()
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert title() != "another"


@pytest.mark.parametrize(
    ("table", "column", "damage"),
    [("product", "item", "{"), ("product", "item", "{}"), ("product", "published", "x"),
     ("pass", "summary", "{"), ("scene", "sources", "[")],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_refused_and_rebuilt(
    nights: Nights, table: str, column: str, damage: str
) -> None:
    """A night names the way out, and after it nothing is mapped again."""
    nights.bring(f"{SCENE}.tif")
    nights.night()
    folder = nights.products / "coast" / nights.items()[SCENE]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with closing(sqlite3.connect(nights.root / "ledger.sqlite")) as ledger, ledger:
        ledger.execute(f"UPDATE {table} SET {column} = ?", (damage,))
    with suppress(DamagedLedgerError):  # a night does not read all
        nights.night()
    _ledger(nights, "rebuild")
    nights.night()
    assert nights.items()[SCENE] in str(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
