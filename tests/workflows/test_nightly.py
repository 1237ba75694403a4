"""The nightly script and its configuration: they run as they are, once there is a scene."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tilemap.api import demo_scene
from tilemap.nightly.config import load_config

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The copied script."""
    return subprocess.run(
        [sys.executable, "nightly.py", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_script_maps_what_is_new(tmp_path: Path) -> None:
    """Script and configuration copied, a folder of files as a scene: mapped, then nothing new."""
    shutil.copy(WORKFLOWS / "nightly.py", tmp_path)
    config = tmp_path / "nightly.toml"
    shutil.copy(WORKFLOWS / "nightly.toml", config)
    text = config.read_text().replace('kind = "local"', 'kind = "local"\nworkers = 2')
    config.write_text(text.replace("[nightly]", "[nightly]\nsettle = 0", 1))
    scene = tmp_path / "incoming" / "coast" / "virginia_20200101"
    scene.mkdir(parents=True)
    for path in demo_scene():
        shutil.copy(path, scene)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "coast/virginia_20200101, new" in done.stdout
    products = tmp_path / "nightly" / "products" / "coast" / "virginia_20200101"
    assert list(products.glob("*/landcover.tif"))
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "Nothing was new" in again.stdout


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    """A configuration that is not there: one line, exit code 78."""
    shutil.copy(WORKFLOWS / "nightly.py", tmp_path)
    done = run(tmp_path, "none.toml")
    assert done.returncode == 78
    assert done.stderr.startswith("error: none.toml: cannot be read")
    assert done.stderr.count("\n") == 1


def test_the_configuration_that_ships(tmp_path: Path) -> None:
    """It can be read, and names what it says."""
    config = load_config(WORKFLOWS / "nightly.toml")
    assert config.areas[0].name == "coast"
    assert config.tell.price_per_hour == 0.40
