"""The page of a change: whole, self-contained, and its pictures show what the maps hold."""

from __future__ import annotations

import re
import warnings
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from tilemap.comparison.qa import Qa
from tilemap.errors import StoreError
from tilemap.report.change_pictures import (
    MOST_PANELS,
    change_panels,
    change_picture,
    columns,
    multiple,
    multiples,
    note,
    panels_of,
    size_of,
    with_note,
)
from tilemap.report.change_report import QA_TEXT, ChangeReport, render_change, write_change_report
from tilemap.report.quicklook import BACKGROUND, GAP, png_bytes

EVIL = "<script>alert('x')</script> & \"quotes\""
COLORS = {0: (10, 90, 200), 1: (20, 120, 40), 4: (200, 60, 30)}
CHANGES = {1: (210, 220, 240), 5: (220, 240, 220), 9: (240, 220, 210), 2: (30, 130, 50)}
PICTURE = with_note(png_bytes(np.zeros((3, 20, 76), dtype=np.uint8)), "metres", "5200")
SERIES = with_note(png_bytes(np.zeros((3, 20, 76), dtype=np.uint8)), "captions", f"a\n{EVIL}\nc")
FULL = ChangeReport(
    title="Pucallpa",
    subtitle="3 dates",
    facts={"CRS": EVIL},
    dates=("1985-07-01", "1990-07-01", "2005-07-01"),
    class_names=("water", EVIL, "built-up"),
    class_colors=("#0a5ac8", "#147828", "#c83c1e"),
    matrix_ha=((50.25, 1000.0, 0.0), (200.5, 30_000.0, 2000.25), (0.0, 0.0004, 12.0)),
    areas_ha=((1050.25, 32_200.75, 12.0), (900.0, 30_000.0, 2363.0), (250.75, 31_000.0, 2012.25)),
    changed_ha=(1800.0, 1403.0),
    p_change=[900] + [1] * 99 + [200],
    registration=(
        {"date": "1985-07-01", "row": None, "col": None, "blocks": 0, "verdict": "reference"},
        {"date": "1990-07-01", "row": -0.31, "col": 0.12, "blocks": 12, "verdict": "shift"},
        {"date": "2005-07-01", "row": 0.4, "col": 0.5, "blocks": 9, "verdict": EVIL},
    ),
    qa={"FEW": 0.0, "provisional": 0.123, EVIL: 0.5},
    pictures={"change": PICTURE, "multiples": SERIES},
    polygons=1234,
    provisional_ha=800.1876,
    area_note="True areas.",
    settings={"method": "hmm"},
    model={"sha256": "abc"},
    versions={"numba": "1"},
    inputs=(EVIL,),
    products=(("change.tif", 115_569, "ab" * 32),),
    warnings=("1990 was moved.",),
    quarantined=("tile (3, 2)",),
)


