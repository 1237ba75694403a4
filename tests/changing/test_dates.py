"""Dates of a series: their day, their classes, their grid."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.changing.dates import check_comparable, gather_reader, is_run, open_date, parse_day
from tilemap.changing.geobox import choose_geobox
from tilemap.errors import SceneError, SceneMismatchError, UsageError
from tilemap.geometry import Window
from tilemap.models.card import ClassInfo
from tilemap.probability import VALUES, quantise, shares
from tilemap.stages.gather import from_labels, to_quantised
from tilemap.stores.masks import Rule
from tilemap.testing import write_geotiff

from .conftest import AFFINE, MakeRun, soften

SHAPE = (61, 90)
LABELS = np.random.default_rng(3).integers(0, 4, SHAPE).astype(np.uint8)


def _geobox(top: float, left: float, rows: int, cols: int, size: float = 10) -> GeoBox:
    return GeoBox((rows, cols), Affine(size, 0, 5e5 + left, 0, -size, 9e6 - top), "EPSG:32718")


@pytest.mark.parametrize(
    ("name", "day", "want"),
    [
        ("a", "2015-03-04", "2015-03-04"),
        ("S2_20190710_T18", None, "2019-07-10"),
        ("1985", None, "1985-07-01"),
        ("lima_1990_clear", None, "1990-07-01"),
    ],
)
def test_a_day_is_found(
    tmp_path: Path, make_run: MakeRun, name: str, day: str | None, want: str
) -> None:
    """In the run, else in the name; a bare year is said to be one."""
    run = make_run(tmp_path / name, soften(LABELS, 4), day)
    assert is_run(run)
    found = open_date(run)
    assert found.day.isoformat() == want
    assert any("only the year" in note for note in found.notes) == want.endswith("07-01")
    assert open_date(run, "2001-02-03").day == datetime.date(2001, 2, 3)


def test_no_day_no_date(tmp_path: Path, make_run: MakeRun) -> None:
    """Asks for --dates; a day that is none is refused."""
    run = make_run(tmp_path / "town", soften(LABELS, 4), None)
    with pytest.raises(SceneError, match="`dates`"):
        open_date(run)
    with pytest.raises(UsageError, match="must look like"):
        parse_day("1 July")


def test_what_is_no_finished_run(tmp_path: Path) -> None:
    """An empty folder; a run that has only begun."""
    assert not is_run(tmp_path)
    (tmp_path / "stores").mkdir()
    assert is_run(tmp_path)
    with pytest.raises(SceneError, match="must be a finished run"):
        open_date(tmp_path)


def test_each_kind_of_what_is_no_date_is_told_apart(tmp_path: Path) -> None:
    """No run, one that has only begun, and a run of something else."""
    for name, told in (("none", "has no run.json"), ("begun", "run the same command again")):
        place = tmp_path / name
        place.mkdir()
        if name == "begun":
            (place / "stores").mkdir()
        with pytest.raises(SceneError, match=told):
            open_date(place)
    (tmp_path / "none" / "run.json").write_text('{"identity": {"kind": "change"}}')
    with pytest.raises(SceneError, match="is of something else"):
        open_date(tmp_path / "none")


def test_a_whole_day_in_any_name_goes_before_a_year(tmp_path: Path, make_run: MakeRun) -> None:
    """The directory tells the day, the scene the year alone; without a note."""
    run = make_run(tmp_path / "2019-07-10", soften(LABELS, 4), None)
    record = json.loads((run / "run.json").read_text())
    record["scene"]["name"] = "scene_2019"
    (run / "run.json").write_text(json.dumps(record))
    found = open_date(run)
    assert found.day == datetime.date(2019, 7, 10)
    assert found.notes == ()


def test_a_partial_run_is_a_date_and_is_told(tmp_path: Path, make_run: MakeRun) -> None:
    """What it lacks was not observed."""
    run = make_run(tmp_path / "y2000", soften(LABELS, 4), "2000-01-01")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "partial"}))
    found = open_date(run)
    assert "partial" in found.notes[0]
    assert not found.hard


def test_a_store_of_another_run(tmp_path: Path, make_run: MakeRun) -> None:
    """Probabilities that do not belong to the record beside them are refused."""
    run = make_run(tmp_path / "y2000", soften(LABELS, 4), None)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "digest": "other"}))
    with pytest.raises(SceneError, match="it is of another one"):
        open_date(run)


def test_classes_and_models_must_agree() -> None:
    """Both lists are named; models may differ if that is wanted, classes may not."""
    kinds = [ClassInfo(value=1, name="water", color="#0000ff"),
             ClassInfo(value=2, name="land", color="#00ff00")]  # fmt: skip
    other = [kinds[0], ClassInfo(value=2, name="town", color="#00ff00")]
    check_comparable([("a", kinds, "1"), ("b", kinds, "1")], False)
    with pytest.raises(SceneMismatchError, match=r"1 water, 2 land; b has 1 water, 2 town"):
        check_comparable([("a", kinds, "1"), ("b", other, "1")], True)
    with pytest.raises(SceneMismatchError, match="`allow_model_mismatch`"):
        check_comparable([("a", kinds, "1"), ("b", kinds, "2")], False)
    check_comparable([("a", kinds, "1"), ("b", kinds, "2")], True)


def test_the_grid_of_the_first_date() -> None:
    """Snapped to its pixels: what all cover, or what any does."""
    dates = [("a", _geobox(0, 0, 61, 90)), ("b", _geobox(103, -200, 80, 90))]
    both = choose_geobox(dates)
    assert both == _geobox(100, 0, 51, 70)
    union = choose_geobox(dates, extent="union")
    assert union == _geobox(0, -200, 91, 110)
    assert choose_geobox(dates[:1], resolution=20) == _geobox(0, 0, 31, 45, 20)
    same = [("a", _geobox(0, 0, 61, 90)), ("b", _geobox(0, 0, 61, 90))]
    assert choose_geobox(same, extent="union") == same[0][1]


def test_dates_far_apart_are_named() -> None:
    """Both bounding boxes stand in the error; also where a third date empties the rest."""
    a, b, c = _geobox(0, 0, 61, 90), _geobox(0, 5000, 61, 90), _geobox(0, 600, 61, 90)
    with pytest.raises(SceneMismatchError, match=r"x 500000 to 500900.*x 505000 to 505900"):
        choose_geobox([("a", b), ("b", a)])
    left = _geobox(0, -700, 61, 90)
    with pytest.raises(SceneMismatchError, match="some ground in common"):
        choose_geobox([("a", a), ("b", c), ("c", left)])


def test_pixels_that_are_the_same_but_for_rounding_take_no_further_row() -> None:
    """A border on a pixel's edge, to 1e-9 of a pixel, is on it."""
    first = _geobox(0, 0, 61, 90)
    noise = [_geobox(100 + side, -30 + side, 61, 90) for side in (-1e-8, 1e-8)]
    for one in noise:
        assert choose_geobox([("a", first), ("b", one)]) == _geobox(100, 0, 51, 87)
        assert choose_geobox([("a", first), ("b", one)], extent="union") == _geobox(0, -30, 71, 93)


