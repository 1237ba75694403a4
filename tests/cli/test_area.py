"""``tilemap sample`` and ``tilemap area``, from a map to areas."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine

from tilemap.cli.main import main
from tilemap.evaluation.estimation import Strata, from_units
from tilemap.testing import write_geotiff

ROOT = Path(__file__).parents[2]
NAMES = {1: "water", 2: "forest", 7: "town"}
UTM = Affine(30, 0, 500_000, 0, -30, 5_000_000)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tilemap(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: its exit code, what it printed, what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


def pixels_of(seed: int = 0) -> npt.NDArray[np.uint8]:
    """Three classes in stripes of unequal size, water noisy with the seed, and a gap."""
    pixels = np.full((130, 211), 2, dtype=np.uint8)
    pixels[:, :40], pixels[100:, 150:] = 1, 7
    if seed:
        pixels[:, :60] = np.random.default_rng(seed).choice([1, 2], (130, 60))
    pixels[:3] = 255
    return pixels


def write_map(
    path: Path, pixels: npt.NDArray[np.uint8], crs: str | None = "EPSG:32633", affine: Affine = UTM
) -> Path:
    """A class map with names in tags."""
    write_geotiff(path, pixels[None], nodata=255, crs=crs, transform=affine)
    with rasterio.open(path, "r+") as file:
        file.update_tags(**{f"CLASS_{value}": name for value, name in NAMES.items()})
    return path


@pytest.fixture
def class_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The map of ``pixels_of``, in the folder a person works in."""
    monkeypatch.chdir(tmp_path)
    return write_map(tmp_path / "landcover.tif", pixels_of())


def read(path: Path, layer: str = "sample") -> dict[str, npt.NDArray[Any]]:
    """Columns of a layer, by name."""
    meta, _, _, columns = pyogrio.raw.read(path, layer=layer)
    return dict(zip(meta["fields"], columns, strict=True))


def edit(path: Path, sql: str, rows: list[tuple[Any, ...]]) -> None:
    """Change a GeoPackage in place, as a person's program does; its triggers want functions."""
    with closing(sqlite3.connect(path)) as file, file:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            file.create_function(name, 1, lambda blob: 0)
        file.executemany(sql, rows)


def label(path: Path, answers: list[str | None]) -> None:
    """Fill in the references, in the order of the points."""
    edit(
        path,
        "UPDATE sample SET reference = ? WHERE id = ?",
        [(text, number) for number, text in enumerate(answers, 1)],
    )


def truth_of(path: Path, wrong: float = 0.15) -> list[str | None]:
    """Mostly what the stratum says, sometimes forest; names, numbers and odd spellings mixed."""
    random, points = np.random.default_rng(4), read(path)
    values = [2 if random.random() < wrong else int(v) for v in points["stratum"]]
    spelt = [str, lambda v: NAMES[v], lambda v: f" {NAMES[v].upper()} "]
    return [spelt[n % 3](v) for n, v in enumerate(values)]  # type: ignore[operator]


# --- the whole way -----------------------------------------------------------------------------


