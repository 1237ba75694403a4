"""A series from runs to products: any cut, any workers, extended, interrupted, partial."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from scipy import ndimage

from tilemap import api
from tilemap.changing.execute import ChangeResult
from tilemap.comparison.hmm import smooth
from tilemap.comparison.qa import Qa
from tilemap.errors import DamagedInputError, OutputError
from tilemap.files import read_sealed
from tilemap.stores.core_store import CoreStore
from tilemap.stores.marks import Mark
from tilemap.testing import write_geotiff

from .conftest import AFFINE, NAMES, make_run, soften

SHAPE = (131, 190)
YEARS = (1990, 2000, 2010, 2020)
K = 4
MMU_PX = 5


def _truth() -> np.ndarray:
    """Class index (date, y, x): a town grows in 2010, a lake appears in 2020 only."""
    random = np.random.default_rng(11)
    field = ndimage.gaussian_filter(random.normal(size=(K, *SHAPE)), (0, 6, 6))
    dates = np.stack([field.argmax(axis=0).astype(np.uint8)] * len(YEARS))
    dates[2:, 40:75, 50:120] = 2
    dates[3, 100:115, 20:50] = 0
    return dates


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four finished runs with 4 % of wrong pixels each, and a cloud in 2000."""
    folder, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(12)
    paths = []
    for year, labels in zip(YEARS, _truth(), strict=True):
        seen = labels.copy()
        wrong = random.random(SHAPE) < 0.04
        seen[wrong] = random.integers(0, K, int(wrong.sum()))
        if year == 2000:
            seen[:30, :60] = 255
        if year > 1990:
            seen[120:, 170:] = 255  # seen once only
        paths.append(make_run(folder / f"y{year}", soften(seen, K, 0.97), None))
    return paths


OPTIONS: dict[str, Any] = {"mmu_ha": MMU_PX * 0.01, "core": 64}