def test_dates_of_two_systems() -> None:
    """Degrees and metres meet on the pixels of the first; one without a CRS meets none."""
    first = _geobox(0, 0, 61, 90)
    degrees = GeoBox((30, 100), Affine(1e-4, 0, -75.001, 0, -1e-4, -9.0465), "EPSG:4326")
    both = choose_geobox([("a", first), ("b", degrees)])
    assert str(both.crs) == str(first.crs)
    rows, cols = (int(side) for side in both.shape)
    assert 30 <= rows <= 36
    assert cols == 90
    for offset in ((both.affine.c - 5e5) / 10, (9e6 - both.affine.f) / 10):
        assert float(offset).is_integer()
    world = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert choose_geobox([("a", first), ("b", world)]) == first
    bare = GeoBox((61, 90), first.affine, None)
    for dates in ([("a", first), ("b", bare)], [("b", bare), ("a", first)]):
        with pytest.raises(SceneMismatchError, match="b has none, a has one"):
            choose_geobox(dates)


def test_the_grid_of_a_raster(tmp_path: Path) -> None:
    """Taken as it is; every date must meet it."""
    path = write_geotiff(
        tmp_path / "like.tif", np.zeros((1, 11, 13), np.uint8), crs="EPSG:32718",
        transform=Affine(25, 0, 5e5 + 33, 0, -25, 9e6 - 7),
    )  # fmt: skip
    like = GeoBox((11, 13), Affine(25, 0, 5e5 + 33, 0, -25, 9e6 - 7), "EPSG:32718")
    near, far = ("a", _geobox(0, 0, 61, 90)), ("far", _geobox(0, 5000, 61, 90))
    assert choose_geobox([near], like=path) == like
    with pytest.raises(SceneMismatchError, match=r"far covers x 505000.*like.tif covers x 500033"):
        choose_geobox([near, far], like=path)


def test_the_same_grid_is_copied_to_the_bit(tmp_path: Path, make_run: MakeRun) -> None:
    """Also a part of it, and 255 where the date does not reach."""
    labels = LABELS.copy()
    labels[5:9, 60:] = 255
    run = make_run(tmp_path / "y2000", soften(labels, 4, 0.83), None)
    found = open_date(run)
    reader = gather_reader(found, _geobox(100, 50, 60, 100))
    got = reader.read(Window(0, 0, 60, 100))
    want = np.full((4, 60, 100), 255, np.uint8)
    whole = quantise(np.nan_to_num(soften(labels, 4, 0.83)))
    whole[:, labels == 255] = 255
    want[:, :51, :85] = whole[:, 10:, 5:]
    assert np.array_equal(got, want)
    assert np.array_equal(reader.read(Window(7, 3, 40, 91)), want[:, 7:40, 3:91])