def test_from_a_map_to_areas(class_map: Path, tilemap: Run) -> None:
    """Draw, label, assess: the figures of the estimator, hectares that add up to the map's."""
    code, out, err = tilemap("sample", class_map, "--per-stratum", 60, "--seed", 5, "-o", "s.gpkg")
    assert (code, err) == (0, "")
    assert re.search(r"^water +60 +5,080 +457\.", out, re.M)
    assert "wrote s.gpkg: fill in the column reference of its 180 points" in out
    path = class_map.with_name("s.gpkg")
    label(path, truth_of(path))
    code, out, err = tilemap("area", "s.gpkg", "--map", class_map, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    points, design = read(path), read(path, "design")
    numbers = {**{name: v for v, name in NAMES.items()}, **{str(v): v for v in NAMES}}
    reference = [numbers[text.strip().lower()] for text in points["reference"]]
    place = {value: k for k, value in enumerate(NAMES)}
    h, r = ([place[int(v)] for v in values] for values in (points["stratum"], reference))
    expected = from_units(h, h, r, Strata(design["area_ha"], design["pixels"]), points["pixel_ha"])
    assert [row["name"] for row in found["classes"]] == list(NAMES.values())
    for key, values in (
        ("users_accuracy", expected.users), ("producers_accuracy", expected.producers),
        ("users_accuracy_ci", 1.96 * expected.users_se), ("area_ha", expected.area),
        ("producers_accuracy_ci", 1.96 * expected.producers_se),
        ("area_ci_ha", 1.96 * expected.area_se), ("mapped_area_ha", design["area_ha"]),
        ("area_share", expected.share), ("area_share_se", expected.share_se),
    ):  # fmt: skip
        assert [row[key] for row in found["classes"]] == pytest.approx(values.tolist())
    assert found["overall_accuracy"] == pytest.approx(expected.overall)
    assert found["overall_accuracy_ci"] == pytest.approx(1.96 * expected.overall_se)
    assert 0.8 < found["overall_accuracy"] < 1
    assert np.sum(found["counts"]) == found["units"] == 180
    total = sum(row["area_ha"] for row in found["classes"])
    assert total == pytest.approx(127 * 211 * 0.09, rel=1e-3)
    code, out, _ = tilemap("area", path, "--map", class_map.parent)  # the folder of a run
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["class", *NAMES.values(), "overall"]


def test_the_formula_is_told(class_map: Path, tilemap: Run) -> None:
    """In what is printed: the formula, what it asks for, what was expected of each class."""
    code, out, _ = tilemap(
        "sample", class_map, "--standard-error", 0.02, "--expected-accuracy", 0.9,
        "--expected-accuracy", "town=0.6", "--least", 40, "--out", "s.gpkg",
    )  # fmt: skip
    assert code == 0
    assert re.search(r"^town +40 +1,830 .* 0\.6$", out, re.M)
    assert re.search(r"^n = \(sum W_i .* equation 13\) = (\d+); drawn \1$", out, re.M)


def test_pixels_of_unequal_size_count_by_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tilemap: Run
) -> None:
    """In degrees from the equator to 70 north, where forest is only in the north."""
    monkeypatch.chdir(tmp_path)
    affine = Affine(0.5, 0, 0, 0, -0.5, 70)
    pixels = np.full((140, 31), 1, dtype=np.uint8)
    path = write_map(tmp_path / "map.tif", pixels, "EPSG:4326", affine)
    assert tilemap("sample", path, "--per-stratum", 2000, "-o", "s.gpkg")[0] == 0
    sample = tmp_path / "s.gpkg"
    north = read(sample)["row"] < 60
    label(sample, ["forest" if there else "water" for there in north])
    found = json.loads(tilemap("area", sample, "--map", path, "--json")[1])
    forest, water = (
        next(row for row in found["classes"] if row["name"] == name) for name in ("forest", "water")
    )
    area = np.sin(np.radians(70)) - np.sin(np.radians(40))
    share = area / np.sin(np.radians(70))
    assert 60 / 140 - share > 0.1  # of the pixels it is far more
    assert abs(forest["area_share"] - share) < 4 * forest["area_share_se"]
    assert forest["area_share_se"] < 0.01
    assert forest["mapped_area_ha"] == 0
    assert forest["users_accuracy"] is None
    assert water["mapped_area_ha"] == pytest.approx(forest["area_ha"] + water["area_ha"])


def test_another_map_of_the_same_ground(class_map: Path, tilemap: Run) -> None:
    """Strata of one map, classes of another one on another grid (Stehman 2014)."""
    assert tilemap("sample", class_map, "--per-stratum", 50, "-o", "s.gpkg")[0] == 0
    path = class_map.with_name("s.gpkg")
    label(path, truth_of(path))
    other = np.repeat(np.repeat(pixels_of(seed=3), 2, axis=0), 2, axis=1)
    fine = write_map(
        class_map.with_name("other.tif"), other, affine=Affine(15, 0, 500_000, 0, -15, 5_000_000)
    )
    code, out, err = tilemap("area", path, "--map", fine, "--json")
    assert code == 0, err
    found = json.loads(out)
    points, design = read(path), read(path, "design")
    mapped = other[2 * points["row"] + 1, 2 * points["col"] + 1]
    numbers = {**{name: v for v, name in NAMES.items()}, **{str(v): v for v in NAMES}}
    reference = [numbers[text.strip().lower()] for text in points["reference"]]
    place = {value: k for k, value in enumerate(NAMES)}
    h, m, r = ([place[int(v)] for v in vs] for vs in (points["stratum"], mapped, reference))
    expected = from_units(h, m, r, Strata(design["area_ha"], design["pixels"]), points["pixel_ha"])
    assert [row["users_accuracy"] for row in found["classes"]] == pytest.approx(
        expected.users.tolist()
    )
    assert [row["area_ci_ha"] for row in found["classes"]] == pytest.approx(
        (1.96 * expected.area_se).tolist()
    )
    assert found["classes"][0]["mapped_area_ha"] == pytest.approx(
        np.count_nonzero(other == 1) * 0.0225, rel=1e-3
    )
    assert found["notes"] == ["The strata are of landcover.tif, the map is other.tif."]


