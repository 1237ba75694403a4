"""What one tile costs: measured in a process of its own, kept, and a bound."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap import api
from tilemap import measure as measure_module
from tilemap.errors import ModelError, TilemapError, UnavailableError
from tilemap.measure import WORKER_SLACK_BYTES, Cost, Trial, measure, run_trial
from tilemap.models import registry
from tilemap.models.recipe import Recipe
from tilemap.models.registry import ModelRef
from tilemap.scene import Band, Scene
from tilemap.stages import segment
from tilemap.testing import random_scene, write_geotiff

pytest.importorskip("onnxruntime")


def _scene(dtype: str = "uint16", scale: float = 1e-4) -> Scene:
    geobox = GeoBox((900, 700), Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
    return Scene(geobox, (Band("red", dtype, scale=scale, scaled=True),) * 6, "memory")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing was measured here before."""
    monkeypatch.setenv("TILEMAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def trial() -> Trial:
    """A small patch of the small model that ships."""
    recipe = Recipe((registry.resolve("iplunet-cloud-6b"),))
    return Trial(recipe, _scene(), 256, "auto", "float32", 1)


SEGMENT_ONCE = """
import pickle, sys
import tilemap.worker
from tilemap.measure import _peak, _run_once
trial = pickle.load(sys.stdin.buffer)
_run_once(trial, trial.side)
print(_peak())
"""


def test_the_bound_is_above_what_the_same_tile_uses(home: Path, trial: Trial) -> None:
    """In another process, also without the slack that is for what a worker does besides."""
    import pickle

    trial = dataclasses.replace(trial, side=640)
    cost = measure(trial)
    ran = subprocess.run(
        [sys.executable, "-c", SEGMENT_ONCE],
        input=pickle.dumps(dataclasses.replace(trial, device="cpu")),
        capture_output=True,
        check=True,
    )
    used = int(ran.stdout)
    assert used <= cost.worker_bytes(640) - WORKER_SLACK_BYTES // 2
    assert used > cost.base_bytes / 2
    assert cost.device == "cpu"
    assert cost.worker_bytes(640) < 4 * used  # a bound that says nothing would be of no use
    assert cost.worker_bytes(1024) > cost.worker_bytes(640)


def test_a_cost_is_measured_once(home: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it comes from the user's folder; another patch is another measurement."""
    cost = measure(trial)
    (kept,) = (home / "measured").iterdir()
    assert Cost(**json.loads(kept.read_text())) == cost

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert measure(trial) == cost
    twice = Recipe(trial.model.members * 2)
    changes: list[dict[str, object]] = [
        {"side": 512}, {"precision": "bfloat16"}, {"scene": _scene("float32")}, {"model": twice},
        {"model": Recipe(trial.model.members, "flips")}, {"uncertainty": ("entropy",)},
        {"engine": "openvino"},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(AssertionError, match="measured again"):
            measure(dataclasses.replace(trial, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"device": "cpu"}', '{"side": 3}'])
def test_a_damaged_record_is_measured_again(
    home: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """As after a crash; the answer of the process stands in its place afterwards."""
    want = Cost("cpu", 1, 2.0, 3.0)
    answer = json.dumps(dataclasses.asdict(want)).encode() + b"\n"
    done = subprocess.CompletedProcess([], 0, b"a library's greeting\n" + answer, b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    measure(trial)
    (kept,) = (home / "measured").iterdir()
    kept.write_text(content)
    assert measure(trial) == want
    assert Cost(**json.loads(kept.read_text())) == want


def test_seconds_that_were_kept_choose_no_core(home: Path, tmp_path: Path) -> None:
    """Whatever a machine has timed, for any model: the plan's estimate alone follows it."""
    path = write_geotiff(
        tmp_path / "s.tif",
        random_scene((1200, 1300), bands=6),
        names=registry.resolve("iplunet-cloud-6b").card.bands,
        scale=1e-4,
    )
    before = api.plan(path, model="iplunet-cloud-6b")
    (kept,) = (home / "measured").iterdir()
    figures = json.loads(kept.read_text())
    for name in figures:
        if "seconds" in name:
            now = {**figures, name: figures[name] / 100}
            kept.write_text(json.dumps(now))
            after = api.plan(path, model="iplunet-cloud-6b")
            assert after.plan.grid == before.plan.grid
            assert after.digest == before.digest
    assert after.plan.seconds < before.plan.seconds


def test_a_home_that_cannot_be_written_is_no_error(
    tmp_path: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only costs the next run some seconds."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TILEMAP_HOME", str(tmp_path / "file"))
    answer = json.dumps(dataclasses.asdict(Cost("cpu", 1, 2.0, 3.0))).encode()
    done = subprocess.CompletedProcess([], 0, answer, b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert measure(trial).base_bytes == 1


def test_an_error_of_the_model_comes_back_as_it_was(
    home: Path, trial: Trial, tmp_path: Path
) -> None:
    """Its kind, its text and so its exit code; nothing is kept."""
    folder = tmp_path / "model"
    (member,) = trial.model.members
    shutil.copytree(member.path.parent, folder)
    (folder / member.path.name).write_bytes(b"not the weights")
    with pytest.raises(ModelError, match="not the weights of iplunet-cloud-6b") as caught:
        measure(dataclasses.replace(trial, model=Recipe((registry.resolve(folder),))))
    assert type(caught.value) is ModelError
    assert caught.value.exit_code == 65
    assert not home.exists()


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (
            subprocess.CompletedProcess([], -9, b"", b""),
            "memory; measuring it was ended by signal 9",
        ),
        (
            subprocess.CompletedProcess([], 1, b"", b"Traceback\n  ...\nMemoryError\n"),
            "measuring one tile of .* failed: MemoryError",
        ),
    ],
)
def test_a_process_that_dies_is_told_in_one_line(
    home: Path,
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
    done: subprocess.CompletedProcess[bytes],
    says: str,
) -> None:
    """Killed for its memory, or by an error that is none of ours."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(TilemapError, match=says) as caught:
        measure(trial)
    assert len(str(caught.value).splitlines()) == 1


def test_errors_keep_their_kind(home: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, among those of the package."""
    answer = json.dumps({"type": "UnavailableError", "error": "no CUDA here"}).encode()
    done = subprocess.CompletedProcess([], 0, answer, b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UnavailableError, match="no CUDA here"):
        measure(trial)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_the_trial_shows_the_model_reflectance(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Numbers as a scene has them, whatever their dtype: a model need not bear others."""
    seen: list[np.ndarray] = []
    real = trial.model.load()

    class Watched:
        card = real.card

        def predict(self, image, crop=None):  # type: ignore[no-untyped-def]
            seen.append(image)
            return real.predict(image, crop)

    monkeypatch.setattr(registry, "load", lambda *_: Watched())
    scale = {"uint8": 1 / 255, "float32": 1.0}.get(dtype, 1e-4)
    run_trial(dataclasses.replace(trial, scene=_scene(dtype, scale), side=64))
    assert all(np.isfinite(image).all() for image in seen)
    assert max(float(image.max()) for image in seen) <= 1.0
    assert {image.shape for image in seen} == {(6, 64, 64), (6, 32, 32)}


def test_uncertainty_and_every_forward_are_measured_too(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial does what a worker will do with a patch."""
    calls: list[tuple[int, tuple[str, ...]]] = []
    real = segment.segment_patch

    class Counted:
        card = trial.model.card
        forwards = 0

        def predict(self, image, crop=None):  # type: ignore[no-untyped-def]
            Counted.forwards += 1
            shape = image.shape[1:] if crop is None else crop.shape
            return np.full((2, *shape), 0.5, np.float32)

    def watch(*arguments):  # type: ignore[no-untyped-def]
        prediction = real(*arguments)
        calls.append((Counted.forwards, tuple(prediction.uncertainty)))
        return prediction

    monkeypatch.setattr(registry, "load", lambda *_: Counted())
    monkeypatch.setattr(segment, "segment_patch", watch)
    recipe = Recipe(trial.model.members * 2, "rotations")
    run_trial(dataclasses.replace(trial, model=recipe, uncertainty=("margin",), side=64))
    assert calls == [(16 * (i + 1), ("margin",)) for i in range(4)]


def test_a_model_of_one_size_is_measured_at_that_size(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; what the patch adds to the loaded model gives the slope."""
    sizes: list[int] = []

    def run_once(_: Trial, side: int) -> tuple[int, float]:
        sizes.append(side)
        return 10**12 + 1000 * side * side, 1.0

    monkeypatch.setattr(measure_module, "_run_once", run_once)
    monkeypatch.setattr(measure_module, "_peak", lambda: 10**12)
    card = trial.model.card.model_copy(update={"patch": 128})
    (member,) = trial.model.members
    ref = ModelRef(card, member.path, member.digest, member.card_path)
    cost = run_trial(dataclasses.replace(trial, model=Recipe((ref,)), side=999))
    assert sizes == [128]
    assert cost.bytes_per_pixel >= 1000
    assert cost.worker_bytes(128) >= 10**12 + 1000 * 128 * 128
