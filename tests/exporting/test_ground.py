"""What forms are compared on, and their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.exporting.ground import Ground, find_ground, measure_forms, read_labels, speed_of
from tilemap.geometry import Window
from tilemap.models.parity import labels_of
from tilemap.models.protocol import Model
from tilemap.scene import SceneRequest
from tilemap.testing import load_toy, toy_card, write_geotiff


@pytest.fixture
def model() -> Model:
    """A toy that takes patches of 64 pixels."""
    return load_toy(toy_card(context=2, patch=64))


@pytest.fixture
def scene(tmp_path: Path, model: Model) -> Path:
    """300 x 380 pixels; the first rows are not observed."""
    image = np.random.default_rng(1).integers(1, 9000, (3, 300, 380)).astype(np.uint16)
    image[:, :70] = 0
    names = model.card.bands
    return write_geotiff(tmp_path / "scene.tif", image, names=names, scale=1e-4, nodata=0)


@pytest.fixture
def ground(model: Model, scene: Path) -> Ground:
    """Four crops of it."""
    return find_ground(model, SceneRequest((str(scene),)), 4)


def test_crops_come_from_all_over_the_scene(model: Model, ground: Ground) -> None:
    """Different ones, of the size the model takes, where the scene was observed."""
    windows = {crop.window for crop in ground.crops}
    assert len(windows) == 4
    assert len({window.top for window in windows}) > 1
    assert len({window.left for window in windows}) > 1
    assert all(Window(0, 0, 300, 380).contains(window) for window in windows)
    assert all(crop.valid.mean() >= 0.9 for crop in ground.crops)
    assert [patch.shape for patch in ground.patches] == [(3, 64, 64)] * 4
    assert max(window.top for window in windows) > 150


def test_a_scene_of_nodata_has_no_ground(tmp_path: Path, model: Model) -> None:
    """Said in one line."""
    image = np.zeros((3, 80, 90), np.uint16)
    write_geotiff(tmp_path / "a.tif", image, names=model.card.bands, scale=1e-4, nodata=0)
    with pytest.raises(SceneError, match="at most 10 % nodata are needed, a has none"):
        find_ground(model, SceneRequest((str(tmp_path / "a.tif"),)), 2)


def write_labels(path: Path, scene: Path, values: np.ndarray, **options: Any) -> str:
    """Class values on the grid of the scene."""
    return str(write_geotiff(path, values[None].astype(np.uint8), names=("label",), **options))


def test_reference_labels_by_value(
    tmp_path: Path, model: Model, scene: Path, ground: Ground
) -> None:
    """Values become class indices; others, and pixels not observed, do not count."""
    values = np.array([info.value for info in model.card.classes] + [77])
    drawn = np.random.default_rng(2).integers(0, len(values), (300, 380))
    path = write_labels(tmp_path / "labels.tif", scene, values[drawn])
    found = read_labels(path, ground, model.card)
    expected = np.where(drawn == len(values) - 1, -1, drawn)
    for crop, index in zip(ground.crops, found, strict=True):
        part = expected[crop.window.top : crop.window.bottom, crop.window.left : crop.window.right]
        np.testing.assert_array_equal(index, np.where(crop.valid, part, -1))


def test_labels_that_do_not_fit_are_refused(
    tmp_path: Path, model: Model, scene: Path, ground: Ground
) -> None:
    """Another grid, or no class of the card."""
    path = write_labels(tmp_path / "small.tif", scene, np.ones((299, 380)))
    with pytest.raises(SceneMismatchError, match="differ in shape"):
        read_labels(path, ground, model.card)
    path = write_labels(tmp_path / "other.tif", scene, np.full((300, 380), 77))
    with pytest.raises(SceneError, match="must have values of the classes"):
        read_labels(path, ground, model.card)


def test_figures_of_forms(tmp_path: Path, model: Model, ground: Ground) -> None:
    """The first is compared with itself; a form that swaps classes has no overlap left."""

    class Swapped:
        card, backend = model.card, "swapped"

        def predict(self, image: np.ndarray, crop: Window | None = None) -> np.ndarray:
            return np.ascontiguousarray(np.roll(model.predict(image, crop), 1, axis=0))

    for name, size in (("one", 100), ("two", 7)):
        (tmp_path / name).write_bytes(bytes(size))
    truth = [labels_of(model.predict(patch)).astype(np.int64) for patch in ground.patches]
    found = measure_forms(
        {"one": (model, tmp_path / "one"), "two": (Swapped(), tmp_path / "two")}, ground, truth
    )
    assert [each.bytes for each in found.values()] == [100, 7]
    assert [each.parity.labels_differ for each in found.values()] == [0, 1]
    assert [each.miou for each in found.values()] == [1, 0]
    assert all(each.mpx_s > 0 for each in found.values())
    assert measure_forms({"one": (model, tmp_path / "one")}, ground)["one"].miou is None


def test_speed_is_the_median_of_interleaved_rounds(
    model: Model, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: one slow round does not count, a slow model does."""
    clock, turns = [0.0], []

    class Timed:
        card, backend = model.card, "timed"

        def __init__(self, name: str, seconds: float) -> None:
            self.name, self.seconds, self.calls = name, seconds, 0

        def predict(self, image: np.ndarray, crop: Window | None = None) -> np.ndarray:
            turns.append(self.name)
            self.calls += 1
            clock[0] += self.seconds * (50 if self.calls == 3 else 1)
            return image

    monkeypatch.setattr("tilemap.exporting.ground.time.process_time", lambda: clock[0])
    forms = {"fast": Timed("fast", 0.001), "slow": Timed("slow", 0.004)}
    found = speed_of(forms, ground.patches)
    assert abs(found["fast"] - 64 * 64 / 1e6 / 0.001) < 1e-6
    assert abs(found["slow"] - 64 * 64 / 1e6 / 0.004) < 1e-6
    assert turns == ["fast", "slow"] * (len(turns) // 2)
