"""The configuration of the passes: what it takes, and one line for whoever mistyped it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilemap.errors import ConfigError
from tilemap.nightly.config import load_config, parse_duration

WHOLE = """
model = "tilemap-demo-5class"
[nightly]
root = "out"
budget = "6h"
[segment]
scale = 0.0001
core = 256
[change]
rate = 0.02
mask = "clouds/{scene}.tif"
mask_rule = "scl"
[cluster]
kind = "local"
workers = 2
[tell]
price_per_hour = 1.5
[[areas]]
name = "coast"
scenes = ["in/coast/*.tif", "/data/coast"]
since = 2015-01-01
[areas.segment]
core = 512
[[areas]]
name = "delta"
model = ["a", "b"]
priority = 5
[areas.stac]
api = "https://stac.example.org"
collections = ["sentinel-2-l2a"]
bbox = [-75.8, 37.5, -75.5, 37.8]
"""


def write(folder: Path, text: str) -> Path:
    """The file."""
    path = folder / "nightly.toml"
    path.write_text(text)
    return path


def test_whole_configuration(tmp_path: Path) -> None:
    """Paths start at the file's folder; an area's own options win over those of all."""
    config = load_config(write(tmp_path, WHOLE))
    coast, delta = config.areas
    assert config.root == tmp_path / "out"
    assert config.nightly.budget == 6 * 3600
    assert coast.scenes == (str(tmp_path / "in/coast/*.tif"), "/data/coast")
    assert config.segment_options(coast) == {
        "scale": 0.0001,
        "core": 512,
        "probabilities": True,
    }
    assert config.segment_options(delta)["core"] == 256
    assert config.change_options(coast)["mask"] == str(tmp_path / "clouds/{scene}.tif")
    assert config.models(coast) == ("tilemap-demo-5class",)
    assert config.models(delta) == ("a", "b")
    assert config.cluster.settings().workers == 2


def test_a_model_beside_the_file_is_a_path(tmp_path: Path) -> None:
    """A folder of that name is taken; where there is none it is a name of the registry."""
    (tmp_path / "tilemap-demo-5class").mkdir()
    config = load_config(write(tmp_path, WHOLE))
    assert config.models(config.area("coast")) == (str(tmp_path / "tilemap-demo-5class"),)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("budget =", "bugdet =", "nightly.bugdet is no key that is known; did you mean 'budget'"),
        ("scale =", "scael =", "segment.scael is no key that is known; did you mean 'scale'"),
        ("[change]", "[chnage]", "chnage is no key that is known; did you mean 'change'"),
        ("since =", "sinse =", "areas[0].sinse is no key that is known; did you mean 'since'"),
        ("core = 512", "cor = 512", "areas[0].segment.cor is no key that is known; did you mean"),
        ("bbox =", "bobx =", "areas[1].stac.bobx is no key that is known; did you mean 'bbox'"),
        ("workers =", "worker =", "cluster.worker is no key that is known; did you mean 'workers'"),
        ("price_per", "prize_per", "tell.prize_per_hour is no key that is known; did you mean"),
        ('"6h"', '"6 hours"', "nightly.budget: a duration must look like 90s, 2min, 6h, 7d or 4w"),
        ('root = "out"', "", "nightly.root must be given"),
        ('"coast"', '"The Coast"', "areas[0].name: string should match pattern"),
        ('name = "delta"', 'name = "coast"', "areas must have names of their own, 'coast' is"),
        ('scenes = ["in/coast/*.tif", "/data/coast"]', "", "area coast must have scenes or stac"),
        ("since = 2015-01-01", 'since = "soon"', "areas[0].since: input should be a valid date"),
        ('mask_rule = "scl"', "", "change: mask and mask_rule must be given together"),
        ("clouds/{scene}.tif", "clouds.tif", "change: mask must have {scene} in it"),
        ('api = "https://stac.example.org"', "", "areas[1].stac: either catalog or api must be"),
        ("0.02", '"often"', "change.rate: input should be"),
        ('model = "tilemap-demo-5class"', "", "area coast needs a model, its own or one for all"),
    ],
)
def test_what_is_mistyped_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Key, what must hold, what came, the nearest known key; in one line."""
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, WHOLE.replace(old, new, 1)))
    text = str(caught.value)
    assert told.replace("'coast'", "coast") in text
    assert text.startswith("nightly.toml: ")
    assert "\n" not in text


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    """Not there, or no TOML."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(write(tmp_path, "[nightly"))


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "must be a regular expression"), ("abc", r"must have a group \(\?P<scene>")],
)
def test_patterns_of_scenes(tmp_path: Path, pattern: str, told: str) -> None:
    """A group `scene` is what names a scene."""
    text = WHOLE.replace("since =", f"scene_pattern = '{pattern}'\nsince =")
    with pytest.raises(ConfigError, match=told):
        load_config(write(tmp_path, text))


def test_durations() -> None:
    """Numbers are seconds; texts have a unit."""
    assert parse_duration("1.5d") == 129600
    assert parse_duration(30) == 30
    with pytest.raises(ValueError, match="must look like"):
        parse_duration("soon")
