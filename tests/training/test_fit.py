"""The loop on toy data: what it learns, keeps, tells, and where it goes on after a kill."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tilemap.errors import ConfigError, OutputError, TrainingError, UnavailableError, UsageError
from tilemap.evaluation.metrics import confusion
from tilemap.models.networks import build
from tilemap.testing import ToyData
from tilemap.training import checkpoint as disk
from tilemap.training.baseline import fit_pixels
from tilemap.training.config import TrainingConfig, parse_config
from tilemap.training.fit import fine_tune, fit, layout_of, losses_of
from tilemap.training.history import read_history
from tilemap.training.interface import Place, Silent
from tilemap.training.losses import IGNORE, balanced_weights
from tilemap.training.running import Ahead, pick_device
from tilemap.training.split import Part
from tilemap.training.validate import block_logits, count_pairs, labelled, mean_iou, sample

KILLED = Path(__file__).with_name("killed_fit.py")


def toy_config(loss: dict[str, Any] | None = None, **loop: Any) -> TrainingConfig:
    """Of a toy training; ``loop`` is its table [training]."""
    return parse_config(
        {
            "name": "toy",
            "scenes": [{"files": ["a.tif"], "labels": "b.tif"}],
            "classes": [{"name": f"class {i + 1}", "value": i + 1} for i in range(3)],
            "loss": loss or {},
            "training": {"steps": 6, "rate": 1e-2, "device": "cpu", **loop},
        },
        Path(),
    )


class PixelNet(nn.Module):
    """A network of single pixels: quick, and with normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.head(self.norm(self.conv(image)).relu())  # type: ignore[no-any-return]


def pixel_net(seed: int = 0) -> PixelNet:
    """Always the same."""
    torch.manual_seed(seed)
    return PixelNet()


class Heard(Silent):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.ended = 0

    def note(self, text: str) -> None:
        """Kept."""
        self.notes.append(text)

    def step(self, step: int, loss: float) -> None:
        """Kept."""
        self.steps.append(step)

    def end(self) -> None:
        """Counted."""
        self.ended += 1


def test_it_learns(tmp_path: Path) -> None:
    """Better than chance on held-out blocks; every step, rate and validation is written down."""
    heard = Heard()
    data = ToyData(noise=0.25, size=4)
    config = toy_config(steps=60, rate=3e-2, validate_every=20, ema=0.8)
    fitted = fit(pixel_net(), data, config, Place(folder=tmp_path), heard)
    matrix = count_pairs(fitted.network, data.blocks(Part.TEST), 3)
    assert mean_iou(matrix) > 0.8
    assert heard.steps == list(range(1, 61))
    assert heard.ended == 1
    lines = read_history(tmp_path / "metrics.jsonl")
    assert lines == fitted.lines
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 61))
    told = [line for line in lines if "miou" in line]
    assert [line["step"] for line in told] == [20, 40, 60]
    assert fitted.progress.best == max(line["miou"] for line in told)
    assert set(told[0]["iou"]) == {"class 1", "class 2", "class 3"}
    assert not fitted.network.training


def test_the_best_weights_are_given_back(tmp_path: Path) -> None:
    """Those of the validation that was best, whatever came after; early stopping counts them."""
    data = ToyData(noise=0.25)
    # a rate this large makes the network worse again, sooner or later
    config = toy_config(steps=200, rate=0.5, validate_every=2, patience=3, clip=0.0)
    heard = Heard()
    fitted = fit(pixel_net(), data, config, Place(folder=tmp_path), heard)
    told = [line for line in fitted.lines if "miou" in line]
    found = [line["miou"] for line in told]
    first = found.index(max(found))
    assert len(found) == first + 4  # three in a row without a better one
    assert fitted.progress.step < 200
    assert "it ends" in heard.notes[-1]
    assert fitted.progress.best_step == told[first]["step"]
    matrix = count_pairs(fitted.network, data.blocks(Part.VALIDATION), 3)
    assert mean_iou(matrix) == fitted.progress.best
    again = fit(pixel_net(), data, config, Place(folder=tmp_path))
    assert again.progress.step == fitted.progress.step  # it has ended, and stays so
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, fitted.network.state_dict()[name])


