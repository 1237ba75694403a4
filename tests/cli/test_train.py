"""``tilemap train`` for a person: plan, table, and what is wrong in a line or two."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
from rich.console import Console

from tilemap.cli.main import main
from tilemap.cli.progress import ConsoleTraining
from tilemap.models.registry import resolve
from tilemap.testing import write_config, write_geotiff, write_toy_scene
from tilemap.training import fit


class Ran(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a person works in: a scene, labels and ``config.toml``."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "config.toml", write_toy_scene(tmp_path))
    return tmp_path


@pytest.fixture
def tilemap(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out, err)

    return run


def contents(folder: Path) -> dict[str, str]:
    """Digests of the files, names of the folders."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def test_a_training_on_the_command_line(tilemap: Run, folder: Path) -> None:
    """The plan first, then a table against the baselines; the model is one of tilemap's."""
    ran = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert ran.code == 0, ran.err
    plan = ran.err.split("step 4:")[0]
    assert "scene    scene: 160 x 224 pixels" in plan
    assert re.search(r"class    high field: \d+ labelled pixels to train on, \d+ to", plan)
    assert "split    blocks of 32 pixels, seed 0" in plan
    assert "model    unet (encoder resnet18, width 4): 0.08 million weights" in plan
    assert "steps    8 of 2 crops of 32 pixels, float32 on cpu, 1 threads" in plan
    assert re.search(r"step 8: validation mIoU 0\.\d+ \(low 0\.\d+, high field", ran.err)
    rows = ran.out.splitlines()
    assert rows[0].split() == ["network", "per", "pixel", "one", "class"]
    assert rows[-1].endswith("wrote out/model")
    assert rows[-2].startswith("warning  On the test blocks the network's mean IoU is 0.")
    assert len({len(row) for row in rows[:-2]}) == 1
    assert resolve(folder / "out" / "model").card.name == "toy"
    again = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert (again.code, again.out) == (0, ran.out)
    assert "done     out holds this training, finished" in again.err