def test_in_another_crs(class_map: Path, tilemap: Run) -> None:
    """A map in degrees below points in metres."""
    assert tilemap("sample", class_map, "--per-stratum", 50, "-o", "s.gpkg")[0] == 0
    path = class_map.with_name("s.gpkg")
    label(path, truth_of(path))
    coarse = write_map(
        class_map.with_name("degrees.tif"),
        np.full((9, 17), 2, dtype=np.uint8), "EPSG:4326", Affine(0.01, 0, 14.95, 0, -0.01, 45.2),
    )  # fmt: skip
    found = json.loads(tilemap("area", path, "--map", coarse, "--json")[1])
    assert [row["name"] for row in found["classes"]] == list(NAMES.values())
    assert found["classes"][1]["users_accuracy"] == pytest.approx(found["overall_accuracy"])


def test_without_a_place_on_earth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tilemap: Run
) -> None:
    """Shares instead of hectares, and said so; nothing is null that is known."""
    monkeypatch.chdir(tmp_path)
    path = write_map(tmp_path / "map.tif", pixels_of(), crs=None)
    assert tilemap("sample", path, "--per-stratum", 30, "-o", "s.gpkg")[0] == 0
    label(tmp_path / "s.gpkg", truth_of(tmp_path / "s.gpkg"))
    code, out, _ = tilemap("area", "s.gpkg", "--map", path)
    assert code == 0
    assert "share" in out.splitlines()[0]
    assert "no place on Earth: shares are of its pixels" in out
    found = json.loads(tilemap("area", "s.gpkg", "--map", path, "--json")[1])
    assert sum(row["area_share"] for row in found["classes"]) == pytest.approx(1)
    assert {row["area_ha"] for row in found["classes"]} == {None}


