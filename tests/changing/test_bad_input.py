"""``tilemap change`` with what cannot be: an exit code, a line or two, and nothing left."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tilemap.cli.main import main
from tilemap.comparison.qa import Qa
from tilemap.testing import write_geotiff

from .conftest import AFFINE, NAMES, make_run, soften

SHAPE = (70, 96)
LABELS = np.kron(np.random.default_rng(2).integers(0, 4, (7, 12)), np.ones((10, 8))).astype(
    np.uint8
)
Dates = Callable[..., list[str]]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Three finished runs."""
    folder = tmp_path / "in"
    return [
        str(make_run(folder / f"y{year}", soften(LABELS, 4), None)) for year in (2000, 2010, 2020)
    ]


def _run(out: Path, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["change", *map(str, arguments), "--out", str(out), "--workers", "1"])
    return int(ended.value.code or 0)


def _shifted(runs: list[str], pixels: int) -> None:
    folder = Path(runs[2])
    shutil.rmtree(folder)
    make_run(folder, soften(np.roll(LABELS, pixels, axis=1), 4), None)


CASES: dict[str, tuple[Callable[[list[str]], list[object]], int, str]] = {
    "one date": (lambda runs: runs[:1], 2, "two dates or more, got 1"),
    "dates that fall": (lambda runs: [runs[1], runs[0]], 2, "from the oldest to the newest"),
    "equal dates": (
        lambda runs: [*runs[:2], "--dates", "2001-01-01,2001-01-01"], 2, "dates must differ",
    ),
    "fewer days than inputs": (
        lambda runs: [*runs, "--dates", "2001-01-01,2002-01-01"], 2, "as many as inputs, 3, got 2",
    ),
    "a day that is none": (
        lambda runs: [*runs[:2], "--dates", "spring,autumn"], 2, "must look like 2020-07-01",
    ),
    "a date in the middle that is not there": (
        lambda runs: [runs[0], runs[0] + "-gone", runs[2]], 2, "give --model",
    ),
    "an unknown method": (lambda runs: [*runs, "--method", "magic"], 2, "hmm, pcc, cvaps"),
    "a rate that is none": (lambda runs: [*runs, "--rate", "often"], 2, "a number or 'fit'"),
    "a rate above one": (lambda runs: [*runs, "--rate", "1.5"], 2, "between 0 and 1"),
    "a mask without a rule": (
        lambda runs: [*runs[:2], "--mask", "a", "--mask", "b"], 2, "masks and their --mask-rule",
    ),
    "transitions that are not there": (
        lambda runs: [*runs, "--transitions", "none.csv"], 78, "none.csv",
    ),
    "a core that is too small": (lambda runs: [*runs, "--core", "3"], 2, "at least 16"),
    "too little memory": (
        lambda runs: [*runs, "--memory-limit", "50MB"], 78, "the memory limit is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_without_a_trace(
    runs: list[str], tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is touched."""
    given, code, said = CASES[case]
    out = tmp_path / "out"
    assert _run(out, *given(runs)) == code
    err = capsys.readouterr().err
    assert said in err
    assert 1 <= len([line for line in err.splitlines() if line.startswith("error")]) <= 2
    assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize("what", ["place", "classes", "model", "crs", "unfinished"])
def test_dates_that_do_not_go_together(
    runs: list[str], tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No ground in common, other classes, another model, no CRS, not finished: all exit 65."""
    odd = Path(runs[1])
    shutil.rmtree(odd)
    options, said = {
        "place": ({"affine": Affine(10, 0, 700_000, 0, -10, 9_000_000)}, "x 500000 to 500960"),
        "classes": ({"names": (*NAMES[:3], ("swamp", "#444444"))}, "13 swamp"),
        "model": ({"model": "b" * 64}, "--allow-model-mismatch"),
        "crs": ({"crs": None}, "CRS"),
        "unfinished": ({}, "finish"),
    }[what]
    make_run(odd, soften(LABELS, 4), None, **options)
    if what == "unfinished":
        (odd / "run.json").unlink()
        (odd / "stores").mkdir()
    out = tmp_path / "out"
    assert _run(out, *runs) == 65
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_date_that_lies_off_is_refused_and_can_be_accepted(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two pixels: exit 65 and nothing left; accepted it goes on and says so."""
    _shifted(runs, 2)
    out = tmp_path / "out"
    assert _run(out, *runs) == 65
    err = capsys.readouterr().err
    assert "2020-07-01" in err
    assert "--accept-misregistration" in err
    assert not out.exists()
    assert _run(out, *runs, "--accept-misregistration") == 0
    assert "accepted as it is" in capsys.readouterr().out
    with rasterio.open(out / "qa.tif") as file:
        assert (file.read(1) & Qa.SHIFTED).all()


def test_masks_that_cannot_be(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that is none; floats; a mask of another place; nothing is left."""

    def mask(name: str, dtype: str, east: float = 0) -> str:
        place = Affine(10, 0, AFFINE.c + east, 0, -10, AFFINE.f)
        pixels = np.ones((1, *SHAPE), dtype)
        return str(write_geotiff(tmp_path / name, pixels, crs="EPSG:32718", transform=place))

    good = mask("good.tif", "uint8")
    for bad, rule, code in (
        (good, "cloudy", 2),
        (mask("float.tif", "float32"), "scl", 65),
        (mask("far.tif", "uint8", 9e4), "scl", 65),
    ):
        masks = ["--mask", good, "--mask", bad, "--mask", good]
        assert _run(tmp_path / "out", *runs, *masks, "--mask-rule", rule) == code
        assert "Traceback" not in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_all_clouds(runs: list[str], tmp_path: Path) -> None:
    """A date without one clear pixel, and tiles that no date saw: not observed, not unchanged."""
    clouds = np.full((3, 1, *SHAPE), 4, np.uint8)
    clouds[1] = 9
    clouds[:, 0, :32, :32] = 9
    masks: list[object] = []
    for number, pixels in enumerate(clouds):
        path = write_geotiff(
            tmp_path / f"scl{number}.tif", pixels, crs="EPSG:32718", transform=AFFINE
        )
        masks += ["--mask", path]
    out = tmp_path / "out"
    assert _run(out, *runs, *masks, "--mask-rule", "scl", "--core", 32) == 0
    with rasterio.open(out / "change.tif") as change, rasterio.open(out / "n_valid.tif") as valid:
        code, seen = change.read(1), valid.read(1)
    assert not code[:32, :32].any()
    assert not seen[:32, :32].any()
    assert (seen[32:] == 2).all()
    assert (code[32:] > 0).all()
