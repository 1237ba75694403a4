"""A whole evaluation: the same figures however it is counted, and those of scikit-learn."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from odc.geo.geobox import GeoBox
from rasterio import Affine
from sklearn import metrics as sk

import tilemap
from tilemap.cluster import ClusterSettings
from tilemap.errors import (
    InputChangedError,
    OutputError,
    SceneError,
    SceneMismatchError,
    UsageError,
)
from tilemap.evaluation import counting
from tilemap.evaluation import evaluate as module
from tilemap.evaluation.boundary import Tolerance, boundary_counts, boundary_scores
from tilemap.evaluation.evaluate import count_map, evaluate_map
from tilemap.evaluation.metrics import IGNORE
from tilemap.evaluation.request import EvaluateSettings, pixel_sides_m, prepare
from tilemap.testing import write_geotiff


def asked(ground: Any, **options: Any) -> EvaluateSettings:
    """Everything at once: regions, confidence, a tolerance of some pixels."""
    values: dict[str, Any] = {
        "class_map": str(ground.map),
        "reference": str(ground.folder / "reference.tif"),
        "regions": str(ground.folder / "regions.geojson"),
        "region_column": "name",
        "tolerance": 2.5,
    }
    return EvaluateSettings(**(values | options))


@pytest.fixture
def figures(ground: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Counts in this process, however many tiles there are."""
    monkeypatch.setattr(module, "FEW", 10**9)

    def run(**options: Any) -> dict[str, Any]:
        return evaluate_map(asked(ground, **options), ClusterSettings()).figures

    return run