@pytest.fixture(scope="module")
def done(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ChangeResult:
    """The series on two workers."""
    return api.change(runs, out=tmp_path_factory.mktemp("series") / "out", workers=2, **OPTIONS)


def _bytes(out: Path) -> dict[str, bytes]:
    names = [*out.glob("*.tif"), *out.glob("*.csv")]
    found = {path.name: path.read_bytes() for path in names}
    assert len(found) == 6 + len(YEARS) + 3
    return found


def _polygons(out: Path) -> list[tuple[Any, ...]]:
    """Outline and attributes of each, in order; the file itself has a time stamp."""
    _, _, shapes, columns = pyogrio.raw.read(out / "changes.gpkg")
    return list(zip(map(bytes, shapes), *(column.tolist() for column in columns), strict=True))


def _read(path: Path, band: int = 1) -> np.ndarray:
    with rasterio.open(path) as file:
        pixels: np.ndarray = file.read(band)
        return pixels


def test_labels_are_those_of_the_kernel(done: ChangeResult, runs: list[Path]) -> None:
    """Pixel for pixel, from the probabilities as a whole."""
    from tilemap.comparison.emission import emission_table
    from tilemap.comparison.transition import from_rate, steps
    from tilemap.geometry import Window
    from tilemap.stores.probabilities import ProbabilityStore

    whole = Window(0, 0, *SHAPE)
    stored = [ProbabilityStore(run / "probabilities.zarr").read_window(whole) for run in runs]
    stack = np.stack(stored).reshape(len(YEARS), K, -1)
    days = np.array([np.datetime64(f"{y}-07-01").astype(int) for y in YEARS], dtype=np.int64)
    prior = np.full(K, 1 / K)
    found = smooth(stack, prior, steps(from_rate(0.01, K), days), emission_table(prior, 1.0))
    for year, labels in zip(YEARS, found.labels, strict=True):
        got = _read(done.directory / f"labels_{year}-07-01.tif")
        want = np.where(labels == 255, 255, labels + 10).reshape(SHAPE)
        assert np.array_equal(got, want)


def test_what_the_products_say(done: ChangeResult) -> None:
    """The town is there with its day and gap; the flicker is not; once seen is not observed."""
    out = done.directory
    code, percent, qa = (_read(out / f"{n}.tif") for n in ("change", "p_change", "qa"))
    truth = _truth()
    day = np.datetime64("2010-07-01").astype(int)
    grown = np.zeros(SHAPE, bool)
    grown[40:75, 50:120] = truth[0, 40:75, 50:120] != 2
    want = 1 + K * truth[0].astype(int) + 2
    assert (code[grown] == want[grown]).mean() > 0.92
    right = grown & (code == want)
    date, gap = _read(out / "date.tif"), _read(out / "date.tif", 2)
    assert (date[right] == day).mean() > 0.9
    assert (gap[right & (date == day)] == 3652).mean() > 0.9
    assert percent[right].mean() > 95
    still = (truth == truth[0]).all(axis=0)
    still[120:, 170:] = False
    from_, to = np.divmod(code.astype(int) - 1, K)
    assert (from_ != to)[still].mean() < 0.005  # of 15 % that differ at some date
    assert (code[120:, 170:] == 0).all()
    assert (percent[120:, 170:] == 255).all()
    assert (qa[120:, 170:] & Qa.FEW).all()
    assert (_read(out / "n_valid.tif")[:30, :60] == 3).all()
    lake = code[100:115, 20:50]
    changed = (lake - 1) // K != (lake - 1) % K
    assert changed.any()
    assert ((qa[100:115, 20:50] & Qa.PROVISIONAL) > 0)[changed].mean() > 0.95


def test_the_map_opens_with_its_names(done: ChangeResult) -> None:
    """Palette, names, nodata; a name says from and to."""
    with rasterio.open(done.change) as file:
        assert file.nodata == 0
        assert file.tags()["CLASS_7"] == "forest to town"
        assert file.colormap(1)[7] != file.colormap(1)[11]
    assert (done.directory / "change.qml").exists()
    with rasterio.open(done.directory / "date.tif") as file:
        assert file.dtypes == ("int32", "int32")
        assert file.nodata == -2147483648


def test_tables_add_up(done: ChangeResult) -> None:
    """Rows to the first date, columns to the last, all to the true area that was observed."""
    with (done.directory / "transitions_wide.csv").open() as file:
        rows = list(csv.reader(file))
    matrix = np.array([[float(cell) for cell in row[1:-1]] for row in rows[1:-1]])
    code = _read(done.change)
    first, last = np.divmod(code[code > 0].astype(int) - 1, K)
    # 10 m in UTM, half a degree off its meridian: 1 pixel is 0.01 ha to 0.1 %
    assert np.allclose(matrix.sum(axis=1), np.bincount(first, minlength=K) * 0.01, rtol=2e-3)
    assert np.allclose(matrix.sum(axis=0), np.bincount(last, minlength=K) * 0.01, rtol=2e-3)
    assert [row[0] for row in rows[1:-1]] == [name for name, _ in NAMES]


def test_nothing_below_the_minimum_mapping_unit(done: ChangeResult) -> None:
    """Every region of the map has its polygon; small ones are mapped as none, and flagged."""
    code, qa = _read(done.change), _read(done.directory / "qa.tif")
    regions = 0
    for one in np.unique(code):
        if one and (one - 1) // K != (one - 1) % K:
            _, sizes = np.unique(ndimage.label(code == one)[0], return_counts=True)
            assert (sizes[1:] >= MMU_PX).all()
            regions += len(sizes) - 1
    sieved = (qa & Qa.SIEVED) > 0
    assert sieved.any()
    stays = (code[sieved].astype(int) - 1) // K == (code[sieved].astype(int) - 1) % K
    assert stays.all()
    assert (_read(done.directory / "date.tif")[sieved] == -2147483648).all()
    shapes = [shapely.from_wkb(row[0]) for row in _polygons(done.directory)]
    assert len(shapes) == regions == done.record["polygons"]
    assert all(shape.is_valid for shape in shapes)


@pytest.mark.parametrize(("core", "workers"), [(131, 1), (190, 2), (23, 2)])
def test_any_cut_gives_the_same(
    done: ChangeResult, runs: list[Path], tmp_path: Path, core: int, workers: int
) -> None:
    """1, 2 and 54 tiles; one worker and two: every product and every polygon."""
    out = tmp_path / "out"
    api.change(runs, out=out, workers=workers, **{**OPTIONS, "core": core})
    assert _bytes(out) == _bytes(done.directory)
    assert _polygons(out) == _polygons(done.directory)


def test_a_series_grows_by_a_date(done: ChangeResult, runs: list[Path], tmp_path: Path) -> None:
    """Three dates, then four: the products of four at once, the old dates not gathered again."""
    out = tmp_path / "out"
    first = api.change(runs[:3], out=out, workers=2, **OPTIONS)
    provisional = first.record["found"]["provisional"]
    assert provisional > 0.05  # the town of 2010, seen once
    more = api.change(runs, out=out, workers=2, **OPTIONS)
    tiles = more.record["tiles"]["count"]
    assert more.record["tasks"]["resumed"] == 3 * tiles
    assert _bytes(out) == _bytes(done.directory)
    assert _polygons(out) == _polygons(done.directory)
    assert more.record["found"]["provisional"] < provisional / 2
    with pytest.raises(OutputError, match="belongs to another run"):
        api.change(runs[:3], out=out, **OPTIONS)


def test_the_same_again_does_nothing(done: ChangeResult, runs: list[Path]) -> None:
    """Not a byte, not a time."""
    before = {path.name: path.stat().st_mtime_ns for path in done.directory.iterdir()}
    again = api.change(runs, out=done.directory, workers=2, **OPTIONS)
    assert again.record == read_sealed(done.directory / "run.json")
    after = {path.name: path.stat().st_mtime_ns for path in done.directory.iterdir()}
    assert after == before


def test_damage_is_mended(done: ChangeResult, runs: list[Path], tmp_path: Path) -> None:
    """A flipped bit in a date, a lost core of the change: the same command, the same bytes."""
    out = tmp_path / "out"
    shutil.copytree(done.directory, out)
    (out / "run.json").unlink()
    date = sorted((out / "stores" / "dates").iterdir())[1] / "probability" / "c" / "0" / "1" / "1"
    content = bytearray(date.read_bytes())
    content[len(content) // 2] ^= 4
    date.write_bytes(bytes(content))
    (out / "stores" / "change.zarr" / "code" / "c" / "0" / "2").unlink()
    with (done.directory / "run.json").open() as file:
        grid = json.load(file)["tiles"]["shape"]
    assert grid == [3, 3]
    result = api.change(runs, out=out, workers=1, **OPTIONS)
    assert result.status == "ok"
    assert _bytes(out) == _bytes(done.directory)


KILLED = """
import os, signal, sys
from tilemap import api
from tilemap.progress import Silent
class Killer(Silent):
    seen = 0
    def advance(self, receipt, pixels):
        Killer.seen += 1
        if Killer.seen == int(sys.argv[1]):
            os.killpg(0, signal.SIGKILL)
if __name__ == "__main__":
    os.setpgrp()
    api.change(sys.argv[3:], out=sys.argv[2], workers=2, core=64, mmu_ha=0.05, progress=Killer())
"""


@pytest.mark.parametrize("moment", [7, 41, 66])
def test_killed_and_continued(
    done: ChangeResult, runs: list[Path], tmp_path: Path, moment: int
) -> None:
    """SIGKILL to everything while dates are gathered, compared, finished: the same bytes."""
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(moment), str(out), *map(str, runs)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -9, ended.stderr.decode()[-2000:]
    assert not (out / "run.json").exists()
    result = api.change(runs, out=out, workers=2, **OPTIONS)
    assert result.resumed > 0 or moment < 10
    assert _bytes(out) == _bytes(done.directory)


def test_labels_alone_will_do(runs: list[Path], tmp_path: Path) -> None:
    """Directories without probabilities: a note, a bit, and change all the same."""
    places = []
    for run, year in zip(runs, YEARS, strict=True):
        place = tmp_path / f"y{year}"
        shutil.copytree(run, place)
        from tilemap.geometry import Window
        from tilemap.stores.probabilities import ProbabilityStore
        from tilemap.testing import write_geotiff

        from .conftest import AFFINE

        kept = ProbabilityStore(place / "probabilities.zarr").read_window(Window(0, 0, *SHAPE))
        labels = np.where(kept[0] == 255, 255, kept.argmax(axis=0) + 10).astype(np.uint8)
        write_geotiff(
            place / "landcover.tif", labels[None], crs="EPSG:32718", transform=AFFINE, nodata=255
        )
        shutil.rmtree(place / "probabilities.zarr")
        record = json.loads((place / "run.json").read_text())
        record["identity"].pop("probabilities", None)
        (place / "run.json").write_text(json.dumps(record))
        places.append(place)
    result = api.change(places, out=tmp_path / "out", method="pcc", **OPTIONS)
    assert any("labels only" in note for note in result.record["warnings"])
    qa = _read(tmp_path / "out" / "qa.tif")
    assert (qa & Qa.HARD).all()
    assert result.record["found"]["changed"] > 0.08  # wrong labels, twice 4 %


@pytest.mark.parametrize(
    ("crs", "areas"),
    [
        ('LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]', False),
        ("IAU_2015:30110", True),  # the Moon, in metres
    ],
)
def test_a_series_that_is_not_of_the_earth(tmp_path: Path, crs: str, areas: bool) -> None:
    """It is mapped whole; its item has no outline, and areas are those of its own globe."""
    rng = np.random.default_rng(5)
    runs = [
        make_run(
            tmp_path / f"y{year}", soften(rng.integers(0, K, (30, 40)), K), f"{year}-07-01",
            crs=crs, affine=Affine(10, 0, 1000, 0, -10, 2000),
        )
        for year in (2000, 2010)
    ]  # fmt: skip
    out = tmp_path / "out"
    options = {**OPTIONS, "accept_misregistration": True}
    assert api.change(runs, out=out, **options).record["status"] == "ok"
    item = json.loads((out / "item.json").read_text())
    assert item["geometry"] is None
    told = any("tied to no globe" in note for note in item_notes(out))
    assert told is not areas
    with rasterio.open(out / "change.tif") as file:
        assert file.crs is not None
    assert api.change(runs, out=out, **options).record["status"] == "ok"


def item_notes(out: Path) -> list[str]:
    """What the record of a series says to its reader."""
    notes: list[str] = json.loads((out / "run.json").read_text())["warnings"]
    return notes


def test_the_length_of_a_vector_is_no_probability(runs: list[Path], tmp_path: Path) -> None:
    """Of change vectors the raster, the item and the report say what they are."""
    out = tmp_path / "out"
    api.change(runs, out=out, method="cvaps", **OPTIONS)
    with rasterio.open(out / "p_change.tif") as file:
        assert file.descriptions == ("length of the longest change vector, percent",)
    asset = json.loads((out / "item.json").read_text())["assets"]["p_change"]
    assert asset["title"] == "Length of the longest change vector"
    assert "probability" not in json.dumps(asset).lower()
    page = (out / "report.html").read_text()
    assert "<h2>Length of the longest change vector</h2>" in page
    assert "robability of a change" not in page
    assert "robability of change" not in page


def test_a_core_that_fails_is_left_out(runs: list[Path], tmp_path: Path) -> None:
    """A block of a mask cannot be read: the rest is delivered, its core is not observed."""
    fine = Affine(1.25, 0, AFFINE.c, 0, -1.25, AFFINE.f)
    mask = np.random.default_rng(1).integers(2, 6, (1, 8 * SHAPE[0], 8 * SHAPE[1])).astype(np.uint8)
    masks = []
    for number in range(4):
        path = write_geotiff(
            tmp_path / f"m{number}.tif", mask, crs="EPSG:32718", transform=fine, tiled=True,
            blockxsize=64, blockysize=64, compress="deflate",
        )  # fmt: skip
        masks.append(str(path))
    with rasterio.open(masks[0]) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_5_5", "TIFF", bidx=1))
    content = bytearray((tmp_path / "m0.tif").read_bytes())
    content[offset : offset + 8] = bytes(8)
    (tmp_path / "m0.tif").write_bytes(content)
    out = tmp_path / "out"
    result = api.change(runs, out=out, workers=1, masks=masks, mask_rule="values:1", **OPTIONS)
    assert result.status == "partial"
    assert result.exit_code == 3
    assert {q["stage"] for q in result.record["quarantined"]} == {"gather"}
    valid = _read(out / "n_valid.tif")
    assert valid.max() == 4
    assert (valid[:64, :64] <= 3).all()
    store = CoreStore(out / "stores" / "change.zarr", _grid())
    assert all(store.state(tile) is Mark.DONE for tile in _grid().tiles())


@pytest.mark.parametrize("harm", ["cut", "gone", "a folder"])
def test_damaged_probabilities_are_refused(runs: list[Path], tmp_path: Path, harm: str) -> None:
    """They are no cloud: the command that mends them is named."""
    broken = tmp_path / "y1990"
    shutil.copytree(runs[0], broken)
    chunk = broken / "probabilities.zarr" / "probability" / "c" / "0" / "0" / "1"
    content = chunk.read_bytes()
    chunk.unlink()
    if harm == "cut":
        chunk.write_bytes(content[:-3])
    elif harm == "a folder":
        chunk.mkdir()
    with pytest.raises(DamagedInputError, match=r"the same `tilemap segment` .* mends it"):
        api.change([broken, *runs[1:]], out=tmp_path / "out", workers=1, **OPTIONS)


def _grid() -> Any:
    from tilemap.geometry import TileGrid

    return TileGrid(SHAPE, 64, 0, 0)


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    """Of two dates, one of which shows nothing, no change can be told; the run ends well."""
    seen = np.full((4, 40, 50), 0.1)
    seen[2] = 0.7
    blank = np.full((4, 40, 50), np.nan)
    runs = [make_run(tmp_path / f"y{n}", p, None) for n, p in ((2015, seen), (2020, blank))]
    result = api.change(runs, out=tmp_path / "out", workers=1, **OPTIONS)
    assert result.status == "ok"
    assert "no pixel was observed at two dates" in " ".join(result.record["warnings"])
    both = api.change([runs[0], make_run(tmp_path / "y2021", seen, None)],
                      out=tmp_path / "both", workers=1, **OPTIONS)  # fmt: skip
    assert "observed at two dates" not in " ".join(both.record["warnings"])