@pytest.mark.parametrize("size", [7.0, 25.0])
def test_another_grid_is_interpolated(tmp_path: Path, make_run: MakeRun, size: float) -> None:
    """Finer or coarser: sums to 1, whatever the cut; between two probabilities near by."""
    run = make_run(tmp_path / "y2000", soften(LABELS, 4, 0.7), None)
    rows, cols = int(600 / size), int(880 / size)
    reader = gather_reader(open_date(run), _geobox(3, 4, rows, cols, size))
    got = reader.read(Window(0, 0, rows, cols))
    assert (got != 255).all()
    least, most = quantise(np.array([0.1, 0.7])).astype(int)
    assert least - 1 <= got.min() <= got.max() <= most + 1
    assert np.abs(VALUES[got].sum(axis=0) - 1).max() <= 0.02
    part = Window(rows // 3, 2, rows - 1, cols // 2)
    assert np.array_equal(reader.read(part), got[:, *part.slices()])


def test_labels_alone_are_certain(tmp_path: Path, make_run: MakeRun) -> None:
    """Nearest on any grid; what is no class is an error."""
    run = make_run(tmp_path / "y2000", soften(LABELS, 4), None)
    shutil.rmtree(run / "probabilities.zarr")
    write_geotiff(
        run / "landcover.tif", LABELS[None] + np.uint8(10), crs="EPSG:32718", transform=AFFINE,
        nodata=255,
    )  # fmt: skip
    found = open_date(run)
    assert found.hard
    assert any("labels only" in note for note in found.notes)
    got = gather_reader(found, _geobox(0, 0, 122, 180, 5)).read(Window(0, 0, 122, 180))
    assert np.array_equal(got, from_labels(LABELS.repeat(2, 0).repeat(2, 1), 4))
    write_geotiff(run / "landcover.tif", LABELS[None], crs="EPSG:32718", transform=AFFINE)
    with pytest.raises(SceneError, match="must hold the classes 10, 11, 12, 13"):
        gather_reader(found, _geobox(0, 0, 61, 90)).read(Window(0, 0, 61, 90))


def test_clouds_are_not_observed(tmp_path: Path, make_run: MakeRun) -> None:
    """By a mask on another grid; where the mask says nothing it is not known either."""
    run = make_run(tmp_path / "y2000", soften(LABELS, 4), None)
    mask = np.full((30, 45), 4, np.uint8)
    mask[10:15, 20:30] = 9
    mask[0, 0] = 0
    place = Affine(20, 0, AFFINE.c, 0, -20, AFFINE.f)
    path = write_geotiff(
        tmp_path / "scl.tif", mask[None], crs="EPSG:32718", transform=place, nodata=0
    )
    reader = gather_reader(open_date(run), _geobox(0, 0, 61, 90), path, Rule.parse("scl"))
    hidden = reader.read(Window(0, 0, 61, 90))[0] == 255
    want = np.zeros(SHAPE, bool)
    want[20:30, 40:60] = want[0:2, 0:2] = want[60] = True
    assert np.array_equal(hidden, want)


def test_a_mask_of_another_product_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    """Before the run, with the name of the file, wherever in it the numbers are."""
    found = open_date(make_run(tmp_path / "y2000", soften(LABELS, 4), None))
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, -1, -1] = 66
    path = write_geotiff(tmp_path / "Fmask.tif", mask, crs="EPSG:32718", transform=AFFINE)
    with pytest.raises(
        SceneError, match=r"Fmask\.tif: a mask of the rule fmask.*got 66.*hls-fmask"
    ):
        gather_reader(found, _geobox(0, 0, 61, 90), path, Rule.parse("fmask"))
    gather_reader(found, _geobox(0, 0, 61, 90), path, Rule.parse("hls-fmask"))


@pytest.mark.parametrize("band", ["2", "cloud", "Cloud"])
def test_the_band_of_a_mask_is_named(tmp_path: Path, make_run: MakeRun, band: str) -> None:
    """By its number or its description; the others hide nothing."""
    found = open_date(make_run(tmp_path / "y2000", soften(LABELS, 4), None))
    planes = np.zeros((3, *SHAPE), np.uint8)
    planes[1, 5:9] = planes[0, 20:] = 1
    path = write_geotiff(
        tmp_path / "m.tif", planes, crs="EPSG:32718", transform=AFFINE,
        names=("snow", "cloud", "shadow"),
    )  # fmt: skip
    reader = gather_reader(found, found.geobox, f"{path}:{band}", Rule.parse("values:1"))
    hidden = reader.read(Window(0, 0, *SHAPE))[0] == 255
    assert np.array_equal(hidden, planes[1] == 1)