def test_figures_are_those_of_the_whole_map(ground: Any, figures: Any) -> None:
    """Against scikit-learn, and the boundary counts of one window, from plain arrays."""
    got = figures(core=32)
    true, found = ground.reference, ground.predicted
    seen = (true != 255) & (found != 255)
    assert got["overall_accuracy"] == pytest.approx(sk.accuracy_score(true[seen], found[seen]))
    assert got["kappa"] == pytest.approx(sk.cohen_kappa_score(true[seen], found[seen]))
    assert got["confusion"] == sk.confusion_matrix(true[seen], found[seen]).tolist()
    assert got["pixels"] == seen.sum()
    assert got["reference_pixels"] == (true != 255).sum()
    index = np.full(256, IGNORE, dtype=np.uint8)
    index[[1, 2, 5]] = 0, 1, 2
    counts = boundary_counts(index[true], index[found], np.s_[0:83, 0:127], 3, Tolerance(2.5))
    assert got["boundary"]["mean_f1"] == boundary_scores(counts).mean_f1
    sure, right = ground.confidence[seen] / 100, (true == found)[seen]
    bins = np.ceil(np.round(sure * 15, 9)).astype(int)
    ece = sum(
        abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    assert got["calibration"]["ece"] == pytest.approx(ece, abs=1e-12)
    names = [row["name"] for row in got["regions"]]
    assert names == ["west", "east", "nothing here"]
    east = np.zeros_like(seen)
    east[:, 60:90] = east[:20, 90:127] = True
    both = seen & east
    assert got["regions"][1]["pixels"] == both.sum()
    assert got["regions"][1]["overall_accuracy"] == (true == found)[both].mean()
    assert got["regions"][2]["pixels"] == 0
    assert got["regions"][2]["miou"] is None


@pytest.mark.parametrize("options", [{}, {"reference": "polygons.geojson", "column": "kind"}])
def test_any_core_gives_the_same_figures(
    ground: Any, figures: Any, options: dict[str, str]
) -> None:
    """Tiles of 7, 32, 100 and all pixels: equal to the last bit."""
    options = dict(options)
    if "reference" in options:
        options["reference"] = str(ground.folder / options["reference"])
    first = figures(core=2048, **options)
    for core in (7, 32, 100):
        assert figures(core=core, **options) == first


def test_any_number_of_workers_gives_the_same_figures(ground: Any, figures: Any) -> None:
    """In this process and in two others, whose receipts come in any order."""
    settings, told = asked(ground, core=32), list[tuple[int, int]]()
    two = evaluate_map(
        settings, ClusterSettings(workers=2), progress=lambda *counts: told.append(counts)
    )
    assert two.figures == figures(core=32)
    assert two.record["run"]["peak_bytes"] > 10_000_000
    assert told == [(n, 12) for n in range(1, 13)]


def test_errors_come_back_from_a_scheduler(ground: Any, figures: Any, tmp_path: Path) -> None:
    """An unknown value in one tile ends it at once, as itself; the next evaluation works."""
    bad = ground.reference.copy()
    bad[80, 100] = 77
    path = write_geotiff(tmp_path / "bad.tif", bad[None], nodata=255)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        there = ClusterSettings(scheduler=cluster.scheduler_address)
        with pytest.raises(SceneError, match="got 77;"):
            evaluate_map(asked(ground, core=32, reference=str(path)), there)
        assert evaluate_map(asked(ground, core=32), there).figures == figures(core=32)
        assert not counting._counters


@pytest.mark.parametrize("name", ["reference.tif", "regions.geojson"])
def test_a_file_that_changes_meanwhile_is_told(ground: Any, tmp_path: Path, name: str) -> None:
    """Figures of two references are those of none: an error that names the file, no files."""
    for path in ground.folder.iterdir():
        shutil.copy(path, tmp_path / path.name)
    changing, out = tmp_path / name, tmp_path / "out"

    def meddle(done: int, _: int) -> None:
        if done == 1:
            changing.write_bytes(changing.read_bytes() + b" ")

    with pytest.raises(InputChangedError, match=f"{name} must stay as it is during the run"):
        tilemap.evaluate(
            ground.map, reference=tmp_path / "reference.tif", out=out, progress=meddle,
            regions=tmp_path / "regions.geojson", region_column="name",
        )  # fmt: skip
    assert not out.exists()


def test_files_tell_the_figures(ground: Any, tmp_path: Path) -> None:
    """JSON, tables and page agree; an earlier evaluation's files go; other files stay."""
    out = tmp_path / "deep" / "out"
    result = tilemap.evaluate(
        ground.map, reference=ground.folder / "reference.tif", out=out, tolerance_m=20,
        regions=ground.folder / "regions.geojson", region_column="name",
    )  # fmt: skip
    record = json.loads((out / "evaluation.json").read_text())
    assert record == json.loads(json.dumps(result.record))
    assert record["inputs"].keys() == {"map", "reference", "confidence", "regions"}
    assert str(ground.folder) not in (out / "evaluation.json").read_text()
    with (out / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["water", "trees", "rock"]
    assert [float(row["iou"]) for row in rows] == [c["iou"] for c in result.figures["classes"]]
    with (out / "confusion.csv").open() as file:
        counts = [[int(row[n]) for n in ("water", "trees", "rock")] for row in csv.DictReader(file)]
    assert counts == result.figures["confusion"]
    with (out / "regions.csv").open() as file:
        assert [row["miou"] == "" for row in csv.DictReader(file)] == [False, False, True]
    page = (out / "evaluation.html").read_text()
    assert "probability sample" in page
    assert "data:image/png;base64," in page
    assert page.count("<svg") == 2
    assert 'src="http' not in page and "<script" not in page  # noqa: PT018
    assert result.figures["boundary"]["pixel"] == [10.0, 10.0]
    (out / "mine.txt").write_text("stays")
    tilemap.evaluate(ground.map, reference=ground.folder / "reference.tif", out=out)
    assert sorted(p.name for p in out.iterdir()) == [
        "confusion.csv", "evaluation.csv", "evaluation.html", "evaluation.json", "mine.txt",
    ]  # fmt: skip


def test_what_the_reader_should_know(ground: Any, tmp_path: Path) -> None:
    """What was left out, and how, stands in the notes."""
    notes = " ".join(evaluate_map(asked(ground), ClusterSettings()).record["notes"])
    lost = int(((ground.reference != 255) & (ground.predicted == 255)).sum())
    assert f"{lost:,} pixels of the reference have no class in the map" in notes
    assert "no estimate of the accuracy of the whole map" in notes
    assert "such as nothing here" in notes
    ground.name_classes(write_geotiff(tmp_path / "m.tif", ground.predicted[None], nodata=255),
                        {1: "water", 2: "trees", 5: "rock", 8: "lava"})  # fmt: skip
    small = write_geotiff(tmp_path / "confidence.tif", ground.confidence[None, :-1], nodata=255)
    settings = EvaluateSettings(str(tmp_path / "m.tif"), str(ground.folder / "reference.tif"))
    found = evaluate_map(settings, ClusterSettings())
    notes = " ".join(found.record["notes"])
    assert "show lava: left out" in notes
    assert "does not fit it and is not used" in notes
    assert found.figures["classes"][3]["iou"] is None
    assert found.figures["calibration"] is None
    with pytest.raises(SceneMismatchError, match="confidence must lie on the map's grid"):
        prepare(asked(ground, confidence=str(small)))


def test_bad_settings_are_refused_and_leave_nothing(ground: Any, tmp_path: Path) -> None:
    """Each before anything is written."""
    for options, says in (
        ({"tolerance_m": 3.0}, "in pixels or in metres"),
        ({"tolerance": 0.0}, "above 0"),
        ({"tolerance": None, "tolerance_m": -1.0}, "above 0"),
        ({"region_column": None}, "together"),
        ({"core": 0}, "core must"),
        ({"column": "x"}, "for a vector reference only"),
        ({"background": "water"}, "for a vector reference only"),
        ({"reference": "a.gpkg"}, "needs `column`"),
        ({"reference": "a.gpkg", "column": "x", "polygon_class": "water"}, "needs `column`"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            asked(ground, **options)
    with pytest.raises(UsageError, match="options must be among column"):
        tilemap.evaluate(ground.map, reference="x.tif", colour="red")  # type: ignore[call-arg]
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OutputError, match="must be a directory"):
        evaluate_map(asked(ground), ClusterSettings(), file / "out")
    empty = write_geotiff(tmp_path / "empty.tif", np.full((1, 83, 127), 255, "u1"), nodata=255)
    with pytest.raises(SceneMismatchError, match="share none"):
        evaluate_map(asked(ground, reference=str(empty)), ClusterSettings(), tmp_path / "out")
    odd = ground.predicted.copy()
    odd[3, 40] = 9
    names = {1: "water", 2: "trees", 5: "rock"}
    ground.name_classes(write_geotiff(tmp_path / "odd.tif", odd[None], nodata=255), names)
    with pytest.raises(SceneError, match=r"values of its classes \(1 water, .*\), got 9"):
        count_map(prepare(asked(ground, class_map=str(tmp_path / "odd.tif"))), ClusterSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("crs", "affine", "expected"),
    [
        ("EPSG:32618", (10, 0, 4e5, 0, -20, 4.1e6), (20, 10)),  # nominal
        ("EPSG:3857", (10, 0, 0, 0, -10, 8_399_737.9), (5.004, 5.013)),  # 60 degrees: half
        ("EPSG:4326", (0.01, 0, 10, 0, -0.01, 60.05), (1114.1, 557.8)),
        ("EPSG:2263", (10, 0, 1e6, 0, -10, 2e5), (3.048, 3.048)),  # feet
    ],
)
def test_metres_of_a_pixel(
    crs: str, affine: tuple[float, ...], expected: tuple[float, float]
) -> None:
    """Nominal where that is true to 1 %, else the true size at the centre."""
    down, right, _ = pixel_sides_m(GeoBox((10, 10), Affine(*affine), crs))
    assert (down, right) == pytest.approx(expected, rel=5e-4)
    assert math.isfinite(down)


def test_metres_need_a_crs() -> None:
    """A plain image has pixels only."""
    with pytest.raises(UsageError, match="without a CRS"):
        pixel_sides_m(GeoBox((3, 3), Affine(1, 0, 0, 0, -1, 0), None))


def test_a_class_that_the_reference_declares_nodata_is_named(ground: Any, figures: Any) -> None:
    """With value, name and pixels; it counts if the person says that every number is a class."""
    path = ground.folder / "declared.tif"
    reference = np.where(ground.reference == 255, 1, ground.reference).astype(np.uint8)
    write_geotiff(path, reference[None], nodata=1)
    ground.name_classes(path, {1: "water", 2: "Trees", 5: "rock"})
    hidden = int((reference == 1).sum())
    work = prepare(asked(ground, reference=str(path)))
    [note] = [text for text in work.notes if "nodata" in text]
    assert "declares 1 as nodata" in note
    assert f"{hidden:,} pixels" in note
    assert "`reference_nodata` none" in note
    assert figures(reference=str(path))["reference_pixels"] == reference.size - hidden
    for text, left_out in (("none", 0), ("2", int((reference == 2).sum()))):
        again = asked(ground, reference=str(path), reference_nodata=text)
        assert not [line for line in prepare(again).notes if "nodata" in line]
        got = figures(reference=str(path), reference_nodata=text)
        assert got["reference_pixels"] == reference.size - left_out
    with pytest.raises(UsageError, match="`reference_nodata` must be a number"):
        prepare(asked(ground, reference=str(path), reference_nodata="zero"))
    with pytest.raises(UsageError, match="for a raster reference only"):
        asked(ground, reference="p.gpkg", column="kind", reference_nodata="0")
