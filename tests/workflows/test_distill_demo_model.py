"""The script that makes the demo model, on a toy scene: every step, a few pixels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tilemap.models.card import ModelCard
from tilemap.models.mlm import read_card
from tilemap.models.registry import SHIPPED, load, resolve

SCRIPT = Path(__file__).parents[2] / "workflows" / "distill_demo_model.py"
TEACHER = read_card(SHIPPED / "ukis-csmask-6b-5class" / "model.json")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with settings for a few seconds."""
    spec = importlib.util.spec_from_file_location("distill_demo_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    for name, value in (("STEPS", 80), ("BATCH", 4), ("CROP", 64), ("MARGIN", 8)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "SHARE", {"10m": 0.5, "hand": 0.5})
    return module


def lesson(script: ModuleType, seed: int) -> object:
    """Fields of 16 pixels, dark in the near infrared (water) or bright (land)."""
    random = np.random.default_rng(seed)
    land = np.kron(random.integers(0, 2, (12, 10)), np.ones((16, 16), int))
    image = np.full((6, *land.shape), 0.1) + random.normal(0, 0.01, (6, *land.shape))
    image[3] += 0.4 * land
    teacher = np.full((5, *land.shape), 0.01, np.float32)
    teacher[1] = np.where(land, 0.01, 0.96)
    teacher[3] = np.where(land, 0.96, 0.01)
    held = script.hold_out(land.shape, 32, random)
    return script.Lesson(image.astype(np.float32), teacher, held)


def test_a_few_steps_learn_water_from_land(script: ModuleType, tmp_path: Path) -> None:
    """The folder it writes is a model that agrees with the teacher where nothing was learnt."""
    torch.set_num_threads(1)
    lessons = {"10m": lesson(script, 1), "hand": lesson(script, 2)}
    network = script.train(lessons, TEACHER)
    drawn = lessons["hand"].teacher.argmax(axis=0)  # type: ignore[attr-defined]
    metrics = script.measure(network, TEACHER, lessons, drawn)
    assert metrics["agreement_virginia_10m"] > 0.9
    assert metrics["accuracy_csmask"] == metrics["agreement_csmask"]
    assert metrics["teacher_accuracy_csmask"] == 1
    for name in (script.TEN_M, script.TWENTY_M, script.HAND, script.TEACHER):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    script.write(network, TEACHER, metrics, tmp_path, tmp_path / "out")
    model = load(resolve(tmp_path / "out"))
    assert model.card.metrics == metrics
    assert model.card.architecture == script.ARCHITECTURE
    image = script.standardise(lessons["10m"].image, TEACHER)  # type: ignore[attr-defined]
    label = model.predict(image[:, :192, :160]).argmax(axis=0)
    expected = lessons["10m"].teacher.argmax(axis=0)  # type: ignore[attr-defined]
    assert (label == expected)[32:-32, 32:-32].mean() > 0.9


def test_the_shipped_card_is_of_this_script() -> None:
    """Description and settings in the script are those the model was made with."""
    card: ModelCard = resolve("tilemap-demo-5class").card
    text = SCRIPT.read_text()
    assert card.source == "workflows/distill_demo_model.py"
    assert "seed 20, 2000 steps of 8 crops of 192 x 192 pixels" in card.training_data
    for setting in ("SEED = 20", "STEPS = 2000", "BATCH = 8", "CROP = 192", f"HALO = {card.halo}"):
        assert setting in text


def test_whole_puts_every_patch_where_it_belongs(script: ModuleType) -> None:
    """With a model that gives back the middle of what it sees, the scene comes back."""
    image = np.random.default_rng(0).normal(size=(2, 70, 101)).astype(np.float32)
    seen = script.whole(lambda patch: patch[:, 8:40, 8:40], image, 8, 32)
    np.testing.assert_array_equal(seen, image)


def test_held_out_blocks_are_the_share_asked_for(script: ModuleType) -> None:
    """Whole blocks, the last ones cut by the scene."""
    held = script.hold_out((100, 130), 10, np.random.default_rng(0))
    blocks = held[:100:10, :130:10]
    assert blocks.sum() == round(0.2 * 130)
    np.testing.assert_array_equal(held, np.kron(blocks, np.ones((10, 10), bool)))
