"""The report: whole, self-contained, and nothing in it can break the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.report.charts import (
    BoxRow,
    bars,
    binned,
    boxes,
    histogram,
    percent,
    percentile,
    ticks,
)
from tilemap.report.html import ReportData, Throughput, render, write_report
from tilemap.report.quicklook import png_bytes
from tilemap.stores.maps import Seam
from tilemap.stores.sidecars import ClassRow

VOID = {"meta", "img", "br"}
EVIL = "<script>alert('x')</script> & \"quotes\""

CLASSES = (
    ClassRow(0, "shadow", (80, 80, 90), 0, 0.0, 0.0),
    ClassRow(1, "water", (0, 90, 200), 2_157_683, 215.9, 0.578),
    ClassRow(3, EVIL, (120, 160, 90), 1_569_781, 157.1, 0.422),
)
FULL = ReportData(
    title="virginia",
    subtitle="Land cover by toy",
    quicklook=png_bytes(np.zeros((3, 20, 56), dtype=np.uint8)),
    scene={"Size": "1,933 x 1,947 pixels", "CRS": EVIL},
    classes=CLASSES,
    area_note="True areas.",
    not_observed=0.008,
    confidence_histogram=[0] * 60 + [10] * 40 + [600],
    seam=Seam(1_234_567, 12, 0.0213),
    uncertainty={"entropy": [500] * 101, "margin": [5] * 10 + [10] * 91},
    domain=(
        {
            "model": "toy",
            "units": "reflectance",
            "bands": [
                {
                    "name": name,
                    "outside": outside,
                    "distance": 2.0,
                    "training": [0.01, 0.02, 0.1, 0.15, 0.2, 0.3, 0.4],
                    "scene": [0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 1.4],
                }
                for name, outside in (("nir", 0.47), (EVIL, 0.1))
            ],
        },
    ),
    throughput=Throughput(3_763_551, 75.4, 16, 2, resumed=3),
    stages={"tile": 1.2, "segment": 60.3, EVIL: 0.0},
    settings={"core": 512, "like": None, "bands": ("blue", "green"), "scale": 1e-4},
    model={"name": "toy", "metrics": {"agreement": 0.967}},
    versions={"tilemap": "0.1.0"},
    inputs=("/data/a.tif", EVIL),
    products=(("landcover.tif", 115_569, "ab" * 32),),
    warnings=("The scene declares no nodata.", EVIL),
    quarantined=("tile (3, 2): not finite",),
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
        if tag not in VOID:
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
    return " ".join(checker.text)


def test_full_report() -> None:
    """Every figure is there, in words for people."""
    text = check(render(FULL))
    for expected in (
        "virginia", "Land cover by toy", "1,933 x 1,947 pixels", "2,157,683", "215.9", "57.8 %",
        "True areas. 0.8 % of the scene was not observed.", "12 of 1,234,567 pixels", "0.00097 %",
        "0.0213", "3.8 million pixels in 1 min 15 s, 16 tiles on 2 workers, 3 were done before",
        "Median 50 %; 50.5 % of the pixels are at 50 % or above.", "5.2 % of the pixels are below",
        "Scene and training data", "Farthest out is nir: 47.0 % of its pixels",
        "nir, scene: median 0.6, 1-99 % 0.2 to 1.4",
        "blue, green", "none", "0.0001", "agreement 0.967", "/data/a.tif", "landcover.tif",
        "1 tile is missing from this map.", "tile (3, 2): not finite", EVIL,
    ):  # fmt: skip
        assert expected in text


def test_empty_report() -> None:
    """What is not known is left out."""
    text = check(render(ReportData("nothing")))
    assert "nothing" in text
    for absent in ("Area", "Confidence", "Seams", "Time", "What was run", "Entropy", "training"):
        assert absent not in text


def test_without_areas() -> None:
    """No CRS: pixels and shares only."""
    rows = tuple(replace(row, area_km2=None) for row in CLASSES)
    text = check(render(replace(FULL, classes=rows)))
    assert "Pixels by class" in text
    assert "km²" not in text


def test_one_tile_has_no_seams() -> None:
    """Nothing compared is not the same as nothing found."""
    assert "has no seams" in check(render(replace(FULL, seam=Seam(0, 0, 0.0))))
    assert "0 of 9 pixels" in check(render(replace(FULL, seam=Seam(9, 0, 0.0))))


def test_many_quarantined_tiles_are_cut_short() -> None:
    """The list ends, the count does not."""
    tiles = tuple(f"tile (0, {col})" for col in range(500))
    text = check(render(replace(FULL, quarantined=tiles)))
    assert "500 tiles are missing" in text
    assert "and 480 more" in text


@given(st.text(), st.text())
def test_any_text_is_only_text(name: str, value: str) -> None:
    """Names and settings of any kind do not become markup."""
    check(render(replace(FULL, title=name, settings={name: value}, warnings=(value,))))


def test_write_report(tmp_path: Path) -> None:
    """One file, UTF-8."""
    write_report(tmp_path / "report.html", FULL)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(FULL)


@pytest.mark.parametrize("size", [(1, 18), (2, 2016), (900, 36)])
def test_pictures_of_any_size_stay_on_the_page(size: tuple[int, int]) -> None:
    """A narrow scene does not become metres tall."""
    page = render(replace(FULL, quicklook=png_bytes(np.zeros((3, *size), dtype=np.uint8))))
    found = re.search(r"<img[^>]*max-width:(\d+)px", page)
    assert found is not None
    width = min(int(found.group(1)), 1064)
    assert width * size[0] / size[1] <= 740


def heights(svg: str) -> list[float]:
    """Of the columns of a chart."""
    rects = ET.fromstring(svg).iter("rect")
    return [float(rect.get("height", "nan")) for rect in rects]


def test_histogram_is_in_proportion() -> None:
    """Twenty columns; the last holds 95 to 100; heights follow counts."""
    counts = [0] * 101
    counts[50], counts[99], counts[100] = 100, 150, 50
    tall = heights(histogram(counts))
    assert len(tall) == 20
    assert tall[10] == pytest.approx(tall[19] / 2, abs=0.1)
    assert sum(height > 0 for height in tall) == 2


def test_boxes_stand_on_one_axis() -> None:
    """Twice as far is twice as far; what lies inside stays inside the picture."""
    rows = [
        BoxRow("nir", (0.0, 1.0, 2.0, 3.0, 4.0), False, "training"),
        BoxRow("", (4.0, 5.0, 6.0, 7.0, 8.0), True, "scene"),
    ]
    svg = ET.fromstring(boxes(rows, "Bands"))
    lines = [[float(line.get(k, "nan")) for k in ("x1", "x2")] for line in svg.iter("line")]
    marks = [line for line in lines if line[0] != line[1]]
    assert [b - a for a, b in marks] == pytest.approx([220, 220])
    assert marks[0][1] == marks[1][0]
    assert all(0 <= x <= 560 for line in lines for x in line)
    widths = [float(rect.get("width", "nan")) for rect in svg.iter("rect")]
    assert widths == pytest.approx([110, 110])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    """Two to six of them, evenly apart."""
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 7
    assert all(low - span / 100 <= value <= low + span * 1.01 for value in found)
    gaps = np.diff(found)
    assert gaps.size == 0 or np.allclose(gaps, gaps[0], rtol=1e-3)


def test_charts_of_nothing() -> None:
    """No division by zero."""
    assert heights(boxes([], "nothing")) == []
    assert heights(boxes([BoxRow("flat", (2.0,) * 5, True, "")], "flat")) == [12]
    assert ticks(float("nan"), 1) == []
    assert heights(histogram([0] * 101)) == [0] * 20
    assert heights(bars({}, "s")) == []
    assert len(heights(bars({"tile": 0.0}, "s"))) == 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=120), st.integers(1, 20))
def test_binned_keeps_the_sum(counts: list[int], width: int) -> None:
    """Nothing falls out at the end."""
    assert sum(binned(counts, width)) == sum(counts)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50).filter(any), st.floats(0.01, 1))
def test_percentile_equals_numpy(counts: list[int], share: float) -> None:
    """Of the values written out."""
    values = np.repeat(np.arange(len(counts)), counts)
    expected = np.quantile(values, share, method="inverted_cdf")
    assert percentile(counts, share) == expected


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1e-9, "< 0.0001 %"), (1e-5, "0.001 %"), (0.5, "50.0 %"), (1, "100 %")],
)
def test_percent(share: float, text: str) -> None:
    """Nothing rounds to 0 or to 100."""
    assert percent(share) == text
