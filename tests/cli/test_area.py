"""``tilemap sample`` and ``tilemap area``, from a map to areas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine

from tilemap.cli.main import main

ROOT = Path(__file__).parents[2]
NAMES = {1: "water", 2: "forest", 7: "town"}


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """Three classes in stripes of unequal size, a gap, names in tags."""
    path = tmp_path / "landcover.tif"
    pixels = np.full((130, 210), 2, np.uint8)
    pixels[:, :20], pixels[100:, 150:], pixels[:3] = 1, 7, 255
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=130, width=210, dtype="uint8", nodata=255,
        crs="EPSG:32633", transform=Affine(30, 0, 5e5, 0, -30, 5e6),
    ) as file:  # fmt: skip
        file.write(pixels, 1)
        file.update_tags(**{f"CLASS_{value}": name for value, name in NAMES.items()})
    return path


def _label(path: Path, wrong: int) -> None:
    """Fill in references: right but for every ``wrong``-th unit, names and numbers mixed."""
    meta, _, shapes, columns = pyogrio.raw.read(path, layer="sample")
    fields = dict(zip(meta["fields"], columns, strict=True))
    said = []
    for unit, stratum in zip(fields["unit"], fields["stratum"], strict=True):
        value = 2 if unit % wrong == 0 else int(stratum)
        said.append(NAMES[value] if unit % 2 else str(value))
    fields["reference"] = np.array(said, dtype=object)
    pyogrio.raw.write(
        path, geometry=shapes, fields=list(fields), field_data=list(fields.values()),
        layer="sample", driver="GPKG", geometry_type="Point", crs=meta["crs"],
    )  # fmt: skip


def test_from_a_map_to_areas(
    class_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn where the classes are, the same each time; areas add up to the observed one."""
    out, again = tmp_path / "sample.gpkg", tmp_path / "again.gpkg"
    for path in (out, again):
        assert _run("sample", class_map, "--per-stratum", 60, "--seed", 5, "-o", path) == 0
    meta, _, shapes, columns = pyogrio.raw.read(out, layer="sample")
    fields = dict(zip(meta["fields"], columns, strict=True))
    same = pyogrio.raw.read(again, layer="sample")
    assert [bytes(s) for s in shapes] == [bytes(s) for s in same[2]]
    assert np.bincount(fields["stratum"])[[1, 2, 7]].tolist() == [60, 60, 60]
    assert len(set(zip(fields["row"], fields["col"], strict=True))) == 180
    with rasterio.open(class_map) as file:
        pixels = file.read(1)
    assert np.array_equal(pixels[fields["row"], fields["col"]], fields["stratum"])
    assert not np.array_equal(np.sort(fields["stratum"]), fields["stratum"])
    meta, _, _, columns = pyogrio.raw.read(out, layer="design")
    design = dict(zip(meta["fields"], columns, strict=True))
    assert design["units"].tolist() == [60, 60, 60]
    assert design["pixels"].tolist() == [np.count_nonzero(pixels == value) for value in NAMES]
    assert _run("area", out, "--map", class_map) == 65
    assert "fill in the column reference" in capsys.readouterr().err
    _label(out, 10)
    assert _run("area", out, "--map", class_map, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["classes"]}
    assert found["units"] == 180
    assert rows["forest"]["users_accuracy"] == 1
    assert 0.8 < rows["water"]["users_accuracy"] < 1
    total = sum(row["area_ha"] for row in rows.values())
    assert total == pytest.approx(np.count_nonzero(pixels != 255) * 0.09, rel=2e-3)
    assert rows["water"]["area_ha"] < rows["water"]["mapped_area_ha"]
    assert rows["water"]["area_ci_ha"] > 0


def test_sizes_from_a_standard_error(
    class_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The formula is printed; small classes keep their least."""
    out = tmp_path / "sample.gpkg"
    assert _run("sample", class_map, "--standard-error", 0.02, "--least", 40, "-o", out) == 0
    said = capsys.readouterr().out
    assert "equation 13" in said
    counts = np.bincount(pyogrio.raw.read(out, layer="sample")[3][3])
    assert counts[1] >= 40
    assert counts[2] > counts[1]
    assert _run("sample", class_map, "--per-stratum", 9, "-o", out) == 73
    assert "may hold labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--per-stratum", "5", "--standard-error", "0.1"], 2, "either --per-stratum or"),
        ([], 2, "either --per-stratum or"),
        (["--per-stratum", "1"], 2, "two units of each stratum"),
        (["--standard-error", "0.9"], 2, "between 0 and 0.5"),
        (["--standard-error", "0.01", "--expected-accuracy", "1.5"], 2, "below 1"),
    ],
)
def test_a_sample_that_cannot_be(
    class_map: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, and no file."""
    out = tmp_path / "sample.gpkg"
    assert _run("sample", class_map, *options, "-o", out) == code
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_what_is_no_labelled_sample_of_the_map(
    class_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown class names the known ones; some without a reference may be left out."""
    out = tmp_path / "sample.gpkg"
    assert _run("sample", class_map, "--per-stratum", 20, "-o", out) == 0
    _label(out, 7)
    meta, _, shapes, columns = pyogrio.raw.read(out, layer="sample")
    for text, said in (("swamp", "one of water, forest, town, got 'swamp'"), (None, "1 of")):
        columns[-1][4] = text
        pyogrio.raw.write(
            out, geometry=shapes, fields=meta["fields"], field_data=columns, layer="sample",
            driver="GPKG", geometry_type="Point", crs=meta["crs"],
        )  # fmt: skip
        capsys.readouterr()
        assert _run("area", out, "--map", class_map) == 65
        assert said in capsys.readouterr().err
    assert _run("area", out, "--map", class_map, "--ignore-unlabelled") == 0
    assert "1 units without a reference" in capsys.readouterr().out
    assert _run("area", out) == 2
    assert _run("area", tmp_path / "none.gpkg", "--map", class_map) == 65


def test_the_page_says_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The worked example of docs/areas.md, to the letter."""
    page = (ROOT / "docs" / "areas.md").read_text()
    parts = [part for part in page.split("\n\n") if part.startswith("    ")]
    counts = next(part for part in parts if "mapped_area_ha" in part)
    printed = next(part for part in parts if "users acc." in part)
    path = tmp_path / "counts.csv"
    path.write_text("\n".join(line[4:] for line in counts.splitlines()))
    assert _run("area", "--matrix", path) == 0
    assert capsys.readouterr().out.rstrip() == "\n".join(x[4:] for x in printed.splitlines())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with map"),
        ("map,a,b,area\na,1,2,3\nb,1,2,3\n", "must begin with map"),
        ("map,a,b,mapped_area_ha\na,5,2,3\nc,1,5,3\n", "one row for each of a, b"),
        ("map,a,b,mapped_area_ha\na,5,2,x\nb,1,5,3\n", "must hold numbers"),
        ("map,a,b,mapped_area_ha\na,5,2,3\nb,0,1,3\n", "two sampled units"),
    ],
)
def test_a_table_that_cannot_be(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what must hold."""
    path = tmp_path / "counts.csv"
    path.write_text(text)
    assert _run("area", "--matrix", path) == 65
    assert said in capsys.readouterr().err
