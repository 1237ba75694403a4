"""``tilemap evaluate``: a table on the terminal; bad input is one line, a code, and no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tilemap.cli.main import main
from tilemap.testing import write_geotiff

NAMES = {1: "water", 2: "trees"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with map.tif, reference.tif and files that do not fit."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    truth = (1 + (rng.random((1, 40, 51)) < 0.4)).astype(np.uint8)
    wrong = np.where(rng.random(truth.shape) < 0.1, 3 - truth, truth).astype(np.uint8)
    for name, array in (("map", wrong), ("reference", truth), ("noclasses", wrong)):
        write_geotiff(tmp_path / f"{name}.tif", array, nodata=255)
    for name in ("map", "reference"):
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            file.update_tags(**{f"CLASS_{value}": text for value, text in NAMES.items()})
    write_geotiff(tmp_path / "unknown.tif", np.where(truth == 2, 7, truth).astype(np.uint8))
    far = rasterio.Affine(10, 0, 700_000, 0, -10, 100_000)
    write_geotiff(tmp_path / "far.tif", truth, transform=far)
    write_geotiff(tmp_path / "small.tif", np.full((1, 9, 9), 50, dtype=np.uint8))
    (tmp_path / "table.toml").write_text("water = 1\ntrees = [2, 7]\n")
    (tmp_path / "text.tif").write_text("no raster")
    return tmp_path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command: its exit code, what it printed, what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *(str(a) for a in arguments)])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capfd.readouterr()

    return run


def test_it_prints_a_table_and_writes_a_page(folder: Path, evaluate: Run) -> None:
    """Figures by class, in total, and what to know of them."""
    code, out, err = evaluate("map.tif", "--reference", "reference.tif", "--out", "out")
    assert (code, err) == (0, "")
    with rasterio.open("map.tif") as one, rasterio.open("reference.tif") as two:
        right = (one.read() == two.read()).mean()
    assert f"overall accuracy {right:.4f}" in out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["class", "water", "trees"]
    assert "boundary F1" in out
    assert "note: These figures describe the reference's 2,040 pixels only" in out
    assert (folder / "out" / "evaluation.html").is_file()


def test_a_table_and_values_to_ignore(folder: Path, evaluate: Run) -> None:
    """7 is trees by the table; or it does not count."""
    code, out, _ = evaluate("map.tif", "-r", "unknown.tif", "--classes", "table.toml")
    assert code == 0
    assert "2,040 pixels only" in out
    code, out, _ = evaluate("map.tif", "-r", "unknown.tif", "--ignore", "7, 9")
    assert code == 0
    assert "2,040 pixels only" not in out
    assert list(folder.glob("*.html")) == []


CASES: list[tuple[int, str, list[Any]]] = [
    (65, "must overlap", ["map.tif", "-r", "far.tif"]),
    (65, r"got 7;", ["map.tif", "-r", "unknown.tif"]),
    (65, "no such file: gone.tif", ["map.tif", "-r", "gone.tif"]),
    (65, "no such file: gone.tif", ["gone.tif", "-r", "reference.tif"]),
    (65, "not a raster", ["text.tif", "-r", "reference.tif"]),
    (65, "must say what its classes are", ["noclasses.tif", "-r", "reference.tif"]),
    (2, "tolerance must be above 0", ["map.tif", "-r", "reference.tif", "--tolerance", 0]),
    (2, "tolerance must be above 0", ["map.tif", "-r", "reference.tif", "--tolerance-m", -3]),
    (2, "at most 256 pixels", ["map.tif", "-r", "reference.tif", "--tolerance", 300]),
    (65, "on the map's grid", ["map.tif", "-r", "reference.tif", "--confidence", "small.tif"]),
    (65, "no such file", ["map.tif", "-r", "reference.tif", "--classes", "gone.csv"]),
    (2, "given together", ["map.tif", "-r", "reference.tif", "--regions", "a.gpkg"]),
    (2, "vector reference needs --column", ["map.tif", "-r", "gone.gpkg"]),
    (65, "there is no such file", ["map.tif", "-r", "gone.gpkg", "--column", "a"]),
    (73, "must be a directory", ["map.tif", "-r", "reference.tif", "--out", "text.tif/out"]),
    (2, "core must be at least 1", ["map.tif", "-r", "reference.tif", "--core", 0]),
]


@pytest.mark.parametrize(("code", "says", "arguments"), CASES)
def test_bad_input(folder: Path, evaluate: Run, code: int, says: str, arguments: list[Any]) -> None:
    """One or two lines that say what must hold, the exit code of its kind, nothing left."""
    before = sorted(folder.rglob("*"))
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "out"]
    got, out, err = evaluate(*arguments)
    assert got == code, err
    assert says in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) <= 2
    assert out == ""
    assert sorted(folder.rglob("*")) == before