def test_without_validation_blocks_the_last_weights_count() -> None:
    """Nothing to choose by."""
    data = ToyData()
    data.counts[Part.VALIDATION] = 0
    fitted = fit(pixel_net(), data, toy_config(validate_every=2))
    assert fitted.progress.kept_step is None
    assert all("loss" in line for line in fitted.lines)


@pytest.mark.slow
def test_killed_and_continued_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """SIGKILL in the middle of a checkpoint and at three random moments of a real network."""
    done = subprocess.run(
        [sys.executable, str(KILLED), str(tmp_path), "7"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    """Step and crops are named, the last checkpoint is kept and nothing else is begun."""
    heard = Heard()
    config = toy_config(checkpoint_every=2)
    with pytest.raises(TrainingError) as told:
        fit(pixel_net(), ToyData(broken=4), config, Place(folder=tmp_path), heard)
    assert told.value.exit_code == 65
    lines = str(told.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 5 must have a finite loss and gradient, but the loss is nan")
    assert "toy rows 4, cols 0; toy rows 4, cols 1" in lines[0]
    assert lines[1].startswith("the checkpoint of step 4 is kept; ")
    assert heard.ended == 1
    assert {path.name for path in tmp_path.iterdir()} == {disk.FILE, "metrics.jsonl"}
    kept = disk.read_checkpoint(tmp_path / disk.FILE)
    assert kept.progress.step == 4
    assert all(torch.isfinite(value.float()).all() for value in kept.model.values())


def test_another_trainings_checkpoint_is_refused(tmp_path: Path) -> None:
    """By name; nothing is changed."""
    fit(pixel_net(), ToyData(), toy_config(), Place(folder=tmp_path, identity="one"))
    before = (tmp_path / disk.FILE).read_bytes()
    with pytest.raises(OutputError, match="another training"):
        fit(pixel_net(), ToyData(), toy_config(), Place(folder=tmp_path, identity="two"))
    assert (tmp_path / disk.FILE).read_bytes() == before


def test_other_threads_are_told_of(tmp_path: Path) -> None:
    """Sums are made in another order then: said, not hidden."""
    fit(pixel_net(), ToyData(), toy_config(), Place(threads=1, folder=tmp_path))
    heard = Heard()
    fit(pixel_net(), ToyData(), toy_config(), Place(threads=2, folder=tmp_path), heard)
    assert any("continuing with threads 2, it was 1" in note for note in heard.notes)


def test_settings_of_torch_are_as_before() -> None:
    """Threads and the state of the generator belong to whoever calls."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    fit(pixel_net(5), ToyData(), toy_config(steps=1), Place(threads=threads + 1))
    assert torch.get_num_threads() == threads
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


def test_fine_tuning_goes_on_from_the_weights_there_are() -> None:
    """A network that is good already stays good; the rate is that of a short training."""
    data = ToyData(noise=0.25, size=4)
    config = toy_config(steps=50, rate=3e-2)
    fitted = fit(pixel_net(), data, config)
    before = mean_iou(count_pairs(fitted.network, data.blocks(Part.TEST), 3))
    tuned = fine_tune(fitted.network, data, config, 5)
    assert tuned.progress.step == 5
    after = mean_iou(count_pairs(tuned.network, data.blocks(Part.TEST), 3))
    assert after > before - 0.05


def test_steps_that_only_harm_are_not_kept(tmp_path: Path) -> None:
    """The weights it began with count as step 0, also when it is killed before a checkpoint."""
    data = ToyData(noise=0.25, size=4)
    good = fit(pixel_net(), data, toy_config(steps=50, rate=3e-2)).network
    before = {name: value.clone() for name, value in good.state_dict().items()}
    own = mean_iou(count_pairs(good, data.blocks(Part.VALIDATION), 3))
    ruinous = toy_config(rate=1e3, clip=0.0, validate_every=2, checkpoint_every=4, ema=0.5)

    class Killed(Silent):
        def step(self, step: int, loss: float) -> None:
            if step == 3:
                raise KeyboardInterrupt

    place = Place(folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(good), data, ruinous, place, Killed(), learned=True)
    tuned = fit(copy.deepcopy(good), data, ruinous, place, learned=True)
    assert (tuned.progress.kept_step, tuned.progress.best) == (0, own)
    for name, value in tuned.network.state_dict().items():
        assert torch.equal(value, before[name])
    told = [line["step"] for line in read_history(tmp_path / "metrics.jsonl") if "miou" in line]
    assert told == [0, 2, 4, 6]
    again = fine_tune(copy.deepcopy(good), data, ruinous, 3)
    assert again.progress.kept_step == 0
    assert fit(pixel_net(), data, toy_config(steps=1)).progress.kept_step == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_is_the_same_every_time(precision: str) -> None:
    """With dropout, whose draws are a function of the step."""
    made = []
    for _ in range(2):
        network = nn.Sequential(pixel_net(), nn.Dropout(0.2))
        fitted = fit(network, ToyData(), toy_config(precision=precision))
        made.append(fitted.network.state_dict())
        torch.rand(1)
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


def test_a_narrow_network_is_trained_on_large_crops() -> None:
    """Its process lives: eight channels, channels last and 256 pixels end torch on some CPUs."""
    network = build({"name": "unet", "encoder": "resnet18", "width": 8}, 4, 3)
    layout = layout_of(network)
    network.train().to(memory_format=layout)  # type: ignore[call-overload]
    image = torch.randn(2, 4, 256, 256).to(memory_format=layout)
    network(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus", "plain_unet", "fcn"])
def test_a_network_of_common_width_has_its_channels_last(name: str) -> None:
    """It is faster so; the two or three channels of its head do not count."""
    assert layout_of(build({"name": name}, 4, 3)) is torch.channels_last


def test_a_batch_too_small_for_normalisation() -> None:
    """One value of each plane is an error of the configuration, and says so."""
    network = build({"name": "unet", "width": 4}, 2, 3)
    with pytest.raises(ConfigError, match=r"raise sampling\.batch or sampling\.crop"):
        fit(network, ToyData(size=1), toy_config())


def test_losses_of_a_configuration() -> None:
    """Names, weights and the teacher's share come through."""
    counts = np.array([[100, 50, 10], [9, 9, 9], [9, 9, 9]])
    made = losses_of(toy_config({"name": "focal+dice", "weights": "balanced", "gamma": 1}), counts)
    assert (made.pixel, made.dice, made.gamma) == ("focal", True, 1)
    assert made.weights == balanced_weights(counts[0])
    made = losses_of(toy_config({"name": "dice", "weights": [1, 2, 3]}), counts)
    assert (made.pixel, made.dice, made.weights) == (None, True, (1.0, 2.0, 3.0))
    made = losses_of(toy_config({"smoothing": 0.1}), counts)
    assert (made.pixel, made.dice, made.weights, made.smoothing) == (
        "cross_entropy", False, None, 0.1,
    )  # fmt: skip


def test_devices() -> None:
    """A name that is none, and a GPU that is not there."""
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="must be auto, cpu, cuda"):
        pick_device("abacus")
    with pytest.raises(UnavailableError, match="cuda:99"):
        pick_device("cuda:99")


# --- pieces ------------------------------------------------------------------------------------


def test_batches_come_one_ahead_and_in_order() -> None:
    """Each is made once, none beyond the last; an error comes out where the batch is asked for."""
    asked: list[int] = []

    def batch(step: int) -> Any:
        asked.append(step)
        if step == 7:
            raise ConfigError("seven")
        return step

    ahead = Ahead(batch, 8)
    assert [ahead.get(step) for step in (3, 4)] == [3, 4]
    ahead.rest()
    assert asked == [3, 4, 5]
    assert [ahead.get(step) for step in (5, 6)] == [5, 6]
    with pytest.raises(ConfigError, match="seven"):
        ahead.get(7)
    ahead.close()
    assert asked == [3, 4, 5, 6, 7]


def test_pairs_are_of_the_inner_window() -> None:
    """Against the whole image at once, cut by hand."""
    network = pixel_net().eval()
    data = ToyData()
    matrix = np.zeros((3, 3), np.int64)
    for block in data.blocks(Part.TEST):
        with torch.no_grad():
            whole = network(torch.from_numpy(block.image)[None])[0]
        own = whole[:, 8:-8, 8:-8].argmax(dim=0).numpy().astype(np.uint8)
        matrix += confusion(block.label, own, 3)
        np.testing.assert_allclose(
            block_logits(network, block), whole[:, 8:-8, 8:-8].numpy(), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(matrix, count_pairs(network, data.blocks(Part.TEST), 3))


def test_mean_iou_is_of_the_classes_in_the_labels() -> None:
    """A class that is only predicted costs the others, and is no class of its own."""
    matrix = np.array([[6, 0, 2], [0, 0, 0], [1, 1, 4]])
    assert mean_iou(matrix) == pytest.approx((6 / 9 + 4 / 8) / 2)
    assert mean_iou(np.zeros((3, 3), np.int64)) == 0


def test_a_sample_is_even_and_bounded() -> None:
    """However the stream is cut; every pixel has the same chance."""
    values = np.arange(4000, dtype=np.float32)[:, None]
    labels = (np.arange(4000) % 3).astype(np.uint8)
    first = None
    for cuts in ([0, 4000], [0, 10, 1500, 1501, 4000]):
        parts = [(values[a:b], labels[a:b]) for a, b in itertools.pairwise(cuts)]
        drawn, label = sample(iter(parts), 500, seed=1)
        assert drawn.shape == (500, 1)
        np.testing.assert_array_equal(label, drawn[:, 0] % 3)
        assert len(np.unique(drawn)) == 500
        assert abs(drawn.mean() - 2000) < 4 * 4000 / np.sqrt(12 * 500)
        first = drawn if first is None else first
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(first, axis=0))
    few, _ = sample(iter([(values[:5], labels[:5])]), 500, seed=1)
    np.testing.assert_array_equal(few, values[:5])
    assert len(sample(iter([]), 5, 0)[1]) == 0


def test_labelled_pixels_of_a_block() -> None:
    """In their order, without those ignored."""
    planes = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    label = np.array([[1, IGNORE, 0], [IGNORE, 2, 1]], np.uint8)
    drawn, kept = labelled(planes, label)
    np.testing.assert_array_equal(drawn, [[0, 6], [2, 8], [4, 10], [5, 11]])
    np.testing.assert_array_equal(kept, [1, 0, 2, 1])


@pytest.mark.parametrize("balanced", [False, True])
def test_the_classifier_of_pixels_is_scikit_learns(balanced: bool) -> None:
    """The same minimum of the same sum, found by another program."""
    linear = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    labels = random.choice(3, 600, p=[0.7, 0.2, 0.1])
    bands = (random.normal(0, 1, (600, 2)) + np.eye(3)[labels][:, :2] * 2).astype(np.float32)
    ours = fit_pixels(bands, labels, 3, balanced)
    # theirs: sum of losses + |w|^2 / (2 C), ours: mean + 1e-4 |w|^2
    theirs = linear.LogisticRegression(
        C=1 / (2 * 1e-4 * 600), class_weight="balanced" if balanced else None, tol=1e-8,
        max_iter=1000,
    ).fit(bands, labels)  # fmt: skip
    np.testing.assert_allclose(ours.weights, theirs.coef_, atol=2e-3)
    image = np.ascontiguousarray(bands.T).reshape(2, 20, 30)
    agree = ours.classify(image).ravel() == theirs.predict(bands)
    assert agree.mean() > 0.995


def test_what_is_written_down_is_json(tmp_path: Path) -> None:
    """Each line by itself."""
    fit(pixel_net(), ToyData(), toy_config(steps=2), Place(folder=tmp_path))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["step"] in (1, 2)