class Checker(HTMLParser):
    """Collects text and what the page would load; fails on a tag left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An SVG element without content."""

    def handle_endtag(self, tag: str) -> None:
        """It must be the one opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Remember it."""
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def check(page: str) -> str:
    """The page's text, after looking at its tags."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(load.startswith("data:image/png;base64,") for load in checker.loads)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    return re.sub(r"\s+", " ", " ".join(checker.text))


def test_full_page() -> None:
    """Every part is there with its figures, nothing is loaded, and no name becomes markup."""
    page = render_change(FULL)
    text = check(page)
    for told in (
        "3,201 ha changed between 1985-07-01 and 2005-07-01",
        "9.6 % of the 33,263 ha",
        f"{EVIL} to built-up, 62.5 % of all change",
        "75.0 % of the change is confirmed",
        "1,234 polygons of change",
        "1 tile is missing from this map.",
        "True areas. These areas are counted on the map",
        "sum 2005-07-01 251 31,000 2,012 33,263",
        "12.3 % provisional",
        "No pixel carries: few.",
        "Median 0 %",
        "1990-07-01 \u22120.31 +0.12 0.33 12 moved",
        "1 km",
        "0.12 MB",
    ):
        assert told in text, told
    assert page.count("data:image/png") == 2
    assert page.count("<svg") == 5 + 3  # five charts and the course of each class


def test_every_part_can_be_missing() -> None:
    """With nothing but a title there is a header alone; without one part, the others stay."""
    bare = check(render_change(ChangeReport("Nothing")))
    assert "Nothing" in bare
    assert "<h2" not in render_change(ChangeReport("Nothing"))
    empty = ChangeReport("")
    together = {"class_names", "class_colors", "areas_ha"}
    parts = [{part.name} for part in fields(ChangeReport) if part.name not in together]
    whole = check(render_change(FULL))
    same = {"unit", "p_change_note", "p_change_title"}  # as they are there
    for names in (*parts, together):
        changed = replace(FULL, **{name: getattr(empty, name) for name in names})
        assert (check(render_change(changed)) == whole) is (names <= same), names


@pytest.mark.parametrize(
    "matrix", [((np.nan, 1.0, 0.0),) * 3, ((0.0,) * 3,) * 3], ids=["unknown", "nothing observed"]
)
def test_areas_that_are_not_known_are_not_shown(matrix: tuple[tuple[float, ...], ...]) -> None:
    """No NaN and no division by zero reaches the page; the rest stays."""
    page = render_change(replace(FULL, matrix_ha=matrix))
    text = check(page)
    assert "What became what" not in text
    assert "changed between" not in text
    assert "nan" not in page
    assert "When it changed" in text


def test_pixels_instead_of_hectares() -> None:
    """Every area has the unit that it was given in."""
    page = render_change(replace(FULL, unit="pixels", area_note=""))
    text = check(page)
    assert "3,201 pixels changed" in text
    assert "Transitions, pixels" in text
    assert not re.search(r"\d ha\b", text)


def test_two_dates_without_any_change() -> None:
    """Nothing is divided by the change that is not there."""
    data = ChangeReport(
        "same",
        dates=("2019-06-01", "2019-06-11"),
        class_names=("a", "b"),
        class_colors=("#111111", "#222222"),
        matrix_ha=((5.0, 0.0), (0.0, 0.0)),
        areas_ha=((5.0, 0.0), (5.0, 0.0)),
        changed_ha=(0.0,),
        p_change=[7] + [0] * 100,
        polygons=0,
        provisional_ha=0.0,
    )
    text = check(render_change(data))
    assert "0 ha changed between 2019-06-01 and 2019-06-11" in text
    assert "0 polygons of change" in text
    assert "confirmed" not in text
    assert "Largest changes" not in text


def test_many_classes_and_dates() -> None:
    """Names of many columns stand upright; a long table of dates is folded."""
    count = 15
    data = replace(
        FULL,
        class_names=[f"class {k}" for k in range(count)],
        class_colors=["#123456"] * count,
        matrix_ha=(np.arange(count * count).reshape(count, count) / 7).tolist(),
        areas_ha=(),
        registration=[*FULL.registration] * 6,
    )
    page = render_change(data)
    text = check(page)
    assert "matrix dense" in page
    assert "matrix dense" not in render_change(FULL)
    assert "All 18 dates" in text
    assert "202 other kinds" in text


def test_every_bit_is_explained() -> None:
    """What ``qa.tif`` can hold, the page can say."""
    assert set(QA_TEXT) == {bit.name.lower() for bit in Qa if bit.name}


def test_page_is_written_whole(tmp_path: Path) -> None:
    """It reads back; where it cannot be written, nothing is left."""
    write_change_report(tmp_path / "report.html", FULL)
    assert (tmp_path / "report.html").read_text() == render_change(FULL)
    with pytest.raises(StoreError):
        write_change_report(tmp_path / "missing" / "report.html", FULL)
    assert not (tmp_path / "missing").exists()


def write(path: Path, pixels: npt.NDArray[np.uint8], crs: str | None = "EPSG:32718") -> Path:
    """A map of 30 m pixels, with overviews."""
    height, width = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8"}
    where = {"crs": crs, "transform": Affine(30, 0, 500_000, 0, -30, 9_080_000)}
    with rasterio.open(path, "w", **profile, **where) as file:
        file.write(pixels, 1)
    return path


def decode(png: bytes) -> npt.NDArray[np.uint8]:
    """Pixels of a picture, uint8 (3, y, x)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(png) as memory, memory.open() as file:
            return np.asarray(file.read())


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path, Path]:
    """First, last and change of a scene of 11 x 29 pixels, none like its mirror image."""
    first = np.zeros((11, 29), dtype=np.uint8)
    first[7:, 20:] = 4
    first[0, 0] = 255
    last = first.copy()
    last[2:5, 3:9] = 1
    code = np.where(first == 4, 9, 1).astype(np.uint8)
    code[2:5, 3:9] = 2
    code[0, 0] = 0
    names = ("first.tif", "last.tif", "change.tif")
    paths = [write(tmp_path / n, p) for n, p in zip(names, (first, last, code), strict=True)]
    return paths[0], paths[1], paths[2]


