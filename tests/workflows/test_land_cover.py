"""The script that users copy: it runs as it is, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import rasterio

from tilemap.api import demo_scene

SCRIPT = Path(__file__).parents[2] / "workflows" / "land_cover.py"


def test_land_cover_maps_the_scene_that_ships(tmp_path: Path) -> None:
    """Without arguments it maps the shipped scene, and says what it holds."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "water" in done.stdout
    out = tmp_path / "land-cover"
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "ok"
    with rasterio.open(out / "landcover.tif") as got, rasterio.open(demo_scene()[0]) as scene:
        assert got.shape == scene.shape
        assert got.crs == scene.crs
    assert (out / "report.html").exists()
    assert (out / "quicklook.png").exists()


def test_land_cover_says_what_is_wrong(tmp_path: Path) -> None:
    """A missing scene is one line and the exit code of bad data."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "missing.tif"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 65
    assert done.stderr.count("\n") <= 2
    assert "missing.tif" in done.stderr
    assert not list(tmp_path.iterdir())
