"""The script that makes the default model: its pieces on toy data, its settings on the card."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine

from tilemap.models.registry import load, resolve
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.training.config import load_config
from tilemap.training.split import Part

SCRIPT = Path(__file__).parents[2] / "workflows" / "make_default_model.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_default_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_average_of_whole_squares(script: ModuleType) -> None:
    """What does not fill a square is left out."""
    image = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
    mean = script.average(image, 2)
    assert mean.shape == (2, 2, 3)
    np.testing.assert_allclose(mean[1, 1, 2], image[1, 2:4, 4:6].mean())


def test_scenes_are_read_as_reflectance(script: ModuleType, tmp_path: Path) -> None:
    """Whole numbers with a scale, real ones as they are; bands by name."""
    stored = np.random.default_rng(0).integers(1, 9000, (6, 20, 30)).astype(np.uint16)
    place = Affine(10, 0, 4e5, 0, -10, 4e6)
    for image, scale in ((stored, 1e-4), ((stored / 1e4).astype(np.float32), 1.0)):
        path = tmp_path / f"{image.dtype}.tif"
        script.write_scene(path, image, place, "EPSG:32618")
        scene = open_scene(SceneRequest((str(path),))).scene
        assert scene.band_names == script.BANDS
        np.testing.assert_allclose(scene.scaling()[0], scale)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), image)


def test_one_ground_is_for_the_same_at_every_scale(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel of 20 m or 30 m is for what the pixels of 10 m in it are for, all of them."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(
        script, "block_tally", lambda store, side, classes: random.integers(0, 9, (10, 9, 5))
    )
    parts = script.split_ground([None] * 4, 5)
    assert [one.block for one in parts] == [216, 108, 72, 128]
    rows, cols = np.mgrid[0:1944:7, 0:1933:11]
    fine = parts[0].blocks[rows // 216, cols // 216]
    for one, factor in ((parts[1], 2), (parts[2], 3)):
        coarse = one.blocks[rows // factor // one.block, cols // factor // one.block]
        np.testing.assert_array_equal(coarse, fine)
    assert {int(v) for v in np.unique(fine)} == {Part.TRAIN, Part.VALIDATION, Part.TEST}


def test_the_teacher_is_read_from_its_file(script: ModuleType, data: Path) -> None:
    """As a network of ours it says what it says in ONNX Runtime; with other weights it does not."""
    pytest.importorskip("onnx")
    teacher = script.read_teacher(data / script.TEACHER)
    script.check_teacher(teacher, data / script.TEACHER)
    with torch.no_grad():
        teacher.head.bias[0] += 1
    with pytest.raises(AssertionError):
        script.check_teacher(teacher, data / script.TEACHER)


def test_the_shipped_card_is_of_this_script(script: ModuleType) -> None:
    """Description and settings in the script are those the model was made with."""
    card = resolve("tilemap-demo-5class").card
    assert card.source == "workflows/make_default_model.py"
    assert card.version == "2"
    assert card.description == script.DESCRIPTION
    config = load_config(script.CONFIG)
    loop, sampling = config.training, config.sampling
    assert card.architecture == {**config.model.architecture, "norm": "before"}
    assert card.training_data[-1] == (
        f"seed {config.seed}, {loop.steps} steps of {sampling.batch} crops of {sampling.crop} x "
        f"{sampling.crop} pixels"
    )
    assert card.statistics is not None
    assert card.gsd_m is not None
    assert card.gsd_m == pytest.approx((10, 30), rel=0.01)


def test_the_shipped_model_agrees_with_its_teacher(script: ModuleType, data: Path) -> None:
    """On nine pieces of the Virginia scene, read as a run reads it."""
    teacher, model = load(resolve(data / script.TEACHER)), load(resolve("tilemap-demo-5class"))
    stored, _, _ = script.read_virginia(data)
    same = []
    for top, left in itertools.product((100, 800, 1600), repeat=2):
        image = stored[:, top : top + 256, left : left + 256] / 1e4
        labels = []
        for one in (teacher, model):
            assert one.card.mean is not None
            assert one.card.std is not None
            mean, std = (np.array(v)[:, None, None] for v in (one.card.mean, one.card.std))
            probability = one.predict(((image - mean) / std).astype(np.float32))
            labels.append(probability.argmax(axis=0)[64:-64, 64:-64])
        same.append((labels[0] == labels[1]).mean())
    assert np.mean(same) > 0.94
