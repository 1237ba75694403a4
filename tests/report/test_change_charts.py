"""Charts of a change: their geometry is that of the figures."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tilemap.report.change_charts import (
    CHANGE,
    day_names,
    intervals,
    likelihood,
    stacked,
    target,
    trend,
    verdict_color,
)
from tilemap.report.change_flows import Turnover, sankey
from tilemap.report.change_tables import by_class, largest, transitions
from tilemap.report.drawing import amount, apart, relative, short, signed

NASTY = "a <b>\"&' name"
DAYS = ("2000-01-01", "2001-01-01", "2005-01-01", "2006-01-01")
FLOW = Turnover(
    ("water", NASTY, "city"),
    ("#0000aa", "#00aa00", "#aa0000"),
    ((40.0, 10.0, 0.0), (5.0, 400.0, 25.0), (0.0, 0.0, 20.0)),
)


def test_turnover() -> None:
    """Sums of rows, of columns, of what is off the diagonal; the largest change comes first."""
    assert FLOW.before == [50.0, 430.0, 20.0]
    assert FLOW.after == [45.0, 410.0, 45.0]
    assert FLOW.lost == [10.0, 30.0, 0.0]
    assert FLOW.gained == [5.0, 10.0, 25.0]
    assert (FLOW.total, FLOW.changed) == (500.0, 40.0)
    assert FLOW.largest == [(1, 2, 25.0), (0, 1, 10.0), (1, 0, 5.0)]
    assert FLOW.known
    assert not Turnover("a", ["#000000"], ((math.nan,),)).known


def bands(chart: ET.Element) -> list[tuple[str, float, float, float, bool]]:
    """Of each flow: its colour, its top at both ends, its height, and whether it is pale."""
    found = []
    for path in chart.iter("path"):
        left, right, low = (
            float(n)
            for n in re.match(
                r"M\d+,([\d.]+)C.* \d+,([\d.]+)V([\d.]+)C", path.get("d", "")
            ).groups()  # type: ignore[union-attr]
        )
        found.append(
            (path.get("fill", ""), left, right, low - right, path.get("fill-opacity") == ".16")
        )
    return found


def test_bands_are_as_thick_as_their_areas() -> None:
    """One for each area that is not 0, in the colour it came to; those that stayed come first."""
    chart = ET.fromstring(sankey(("1985", "2020"), FLOW))
    found = bands(chart)
    assert [band[0] for band in found] == [
        "#0000aa", "#00aa00", "#aa0000", "#00aa00", "#0000aa", "#aa0000",
    ]  # fmt: skip
    assert [band[4] for band in found] == [True] * 3 + [False] * 3
    scale = found[1][3] / 400
    for (_, _, _, tall, _), area in zip(found, (40, 400, 20, 10, 5, 25), strict=True):
        assert tall == pytest.approx(area * scale, abs=0.02)
    words = [text.text for text in chart.iter("text")]
    assert "1985" in words
    assert "45 ha, 9.0 % (+125 %)" in words
    assert "410 ha, 82.0 % (\u22124.7 %)" in words


def test_bands_leave_no_gap_at_a_class() -> None:
    """What leaves a class fills its box on the left, what arrives fills it on the right."""
    chart = ET.fromstring(sankey(("1985", "2020"), FLOW))
    found = bands(chart)
    boxes = [(float(r.get("y", 0)), float(r.get("height", 0))) for r in chart.iter("rect")]
    for side, (y, tall) in enumerate((boxes[1], boxes[4])):
        tops = [right if side else left for _, left, right, _, _ in found]
        members = (1, 4, 5) if side == 0 else (1, 3)
        inside = sorted((tops[i], found[i][3]) for i in members)
        assert inside[0][0] == pytest.approx(y, abs=0.06)
        for (top, thick), (after, _) in pairwise(inside):
            assert top + thick == pytest.approx(after, abs=0.03)
        assert sum(inside[-1]) == pytest.approx(y + tall, abs=0.12)


def test_nothing_flows_where_nothing_was_observed() -> None:
    """A chart of no area is no chart; a class that never occurs has no box."""
    assert sankey(("a", "b"), Turnover("xy", ("#000000",) * 2, ((0.0, 0.0),) * 2)) == ""
    alone = Turnover("xy", ("#000000",) * 2, ((3.0, 0.0), (0.0, 0.0)))
    assert len(list(ET.fromstring(sankey(("a", "b"), alone)).iter("rect"))) == 2


@given(
    st.lists(st.floats(0, 500), min_size=1, max_size=12).map(sorted),
    st.floats(1, 60),
)
def test_apart(wanted: list[float], least: float) -> None:
    """Labels keep their order and their distance, below the top; those with room stay put."""
    placed = apart(wanted, least, 0)
    assert len(placed) == len(wanted)
    assert placed[0] >= 0
    for one, other in pairwise(placed):
        assert other - one >= least - 1e-6
    if all(b - a >= least for a, b in pairwise(wanted)):
        assert placed == pytest.approx(wanted)


def test_columns_have_the_area_that_changed() -> None:
    """Width times height is the same per hectare, whatever the length of the interval."""
    chart = ET.fromstring(intervals(DAYS, (100.0, 300.0, 50.0), "ha"))
    columns = list(chart.iter("rect"))
    per = [
        (float(c.get("width", 0)) + 2) * float(c.get("height", 0)) / area
        for c, area in zip(columns, (100, 300, 50), strict=True)
    ]
    assert per[1] == pytest.approx(per[0], rel=0.01)
    assert per[2] == pytest.approx(per[0], rel=0.01)
    assert [c.get("stroke-dasharray") for c in columns] == [None, None, "4 3"]
    assert columns[1][0].text == "2001-01-01 to 2005-01-01: 300 ha, 75 ha a year"


def test_classes_are_stacked_in_time() -> None:
    """The first class lies at the bottom; dates stand at their true distances."""
    areas = ((1.0, 3.0), (2.0, 2.0), (4.0, 0.0), (1.0, 1.0))
    chart = ET.fromstring(stacked(DAYS, ("a", NASTY), ("#111111", "#222222"), areas, "ha"))
    low, high = (
        [tuple(map(float, p.split(","))) for p in shape.get("points", "").split()]
        for shape in chart.iter("polygon")
    )
    xs = [x for x, _ in low[:4]]
    assert (xs[1] - xs[0]) / (xs[3] - xs[0]) == pytest.approx(366 / 2192, abs=2e-3)
    base, top = low[4][1], min(y for _, y in high)
    assert [(base - y) / (base - top) for _, y in low[:4]] == pytest.approx([0.25, 0.5, 1, 0.25])
    assert high[4:] == low[:4][::-1]


def test_charts_without_figures_are_no_charts() -> None:
    """Neither one date, nor no area, nor no pixel is drawn."""
    assert intervals(DAYS, (0.0, 0.0, 0.0), "ha") == ""
    assert stacked(DAYS[:1], ("a",), ("#111111",), ((1.0,),), "ha") == ""
    assert stacked(DAYS[:2], ("a",), ("#111111",), ((0.0,), (0.0,)), "ha") == ""
    assert likelihood([0] * 101) == ""
    assert trend((1.0,), DAYS[:1], "#111111", "x") == ""


@pytest.mark.parametrize(("most", "cut"), [(900, True), (25, False)])
def test_a_column_above_all_others_is_cut(most: int, cut: bool) -> None:
    """And only then; the others stand in proportion, and those above 50 % are change."""
    counts = [0] * 101
    counts[0], counts[33], counts[77] = most, 10, 20
    chart = ET.fromstring(likelihood(counts))
    assert (chart.find("path") is not None) is cut
    columns = list(chart.iter("rect"))
    heights = [float(c.get("height", 0)) for c in columns]
    assert heights[15] == pytest.approx(2 * heights[6], abs=0.11)
    assert heights[0] == max(heights) == 158
    assert [c.get("fill") == CHANGE for c in columns] == [i >= 10 for i in range(20)]


def test_target_shows_rows_downwards() -> None:
    """A date that lies further down and to the right is drawn there; unmeasured ones are not."""
    rows: list[dict[str, Any]] = [
        {"date": NASTY, "row": 0.3, "col": 0.45, "verdict": "shift"},
        {"date": "b", "row": None, "col": None, "verdict": "unknown"},
        {"date": "c", "row": -0.1, "col": 0.0, "verdict": "ok"},
    ]
    chart = ET.fromstring(target(rows))
    rings: list[ET.Element] = []
    points: list[ET.Element] = []
    for circle in chart.iter("circle"):
        (points if circle.get("r") == "4.5" else rings).append(circle)
    assert [float(p.get("cx", 0)) > 150 for p in points] == [True, False]
    assert [float(p.get("cy", 0)) > 150 for p in points] == [True, False]
    assert [p.get("fill") for p in points] == [verdict_color("shift"), verdict_color("ok")]
    scale = float(rings[1].get("r", 0)) / 0.2
    assert float(rings[0].get("r", 0)) == pytest.approx(0.5 * scale, rel=1e-2)
    assert float(points[0].get("cx", 0)) - 150 == pytest.approx(0.45 * scale, rel=1e-2)


@given(
    st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=5),
    st.sampled_from(["ha", "pixels"]),
)
def test_every_chart_and_table_is_well_formed(values: list[float], unit: str) -> None:
    """Whatever the figures, each is XML by itself, and no name becomes markup."""
    count = len(values)
    matrix = [[a * b / 1e6 for b in values] for a in values]
    flow = Turnover([NASTY] * count, ["#123456"] * count, matrix, unit)
    days = [f"{2000 + i}-01-01" for i in range(count)]
    for chart in (
        sankey((days[0], days[-1]), flow),
        stacked(days, flow.names, flow.colors, matrix, unit),
        intervals(days, values[1:], unit),
        trend(values, days, "#123456", NASTY),
        largest(flow),
        by_class(flow, days, matrix),
        transitions(flow, days[0], days[-1]),
    ):
        ET.fromstring(chart)
        assert "nan" not in chart
        assert "<b>" not in chart


def test_tables_tell_every_area() -> None:
    """Rows add up to the first date, columns to the last; what a class lost and gained is there."""
    rows = ET.fromstring(transitions(FLOW, "1985", "2020")).iter("tr")
    cells = [[" ".join(cell.itertext()).strip() for cell in row] for row in rows]
    assert cells[1] == ["water", "40", "10", "\u00b7", "50"]
    assert cells[-1] == ["sum 2020", "45", "410", "45", "500"]
    table = ET.fromstring(by_class(FLOW, ("1985-01-01", "2020-01-01"), ()))
    city = ["".join(cell.itertext()) for cell in list(table.iter("tr"))[3]]
    assert city == ["city", "20", "0", "25", "45", "+25", "+125 %"]
    first = ["".join(cell.itertext()) for cell in list(ET.fromstring(largest(FLOW)).iter("tr"))[1]]
    assert first == [NASTY, "\u2192", "city", "", "25", "62.5 %"]


def test_nine_changes_are_nine_rows() -> None:
    """No "1 other kind" stands where the ninth would have fitted; of more the rest is added up."""
    for count, rows in ((9, 9), (10, 9)):
        matrix = [[0.0, *(float(k) for k in range(1, count + 1))]]
        matrix += [[0.0] * (count + 1)] * count
        flow = Turnover([f"c{k}" for k in range(count + 1)], ["#123456"] * (count + 1), matrix)
        lines = list(ET.fromstring(largest(flow)).iter("tr"))[1:]
        assert len(lines) == rows
        assert ("other" in "".join(lines[-1].itertext())) is (count == 10)


def test_class_that_came_up() -> None:
    """Its growth is no number."""
    flow = Turnover("ab", ("#111111", "#222222"), ((1.0, 2.0), (0.0, 0.0)))
    text = "".join(ET.fromstring(by_class(flow, (), ())).itertext())
    assert "new" in text
    assert "inf" not in text


@given(st.floats(1e-4, 1e12))
def test_amount_keeps_three_digits(value: float) -> None:
    """Within half a percent, without an exponent."""
    told = amount(value)
    assert "e" not in told
    assert float(told.replace(",", "")) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("share", "told"),
    [(-1.0, "\u2212100 %"), (-0.9999, "< \u221299.9 %"), (0.0996, "+10 %"), (1e-9, "0 %")],
)
def test_relative(share: float, told: str) -> None:
    """What is left of a class is never called nothing."""
    assert relative(share) == told


def test_words() -> None:
    """Signs, short names, days as short as they stay apart."""
    assert (signed(-0.5), signed(2.0), amount(0.00001)) == ("\u22120.5", "+2", "< 0.0001")
    assert short("abcdef", 4) == "abc\u2026"
    assert day_names(("2019-06-01", "2019-06-11")) == ["2019-06-01", "2019-06-11"]


@given(st.lists(st.dates(), min_size=2, max_size=9, unique=True).map(sorted))
def test_days_stay_apart(days: list[object]) -> None:
    """However they are shortened."""
    isos = [str(day) for day in days]
    assume(len(set(isos)) == len(isos))
    assert len(set(day_names(isos))) == len(isos)