def test_change_picture_shows_the_maps(maps: tuple[Path, Path, Path]) -> None:
    """Each pixel of the change map is a square; the small maps stand first above last."""
    first, last, change = maps
    png = change_picture(first, last, change, COLORS, CHANGES)
    large, small = panels_of(*size_of(png))
    times = 1400 // 29
    assert (large.height, large.width) == (11 * times, 29 * times)
    picture = decode(png)
    pixel = picture[:, times // 2 : large.height : times, times // 2 : large.width : times]
    with rasterio.open(change) as file:
        codes = file.read(1)
    table = {**CHANGES, 0: (BACKGROUND,) * 3}
    expected = np.array([[table[int(code)] for code in row] for row in codes])
    np.testing.assert_array_equal(np.moveaxis(pixel, 0, -1), expected)
    # of the changed field the first map has water, the last forest
    x = small.left + round(small.width * 6 / 29)
    y = round(small.height * 3.5 / 11)
    assert tuple(picture[:, y, x]) == COLORS[0]
    assert tuple(picture[:, size_of(png)[0] - small.height + y, x]) == COLORS[1]
    assert tuple(picture[:, y, large.width + GAP // 2]) == (255, 255, 255)
    assert float(note(png, "metres")) == pytest.approx(29 * 30, rel=1e-3)


def test_picture_without_crs_has_no_scale(tmp_path: Path) -> None:
    """Nor does degenerate georeferencing raise or warn."""
    paths = [tmp_path / f"{i}.tif" for i in range(3)]
    for path in paths:
        write(path, np.ones((5, 3), dtype=np.uint8), crs=None)
    png = change_picture(paths[0], paths[1], paths[2], COLORS, CHANGES)
    assert note(png, "metres") == ""


@pytest.mark.parametrize(
    ("crs", "origin", "size", "metres"),
    [
        ("EPSG:4326", (-180.0, 90.0), (18, 36), 40_075_017),
        ("EPSG:3857", (0.0, 8_399_738.0), (2, 4), 20),
    ],
)
def test_scale_is_that_of_the_ground(
    tmp_path: Path, crs: str, origin: tuple[float, float], size: tuple[int, int], metres: float
) -> None:
    """The whole globe is as wide as the equator is long; EPSG:3857 at 60 degrees half as wide."""
    path = tmp_path / "map.tif"
    step = 10.0
    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", **profile, crs=crs, transform=Affine(step, 0, origin[0], 0, -step, origin[1])
    ) as file:
        file.write(np.ones(size, dtype=np.uint8), 1)
    png = change_picture(path, path, path, COLORS, CHANGES)
    assert float(note(png, "metres")) == pytest.approx(metres, rel=5e-3)


@pytest.mark.parametrize("height", [1, 17, 18, 700, 753, 1400])
def test_panels_are_found_again(height: int) -> None:
    """From the size of the picture alone, to a pixel."""
    for width in (1, 2, 39, 40, 733, 1400):
        small = change_panels(height, width)[1]
        found = panels_of(height, small.left + small.width)
        assert abs(found[0].width - width) <= 1
        assert abs(found[1].left - small.left) <= 1


@pytest.mark.parametrize("count", [1, 5, 8, 13, 30])
def test_multiples_hold_every_date_in_order(tmp_path: Path, count: int) -> None:
    """Read row by row; of more than 24, the first and the last are among those shown."""
    paths, captions = [], [f"2{i:03}-01-01" for i in range(count)]
    for index in range(count):
        pixels = np.full((7, 5), index, dtype=np.uint8)
        pixels[-1, -1] = 255
        paths.append(write(tmp_path / f"{index}.tif", pixels))
    palette = {i: (8 * i, 255 - i, 7) for i in range(count)}
    png = multiples(paths, captions, palette)
    shown = note(png, "captions").split("\n")
    assert len(shown) == min(count, MOST_PANELS)
    assert (shown[0], shown[-1]) == (captions[0], captions[-1])
    assert shown == sorted(set(shown))
    picture = decode(png)
    across = columns(len(shown))
    down = -(-len(shown) // across)
    height, width = size_of(png)
    cell = ((height + GAP) // down - GAP, (width + GAP) // across - GAP)
    for place, caption in enumerate(shown):
        panel = multiple(place, across, cell)
        at = picture[:, panel.top + 2, panel.left + 2]
        assert tuple(at) == palette[captions.index(caption)]
        corner = picture[:, panel.top + panel.height - 1, panel.left + panel.width - 1]
        assert tuple(corner) == (BACKGROUND,) * 3


def test_multiples_need_a_caption_each(tmp_path: Path) -> None:
    """Said before anything is read."""
    with pytest.raises(ValueError, match="got 1 and 2"):
        multiples([tmp_path / "missing.tif"], ["a", "b"], {})
    with pytest.raises(ValueError, match="got 0 and 0"):
        multiples([], [], {})


def test_large_maps_are_shrunk(tmp_path: Path) -> None:
    """A picture has a bounded size, whatever the map's."""
    tall = write(tmp_path / "tall.tif", np.ones((3001, 211), dtype=np.uint8))
    png = change_picture(tall, tall, tall, COLORS, CHANGES)
    assert size_of(png) == (1400, 98 + GAP + 48)
    assert max(size_of(multiples([tall] * 4, "abcd", COLORS))) < 2100


def test_notes_travel_with_a_picture() -> None:
    """A note is read back, in any script; the pixels stay; another keyword has none."""
    plain = png_bytes(np.arange(36, dtype=np.uint8).reshape(3, 3, 4))
    noted = with_note(with_note(plain, "a", "día 1\n2"), "b", "x")
    assert note(noted, "a") == "día 1\n2"
    assert note(noted, "b") == "x"
    assert note(noted, "c") == note(plain, "a") == note(b"", "a") == ""
    np.testing.assert_array_equal(decode(noted), decode(plain))
