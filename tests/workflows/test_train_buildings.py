"""The script that trains from labels, on a toy scene; its configurations, on the real ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tilemap.errors import ConfigError
from tilemap.models.networks import build
from tilemap.models.registry import load, resolve
from tilemap.testing import write_config, write_toy_scene
from tilemap.training.config import load_config
from tilemap.training.samples import prepare_data
from tilemap.training.split import Part

WORKFLOWS = Path(__file__).parents[2] / "workflows"
CONFIGS = sorted(
    path
    for path in (WORKFLOWS / "configs").glob("*.toml")
    if path.stem not in ("default_model", "pucallpa_weak")
)
"""Of labels; that of the default model has scenes which its own script makes."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with the toy scene's configuration, on one thread."""
    spec = importlib.util.spec_from_file_location(
        "train_buildings", WORKFLOWS / "train_buildings.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "toy").mkdir()
    table = write_toy_scene(tmp_path / "toy")
    for scene in table["scenes"]:
        scene["files"], scene["labels"] = ["data/scene.tif"], "data/labels.tif"
    monkeypatch.setattr(module, "CONFIGS", [write_config(tmp_path / "one.toml", table)])
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    monkeypatch.setattr(module, "THREADS", 1)
    monkeypatch.setattr(sys, "argv", ["train_buildings.py", str(tmp_path / "toy")])
    return module


def test_it_trains_and_continues(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model with the figures that are printed; the second time nothing is left to do."""
    assert script.main() == 0
    said = capsys.readouterr().out
    folder = tmp_path / "out" / "one" / "model"
    card = resolve(folder).card
    assert f"test IoU of high_field {card.metrics['test_iou_high_field']:.3f}" in said
    assert f"(per pixel {card.metrics['per_pixel_iou_high_field']:.3f})" in said
    assert load(resolve(folder)).predict(np.zeros((2, 32, 64), np.float32)).shape == (2, 32, 64)
    weights = (folder / card.weights).stat().st_mtime_ns
    assert script.main() == 0
    assert capsys.readouterr().out == said
    assert (folder / card.weights).stat().st_mtime_ns == weights


def test_without_a_test_part_it_tells_of_the_validation(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The figure of the weights that were kept, not of the last."""
    table = write_toy_scene(tmp_path / "toy") | {"split": {"block": 32, "test": 0.0}}
    table["scenes"][0] |= {"files": ["data/scene.tif"], "labels": "data/labels.tif"}
    monkeypatch.setattr(script, "CONFIGS", [write_config(tmp_path / "two.toml", table)])
    assert script.main() == 0
    said = capsys.readouterr()
    line = next(row for row in said.out.splitlines() if row.startswith("two:"))
    told = [float(part.split()[-1]) for part in line.split(";")]
    assert "validation IoU of low" in line
    steps = [row for row in said.err.splitlines() if "validation mIoU" in row]
    best = max(float(row.split("mIoU ")[1].split()[0]) for row in steps)
    assert np.mean(told) == pytest.approx(best, abs=2e-3)


def test_a_folder_that_is_not_there_leaves_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The folder of the data is checked before anything is made."""
    monkeypatch.setattr(sys, "argv", ["train_buildings.py", str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="there is no"):
        script.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_sound(path: Path) -> None:
    """They load, their networks can be built, and they look for the data beside themselves."""
    config = load_config(path)
    build(config.model.architecture, len(config.scenes[0].bands or ()), len(config.classes))
    for scene in config.scenes:
        named = [*scene.files, scene.labels, scene.area]
        assert all(Path(n).is_relative_to(path.parent / "data") for n in named if n is not None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_fit_the_data(path: Path, data: Path, tmp_path: Path) -> None:
    """The real scenes give crops of both classes, and blocks to choose by."""
    (tmp_path / "data").symlink_to(data)
    (tmp_path / path.name).write_bytes(path.read_bytes())
    prepared = prepare_data(load_config(tmp_path / path.name), tmp_path / "out")
    assert (prepared.counts[[Part.TRAIN, Part.VALIDATION]] > 1000).all()
    share = prepared.counts[Part.TRAIN] / prepared.counts[Part.TRAIN].sum()
    assert share[0 if "flanders" in path.name else 1] == pytest.approx(
        0.41 if "flanders" in path.name else 0.22, abs=0.02
    )
    batch = prepared.batch(0)
    assert {0, 1} <= set(np.unique(batch.label))
    assert abs(float(batch.image.mean())) < 1