def test_a_sample_without_its_design(class_map: Path, tilemap: Run) -> None:
    """Its strata are counted in the map, which must be the one it was drawn from."""
    assert tilemap("sample", class_map, "--per-stratum", 30, "-o", "s.gpkg")[0] == 0
    path = class_map.with_name("s.gpkg")
    label(path, truth_of(path))
    whole = json.loads(tilemap("area", path, "--map", class_map, "--json")[1])
    meta, _, shapes, columns = pyogrio.raw.read(path, layer="sample")
    bare = class_map.with_name("bare.gpkg")
    pyogrio.raw.write(
        bare, geometry=shapes, fields=meta["fields"], field_data=columns, layer="sample",
        driver="GPKG", geometry_type="Point", crs=meta["crs"],
    )  # fmt: skip
    assert json.loads(tilemap("area", bare, "--map", class_map, "--json")[1]) == whole
    other = write_map(class_map.with_name("other.tif"), pixels_of(seed=3))
    code, _, err = tilemap("area", bare, "--map", other)
    assert code == 65
    assert "must be of this map" in err


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--per-stratum", "5", "--standard-error", "0.1"], 2, "either --per-stratum or"),
        ([], 2, "either --per-stratum or"),
        (["--per-stratum", "1"], 2, "two units of each stratum"),
        (["--standard-error", "0.9"], 2, "between 0 and 0.5"),
        (["--standard-error", "0.01", "--expected-accuracy", "1.5"], 2, "below 1"),
        (["--standard-error", "0.01", "--expected-accuracy", "high"], 2, "0.9 or NAME=0.7"),
        (["--standard-error", "0.01", "--expected-accuracy", "swamp=0.9"], 2, "got 'swamp'"),
    ],
)
def test_a_sample_that_cannot_be(
    class_map: Path, tilemap: Run, options: list[str], code: int, said: str
) -> None:
    """One line, and no file."""
    got, out, err = tilemap("sample", class_map, *options, "-o", "s.gpkg")
    assert (got, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert list(class_map.parent.iterdir()) == [class_map]


def test_labels_are_never_written_over(class_map: Path, tilemap: Run) -> None:
    """Exit 73; the map is not even read."""
    class_map.with_name("s.gpkg").write_text("labels")
    code, _, err = tilemap("sample", "none.tif", "--per-stratum", 9, "-o", "s.gpkg")
    assert code == 73
    assert "may hold labels" in err


def test_labels_that_are_none(class_map: Path, tilemap: Run) -> None:
    """Unknown ones name the known; missing ones are refused, or left out when asked."""
    assert tilemap("sample", class_map, "--per-stratum", 20, "-o", "s.gpkg")[0] == 0
    path = class_map.with_name("s.gpkg")
    code, _, err = tilemap("area", path, "--map", class_map)
    assert code == 65
    assert "fill in the column reference" in err
    answers = truth_of(path)
    label(path, [*answers[:-2], "swamp", "3"])
    code, _, err = tilemap("area", path, "--map", class_map)
    assert code == 65
    assert "one of water, forest, town, or its number, got '3', 'swamp'" in err
    label(path, [None, "  ", *answers[2:]])
    code, _, err = tilemap("area", path, "--map", class_map)
    assert code == 65
    assert "2 of 60 units" in err
    code, out, _ = tilemap("area", path, "--map", class_map, "--ignore-unlabelled")
    assert code == 0
    assert "58 points" in out
    assert "2 points without a reference were left out" in out
    town = read(path)["stratum"] == 7
    label(path, [None if away else text for away, text in zip(town, answers, strict=True)])
    code, _, err = tilemap("area", path, "--map", class_map, "--ignore-unlabelled")
    assert code == 65
    assert "stratum town has 0" in err


def test_points_that_lie_elsewhere(class_map: Path, tilemap: Run) -> None:
    """One that was moved by mistake, and those beyond another map, are told by their numbers."""
    assert tilemap("sample", class_map, "--per-stratum", 20, "-o", "s.gpkg")[0] == 0
    path = class_map.with_name("s.gpkg")
    label(path, truth_of(path))
    small = write_map(class_map.with_name("small.tif"), pixels_of()[:, :100])
    code, _, err = tilemap("area", path, "--map", small)
    assert code == 65
    beyond = read(path)["id"][read(path)["col"] >= 100].tolist()
    assert f"of small.tif, beside it: points {', '.join(map(str, beyond[:12]))} ..." in err
    place = shapely.to_wkb(shapely.Point(500_000 + 30 * 100.5, 5_000_000 - 30 * 50.5))
    header = b"GP\0\x01" + (32633).to_bytes(4, "little")
    edit(path, "UPDATE sample SET geom = ? WHERE id = ?", [(header + place, 17)])
    code, _, err = tilemap("area", path, "--map", class_map)
    assert code == 65
    assert "moved: point 17; sample the map again" in err


def test_what_is_no_sample(class_map: Path, tilemap: Run) -> None:
    """A file that is not there, is no GeoPackage, or another one; options that do not fit."""
    text = class_map.with_name("text.gpkg")
    text.write_text("no database")
    other = class_map.with_name("other.gpkg")
    pyogrio.raw.write(
        other, geometry=shapely.to_wkb(shapely.points([[0.0, 0.0]])), fields=["a"],
        field_data=[np.array([1])], layer="places", driver="GPKG", geometry_type="Point",
        crs="EPSG:4326",
    )  # fmt: skip
    for path, said in (
        ("none.gpkg", "no such file"),
        (text, "cannot be read"),
        (other, "'sample'"),
    ):
        code, _, err = tilemap("area", path, "--map", class_map)
        assert code == 65
        assert said in err
    for arguments in ([], ["s.gpkg"], ["--map", class_map], ["s.gpkg", "--matrix", "c.csv"]):
        code, _, err = tilemap("area", *arguments)
        assert code == 2
        assert "a labelled SAMPLE with its --map, or a --matrix alone" in err


# --- a table of counts -------------------------------------------------------------------------


def test_json_of_a_table(class_map: Path, tilemap: Run) -> None:
    """The figures of Olofsson et al. 2014, rows in another order than the columns."""
    class_map.with_name("counts.csv").write_text(
        "map, loss, gain, forest, other, mapped_area_ha\n\n"
        "other,2,1,9,313,580500\nloss,66,0,5,4,18000\n"
        "gain,0,55,8,12,13500\nforest,1,0,153,11,288000\n",
        encoding="utf-8-sig",
    )
    code, out, _ = tilemap("area", "--matrix", "counts.csv", "--json")
    assert code == 0
    found = json.loads(out)
    assert round(found["overall_accuracy"], 6) == 0.946512
    rows = {row["name"]: row for row in found["classes"]}
    assert list(rows) == ["loss", "gain", "forest", "other"]
    expected = {
        "loss": (0.88, 0.748661, 21157.8, 6157.6), "gain": (0.733333, 0.847156, 11686.2, 3755.8),
        "forest": (0.927273, 0.934509, 285769.9, 15509.8),
        "other": (0.963077, 0.961609, 581386.2, 16281.7),
    }  # fmt: skip
    for name, (users, producers, area, interval) in expected.items():
        row = rows[name]
        assert (round(row["users_accuracy"], 6), round(row["producers_accuracy"], 6)) == (
            users, producers,
        )  # fmt: skip
        assert (round(row["area_ha"], 1), round(row["area_ci_ha"], 1)) == (area, interval)


def test_a_class_that_no_map_shows(class_map: Path, tilemap: Run) -> None:
    """A column without a row: an area, but no user's accuracy."""
    class_map.with_name("c.csv").write_text(
        "map,a,b,rare,mapped_area_ha\na,40,2,8,50\nb,1,45,4,50\n"
    )
    rows = json.loads(tilemap("area", "--matrix", "c.csv", "--json")[1])["classes"]
    assert rows[2]["area_ha"] == pytest.approx(12)
    assert rows[2]["users_accuracy"] is None
    assert rows[2]["mapped_area_ha"] == 0
    assert re.search(r"^rare +- ", tilemap("area", "--matrix", "c.csv")[1], re.M)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with map"),
        ("map,a,b,area\na,1,2,3\nb,1,2,3\n", "must begin with map"),
        ("map,a,b,mapped_area_ha\n", "must begin with map"),
        ("map,a,a,mapped_area_ha\na,5,2,3\n", "each reference class once"),
        ("map,a,b,mapped_area_ha\na,5,2,3\nc,1,5,3\n", "'c' has none among a, b"),
        ("map,a,b,mapped_area_ha\na,5,2,3\na,1,5,3\n", "a has two"),
        ("map,a,b,mapped_area_ha\na,5,2,x\nb,1,5,3\n", "must hold numbers"),
        ("map,a,b,mapped_area_ha\na,5,2\nb,1,5,3\n", "3 numbers in each row, a has 2"),
        ("map,a,b,mapped_area_ha\na,5,2.5,7\nb,1,5,3\n", "whole numbers"),
        ("map,a,b,mapped_area_ha\na,5,-2,7\nb,1,5,3\n", "whole numbers"),
        ("map,a,b,mapped_area_ha\na,5,nan,7\nb,1,5,3\n", "whole numbers"),
        ("map,a,b,mapped_area_ha\na,5,2,-7\nb,1,5,3\n", "at least 0"),
        ("map,a,b,mapped_area_ha\na,5,2,3\nb,0,1,3\n", "stratum b has 1"),
    ],
)
def test_a_table_that_cannot_be(class_map: Path, tilemap: Run, text: str, said: str) -> None:
    """One line that says what must hold."""
    class_map.with_name("counts.csv").write_text(text)
    code, out, err = tilemap("area", "--matrix", "counts.csv")
    assert (code, out) == (65, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_no_table(class_map: Path, tilemap: Run) -> None:
    """Not there, or no text."""
    class_map.with_name("c.csv").write_bytes(b"map,\xff\xfe\x80")
    for name in ("none.csv", "c.csv"):
        code, _, err = tilemap("area", "--matrix", name)
        assert code == 65
        assert name in err