@pytest.mark.parametrize(
    ("band", "why"), [("", "has 3;"), (":4", "has no band '4'"), (":haze", "has no band 'haze'")]
)
def test_a_mask_of_several_bands_says_which(
    tmp_path: Path, make_run: MakeRun, band: str, why: str
) -> None:
    """Of several bands none is guessed; the error lists them."""
    found = open_date(make_run(tmp_path / "y2000", soften(LABELS, 4), None))
    planes = np.zeros((3, *SHAPE), np.uint8)
    path = write_geotiff(
        tmp_path / "m.tif", planes, crs="EPSG:32718", transform=AFFINE, names=("snow", "", "cloud")
    )
    with pytest.raises(
        SceneError, match=r"must be one band.*1 .snow., 2 .band 2., 3 .cloud."
    ) as no:
        gather_reader(found, found.geobox, f"{path}{band}", Rule.parse("values:1"))
    assert why in str(no.value)


def test_a_colon_may_belong_to_the_name_of_a_mask(tmp_path: Path, make_run: MakeRun) -> None:
    """Where such a file exists, it is meant."""
    found = open_date(make_run(tmp_path / "y2000", soften(LABELS, 4), None))
    path = write_geotiff(
        tmp_path / "m.tif:1", np.ones((1, *SHAPE), np.uint8), crs="EPSG:32718", transform=AFFINE
    )
    reader = gather_reader(found, found.geobox, path, Rule.parse("values:1"))
    assert (reader.read(Window(0, 0, *SHAPE)) == 255).all()


def test_a_mask_that_cannot_be_one_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    """Numbers with a fraction; another place. Before anything is read of the date."""
    found = open_date(make_run(tmp_path / "y2000", soften(LABELS, 4), None))
    rule, where = Rule.parse("scl"), {"crs": "EPSG:32718", "transform": AFFINE}
    path = write_geotiff(tmp_path / "f.tif", np.zeros((1, 61, 90), np.float32), **where)  # type: ignore[arg-type]
    with pytest.raises(SceneError, match=r"must hold whole numbers, .*float32"):
        gather_reader(found, found.geobox, path, rule)
    path = write_geotiff(
        tmp_path / "m.tif", np.zeros((1, 61, 90), np.uint8), crs="EPSG:32718",
        transform=Affine(10, 0, 5.2e5, 0, -10, 9e6),
    )  # fmt: skip
    with pytest.raises(SceneMismatchError, match=r"m.tif covers x 520000.*the series covers x 500"):
        gather_reader(found, found.geobox, path, rule)


def test_quantised_there_and_back() -> None:
    """Sums to 1 after reading; nothing observed stays so."""
    quantised = quantise(np.array([[[0.8, 0]], [[0.2, 0]]]))
    quantised[:, 0, 1] = 255
    probability = shares(quantised)
    assert probability[:, 0, 0].sum() == pytest.approx(1)
    assert not probability[:, 0, 1].any()
    again = to_quantised(probability, quantised[0] != 255)
    assert again[:, 0, 1].tolist() == [255, 255]
    assert again[:, 0, 0].tolist() == quantised[:, 0, 0].tolist()


def test_dates_across_the_date_line_share_their_ground() -> None:
    """Degrees as 180.01 or as -179.99, and a zone of UTM: the same intersection."""
    beyond = GeoBox((80, 100), Affine(1e-3, 0, 179.95, 0, -1e-3, -16.5), "EPSG:4326")
    before = GeoBox((80, 100), Affine(1e-3, 0, -180.03, 0, -1e-3, -16.5), "EPSG:4326")
    zone = GeoBox((80, 90), Affine(100, 0, 177_000, 0, -100, 8_173_000), "EPSG:32701")
    both = choose_geobox([("beyond", beyond), ("before", before)])
    assert both == GeoBox((80, 80), Affine(1e-3, 0, 179.97, 0, -1e-3, -16.5), "EPSG:4326")
    other = choose_geobox([("before", before), ("beyond", beyond)])
    assert other == GeoBox((80, 80), before.affine, "EPSG:4326")
    shapes = [choose_geobox([("d", one), ("z", zone)]).shape for one in (beyond, before)]
    whole = [choose_geobox([("d", one), ("z", zone)], extent="union").shape for one in
             (beyond, before)]  # fmt: skip
    assert min(shapes[0]) > 60
    assert max(map(max, whole)) < 200  # and not once around the earth
