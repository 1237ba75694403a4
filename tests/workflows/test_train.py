"""The training script on a toy scene: it trains, tells how good the model is, and maps with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import rasterio

from tilemap.models.registry import resolve
from tilemap.testing import write_config, write_toy_scene

SCRIPT = Path(__file__).parents[2] / "workflows" / "train.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, on one thread, in a folder with ``config.toml``."""
    spec = importlib.util.spec_from_file_location("train", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "THREADS", 1)
    write_config(tmp_path / "config.toml", write_toy_scene(tmp_path))
    return module


@pytest.mark.slow
def test_it_trains_and_maps(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map has the classes of the configuration; a goal that is not reached maps nothing."""
    monkeypatch.setattr(script, "GOAL", 1.0)
    monkeypatch.setattr(script, "SCENE", Path("scene.tif"))
    assert script.main(Path("config.toml")) == 3
    assert "not used: the mean IoU must be at least 1.0" in capsys.readouterr().out
    assert not Path("mapped").exists()
    monkeypatch.setattr(script, "GOAL", 0.0)
    assert script.main(Path("config.toml")) == 0
    told = capsys.readouterr().out
    miou = resolve("training/model").card.metrics["test_miou"]
    assert f"{'test_miou':<24} {miou}" in told
    with rasterio.open("mapped/landcover.tif") as got, rasterio.open("scene.tif") as scene:
        assert got.shape == scene.shape
        assert set(got.read(1).ravel().tolist()) <= {1, 2, 255}