def test_ctrl_c_and_the_same_command(
    tilemap: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the same command continues, and it does."""

    def interrupted(self: object, step: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleTraining, "step", interrupted)
        ran = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert ran.code == 130
    assert ran.err.strip().endswith("stopped; the same command continues")
    ran = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert ran.code == 0
    assert "continuing after step 3 of 8" in ran.err


def _set(table: str, **values: Any) -> Change:
    def change(config: dict[str, Any]) -> None:
        target = config[table]
        (target[0] if isinstance(target, list) else target).update(values)

    return change


def _elsewhere(config: dict[str, Any]) -> None:
    with rasterio.open("labels.tif") as file:
        values = file.read()
    far = rasterio.Affine(10, 0, 700_000, 0, -10, 4_900_000)
    write_geotiff(Path("labels.tif"), values, transform=far, nodata=0)


def _unknown_value(config: dict[str, Any]) -> None:
    with rasterio.open("labels.tif", "r+") as file:
        values = file.read()
        values[0, 3:6, 5:9] = 7
        file.write(values)


def _class_without_samples(config: dict[str, Any]) -> None:
    config["classes"].append({"name": "snow", "value": 3})


BAD: dict[str, tuple[Change, int, str]] = {
    "an unknown key": (_set("training", stesp=3), 78, r"training\.stesp .* mean 'steps'"),
    "a number out of range": (_set("training", rate=-1.0), 78, r"training\.rate"),
    "labels elsewhere": (_elsewhere, 65, "labels"),
    "an unknown value": (_unknown_value, 65, r"\b7\b"),
    "a class without samples": (_class_without_samples, 65, "snow"),
    "a band that is not there": (_set("model", bands=["red", "swir16"]), 65, "swir16"),
    "a crop that does not fit": (_set("sampling", crop=40), 78, "multiple of 32"),
    "no such scene": (_set("scenes", files=["none.tif"]), 65, r"none\.tif"),
    "no such labels": (_set("scenes", labels="none.tif"), 65, r"none\.tif"),
    "no such network": (_set("model", arch="lenet"), 65, "architecture name must be one of"),
    "no such option": (_set("model", depth=3), 65, "'depth'"),
    "no such encoder weights": (_set("model", weights="none.pth"), 65, r"none\.pth"),
    "too few blocks": (_set("split", block=4096), 78, "block"),
}


@pytest.mark.parametrize(("change", "code", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_before_the_first_step(
    change: Change, code: int, message: str, tilemap: Run, folder: Path
) -> None:
    """One or two lines, the code of its kind, and nothing is left."""
    table = write_toy_scene(folder)
    change(table)
    write_config(folder / "config.toml", table)
    before = contents(folder)
    ran = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert ran.code == code, ran.err
    error = ran.err.split("error: ", 1)[1]
    assert re.search(message, error), error
    assert 1 <= len(error.strip().splitlines()) <= 2
    assert "Traceback" not in ran.err
    assert contents(folder) == before


def test_a_config_that_is_not_there_or_no_toml(tilemap: Run, folder: Path) -> None:
    """Named, with the reason."""
    ran = tilemap("train", "none.toml", "--out", "out")
    assert (ran.code, ran.err) == (
        78,
        "error: none.toml: cannot be read: No such file or directory\n",
    )
    (folder / "config.toml").write_text("name = [")
    ran = tilemap("train", "config.toml", "--out", "out")
    assert ran.code == 78
    assert "config.toml: is not TOML" in ran.err
    assert not (folder / "out").exists()


def test_options_that_cannot_hold(tilemap: Run, folder: Path) -> None:
    """A device that is none or not there, no threads, an output that is a file."""
    assert tilemap("train", "config.toml", "--out", "o", "--device", "abacus").code == 2
    assert tilemap("train", "config.toml", "--out", "o", "--device", "cuda:99").code == 69
    assert tilemap("train", "config.toml", "--out", "o", "--threads", 0).code == 2
    ran = tilemap("train", "config.toml", "--out", "scene.tif", "--threads", 1)
    assert ran.code == 73
    assert not (folder / "o").exists()


def test_a_loss_that_is_no_number(
    tilemap: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code of bad data, step and crops named, the checkpoint before it is kept."""
    loss = fit.batch_loss
    calls: list[int] = []

    def broken(*arguments: Any) -> Any:
        calls.append(1)
        return loss(*arguments) * (np.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(fit, "batch_loss", broken)
    ran = tilemap("train", "config.toml", "--out", "out", "--threads", 1)
    assert ran.code == 65
    error = ran.err.split("error: ", 1)[1].strip().splitlines()
    assert re.match(
        r"step 6 .* the loss is nan; its crops: scene\.tif rows \d+-\d+, cols", error[0]
    )
    assert error[1].startswith("the checkpoint of step 3 is kept; lower training.rate")
    assert (folder / "out" / "checkpoint.safetensors").exists()
    assert not (folder / "out" / "model").exists()


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps done, loss, speed and time left."""
    console = Console(force_terminal=True, width=100, record=True)
    progress = ConsoleTraining(console)
    progress.begin(10, 4)
    for step in (5, 6, 7):
        progress.step(step, 0.5)
    progress.end()
    progress.end()
    shown = console.export_text()
    assert "continuing after step 4 of 10" in shown
    assert re.search(r"7/10 +steps +loss 0\.5000, [\d.]+ steps/s", shown)


def test_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Now and then, not at every step."""
    progress = ConsoleTraining()
    progress.begin(10, 0)
    progress.step(1, 0.5)
    assert capsys.readouterr().err == ""
    progress._printed -= 60
    progress.step(2, 0.25)
    progress.step(3, 0.25)
    told = capsys.readouterr().err
    assert re.fullmatch(r"step 2 of 10, loss 0\.2500, [\d.]+ steps/s, \d+ s left\n", told)
    progress.end()
