"""Distil the small model of the demo from a large trained one.

The teacher (five classes: shadow, water, snow, land, cloud) labels six-band scenes with
probabilities; a narrow U-Net learns them. Some blocks of every scene are held out: no loss is
taken there, and the card says how often the model agrees with its teacher there.

    python workflows/distill_demo_model.py DATA OUT

DATA holds ``models/`` and ``scenes/``; OUT becomes the model folder. One core, 20 minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tilemap.geometry import Window
from tilemap.models.card import ModelCard
from tilemap.models.networks import build
from tilemap.models.protocol import Model
from tilemap.models.registry import file_sha256, load, resolve, save_card

FloatArray = npt.NDArray[np.float32]

TEACHER = "models/ukis_csmask_0.2.1_model_6b_5class.onnx"
TEN_M = "scenes/s2_l1c_va_eastern_shore_10m.tif"  # B02 B03 B04 B08
TWENTY_M = "scenes/s2_l1c_va_eastern_shore_20m.tif"  # B8A B11 B12
HAND = "scenes/csmask_sentinel2_512_6b_5class.npz"  # img (y, x, 6), msk (y, x, 1)

ARCHITECTURE: dict[str, str | int | float | bool] = {
    "name": "unet",
    "encoder": "resnet18",
    "width": 16,
}
SEED = 20
STEPS = 2000
BATCH = 8
CROP = 192  # pixels
MARGIN = 16  # pixels at the edge of a crop without loss: they see its padding
SHARE = {"10m": 0.6, "20m": 0.08, "30m": 0.12, "hand": 0.2}  # of the crops
SOFTEN = 1.5  # temperature of the distillation
RATE = 4e-3  # peak of the learning rate
GAIN = 0.03  # standard deviation of the radiometric gain of a crop, half of it more per band
HELD_OUT = 0.2  # share of the blocks
HALO = 76  # pixels; what `tilemap models probe` measured on the 10 m scene
BLOCK = {"10m": 256, "hand": 128}  # pixels; 20 m and 30 m hold out the same ground as 10 m


@dataclass(frozen=True)
class Lesson:
    """What is learnt from one scene."""

    image: FloatArray  # reflectance (band, y, x)
    teacher: FloatArray  # probability (class, y, x)
    held_out: npt.NDArray[np.bool_]  # (y, x)


def read_virginia(data: Path) -> FloatArray:
    """Reflectance of the six bands on the 10 m grid, (band, y, x)."""
    with rasterio.open(data / TEN_M) as fine, rasterio.open(data / TWENTY_M) as coarse:
        on_fine = {
            "crs": fine.crs,
            "transform": fine.transform,
            "width": fine.width,
            "height": fine.height,
            "resampling": Resampling.bilinear,
        }
        with WarpedVRT(coarse, **on_fine) as warped:
            bands = np.concatenate([fine.read(), warped.read([2, 3])])
    # The 20 m file ends one row of 10 m pixels above the 10 m file.
    return (bands[:, :-1] / 10_000).astype(np.float32)


def average(image: FloatArray, factor: int) -> FloatArray:
    """Means over factor x factor pixels."""
    bands, rows, cols = image.shape[0], image.shape[1] // factor, image.shape[2] // factor
    image = image[:, : rows * factor, : cols * factor]
    means = image.reshape(bands, rows, factor, cols, factor).mean(axis=(2, 4))
    return np.asarray(means, np.float32)


def standardise(image: FloatArray, card: ModelCard) -> FloatArray:
    """Reflectance as the network takes it."""
    mean = np.array(card.mean, np.float32)[:, None, None]
    std = np.array(card.std, np.float32)[:, None, None]
    return np.asarray((image - mean) / std)


def whole(
    predict: Callable[[FloatArray], FloatArray], image: FloatArray, halo: int, core: int
) -> FloatArray:
    """Probabilities of a whole scene, from the middle of overlapping patches."""
    rows, cols = image.shape[1:]
    fill = [(0, 0), (halo, halo + -rows % core), (halo, halo + -cols % core)]
    padded = np.pad(image, fill, mode="reflect")
    lines = []
    for top in range(0, rows, core):
        line = [
            predict(padded[:, top : top + core + 2 * halo, left : left + core + 2 * halo])
            for left in range(0, cols, core)
        ]
        lines.append(np.concatenate(line, axis=2))
    return np.concatenate(lines, axis=1)[:, :rows, :cols]


def ask_teacher(teacher: Model, image: FloatArray, halo: int = 32) -> FloatArray:
    """What the teacher thinks of a scene, reflectance (band, y, x)."""
    core = (teacher.card.patch or 256) - 2 * halo
    middle = Window(halo, halo, halo + core, halo + core)
    return whole(lambda p: teacher.predict(p, middle), standardise(image, teacher.card), halo, core)


def hold_out(
    shape: tuple[int, ...], block: int, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """A share of the blocks of a scene, True inside, (y, x)."""
    rows, cols = (-(-side // block) for side in shape)
    chosen = np.zeros(rows * cols, bool)
    chosen[random.choice(rows * cols, round(HELD_OUT * rows * cols), replace=False)] = True
    large = np.kron(chosen.reshape(rows, cols), np.ones((block, block), bool))
    return large[: shape[0], : shape[1]]


def make_lessons(data: Path, teacher: Model) -> tuple[dict[str, Lesson], npt.NDArray[np.uint8]]:
    """Scenes with the teacher's answers, and the hand-drawn classes (y, x) of one of them."""
    random = np.random.default_rng(SEED)
    fine = read_virginia(data)
    held = hold_out(fine.shape[1:], BLOCK["10m"], random)
    images = {"10m": (fine, held)}
    for name, factor in (("20m", 2), ("30m", 3)):
        images[name] = (
            average(fine, factor),
            average(held[None].astype(np.float32), factor)[0] > 0,
        )
    with np.load(data / HAND) as hand:
        image = np.ascontiguousarray(hand["img"].transpose(2, 0, 1))
        images["hand"] = (image, hold_out(image.shape[1:], BLOCK["hand"], random))
        drawn = hand["msk"][..., 0]
    lessons = {}
    for name, (image, held) in images.items():
        lessons[name] = Lesson(image, ask_teacher(teacher, image), held)
        print(f"{name}: teacher's shares {shares(lessons[name].teacher, teacher.card)}")
    return lessons, drawn


def shares(probability: FloatArray, card: ModelCard) -> dict[str, float]:
    """Share of the pixels, by class."""
    count = np.bincount(probability.argmax(axis=0).ravel(), minlength=len(card.classes))
    return {
        c.name: round(int(n) / int(count.sum()), 4)
        for c, n in zip(card.classes, count, strict=True)
    }


class Crops:
    """Random crops: half of them anywhere, half around a pixel of a class drawn evenly."""

    def __init__(self, lessons: dict[str, Lesson], card: ModelCard) -> None:
        self.lessons, self.card = lessons, card
        self.random = np.random.default_rng(SEED)
        self.places = {name: self._places(lesson) for name, lesson in lessons.items()}

    def _places(self, lesson: Lesson) -> list[npt.NDArray[np.intp]]:
        label = np.where(lesson.held_out, 255, lesson.teacher.argmax(axis=0))
        found = [np.flatnonzero(label == k) for k in range(len(lesson.teacher))]
        return [places for places in found if len(places) >= 50]

    def one(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Standardised image, teacher's probability and weight in the loss of one crop."""
        random = self.random
        name = str(random.choice(list(SHARE), p=list(SHARE.values())))
        lesson, places = self.lessons[name], self.places[name]
        rows, cols = lesson.held_out.shape
        y, x = int(random.integers(rows)), int(random.integers(cols))
        if random.random() < 0.5:
            y, x = divmod(int(random.choice(places[random.integers(len(places))])), cols)
            y, x = (int(v + random.integers(-CROP // 3, CROP // 3)) for v in (y, x))
        top = min(max(y - CROP // 2, 0), rows - CROP)
        left = min(max(x - CROP // 2, 0), cols - CROP)
        window = (slice(top, top + CROP), slice(left, left + CROP))
        image = lesson.image[:, *window]
        gain = random.normal(1, GAIN) * random.normal(1, GAIN / 2, len(image))
        image = standardise(image * gain.astype(np.float32)[:, None, None], self.card)
        weight = np.zeros((1, CROP, CROP), np.float32)
        inner = slice(MARGIN, -MARGIN)
        weight[0, inner, inner] = ~lesson.held_out[window][inner, inner]
        turn, flip = int(random.integers(4)), random.random() < 0.5
        parts = []
        for part in (image, lesson.teacher[:, *window], weight):
            part = np.rot90(part, turn, axes=(1, 2))
            parts.append(np.ascontiguousarray(part[:, ::-1] if flip else part))
        return parts[0], parts[1], parts[2]

    def batch(self) -> list[Tensor]:
        """The same, of a batch."""
        parts = zip(*(self.one() for _ in range(BATCH)), strict=True)
        return [torch.from_numpy(np.stack(part)) for part in parts]


def distillation_loss(logits: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the softened teacher from the softened network."""
    soft = functional.log_softmax(torch.log(teacher.clamp_min(1e-6)) / SOFTEN, dim=1)
    own = functional.log_softmax(logits / SOFTEN, dim=1)
    divergence = (soft.exp() * (soft - own)).sum(dim=1, keepdim=True)
    return (divergence * weight).sum() / weight.sum().clamp_min(1) * SOFTEN**2


def train(lessons: dict[str, Lesson], card: ModelCard) -> nn.Module:
    """The network after STEPS batches, in evaluation mode."""
    torch.manual_seed(SEED)
    network = build(ARCHITECTURE, len(card.bands), len(card.classes))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    crops = Crops(lessons, card)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS, pct_start=0.15)
    begin, mean = time.monotonic(), 0.0
    for step in range(1, STEPS + 1):
        image, teacher, weight = crops.batch()
        # bfloat16 nearly halves the time of a step on a CPU that has it.
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
        loss = distillation_loss(logits.float(), teacher, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        mean += (loss.item() - mean) / min(step, 50)
        if step % 50 == 0:
            seconds = time.monotonic() - begin
            print(f"step {step} of {STEPS}, loss {mean:.4f}, {seconds:.0f} s", flush=True)
    return network.eval()


def ask_network(network: nn.Module, card: ModelCard, image: FloatArray) -> FloatArray:
    """What the network thinks of a scene, reflectance (band, y, x)."""
    halo, core = 64, 512

    def predict(patch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            logits = network(torch.from_numpy(np.ascontiguousarray(patch))[None])
        logits = logits[0, :, halo : halo + core, halo : halo + core]
        return np.asarray(logits.softmax(dim=0))

    return whole(predict, standardise(image, card), halo, core)


def measure(
    network: nn.Module,
    card: ModelCard,
    lessons: dict[str, Lesson],
    drawn: npt.NDArray[np.uint8],
) -> dict[str, float | int | str]:
    """How often the network agrees with its teacher, and with the hand, where held out."""
    metrics: dict[str, float | int | str] = {}
    for name, lesson in lessons.items():
        probability = ask_network(network, card, lesson.image)
        own, teacher = probability.argmax(axis=0), lesson.teacher.argmax(axis=0)
        held = lesson.held_out
        scene = "csmask" if name == "hand" else f"virginia_{name}"
        metrics[f"agreement_{scene}"] = share(own == teacher, held)
        for number, one in enumerate(card.classes):
            if (held & (teacher == number)).sum() >= 100:
                key = f"agreement_{scene}_{one.name}"
                metrics[key] = share(own == teacher, held & (teacher == number))
        for number, one in enumerate(card.classes):
            metrics[f"share_{scene}_{one.name}"] = share(own == number, np.ones_like(held))
        if name == "hand":
            metrics["accuracy_csmask"] = share(own == drawn, held)
            metrics["teacher_accuracy_csmask"] = share(teacher == drawn, held)
            metrics["teacher_accuracy_csmask_whole"] = share(teacher == drawn, held | True)
    return metrics


def share(true: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_]) -> float:
    """Share of True where it counts."""
    return round(float(true[where].mean()), 4)


def write(
    network: nn.Module,
    teacher: ModelCard,
    metrics: dict[str, float | int | str],
    data: Path,
    out: Path,
) -> None:
    """The model folder: weights and card."""
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "model.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    weights.chmod(0o644)
    sources = {
        TEN_M: "Sentinel-2 L1C, Virginia Eastern Shore, Copernicus free and open",
        TWENTY_M: "the same, 20 m bands",
        HAND: "Sentinel-2, scene and hand mask of ukis-csmask, Apache-2.0",
        TEACHER: "teacher, ukis-csmask 0.2.1, Apache-2.0",
    }
    card = ModelCard(
        name="tilemap-demo-5class",
        title="Shadow, water, snow, land and cloud, six bands, small",
        description=(
            "The model of the demo: a narrow U-Net distilled from ukis-csmask-6b-5class on two "
            "Sentinel-2 scenes, the coast of Virginia at 10, 20 and 30 m and a cloudy one at 30 m. "
            "Good for trying tilemap out on top-of-atmosphere reflectance of such scenes; not for "
            "production. It knows no other landscape or season. At 10 m it finds less than half "
            "of the shadow its teacher finds; like its teacher it takes white beach for cloud or "
            "snow and wet salt marsh for water. Metrics are of blocks held out of those same two "
            "scenes (no loss was taken there, though crops reached into them): agreement_* is "
            "with the teacher, by the teacher's class; accuracy_* with the hand mask; share_* is "
            "of the whole scene."
        ),
        license="Apache-2.0",
        source="workflows/distill_demo_model.py",
        bands=teacher.bands,
        mean=teacher.mean,
        std=teacher.std,
        stride=32,
        activation="logits",
        classes=teacher.classes,
        architecture=ARCHITECTURE,
        halo=HALO,
        metrics=metrics,
        training_data=(
            *(
                f"{text}; {Path(name).name} sha256 {file_sha256(data / name)}"
                for name, text in sources.items()
            ),
            f"seed {SEED}, {STEPS} steps of {BATCH} crops of {CROP} x {CROP} pixels",
        ),
        weights=weights.name,
        sha256=file_sha256(weights),
    )
    save_card(card, out)


def main(data: Path, out: Path) -> None:
    """Ask, train, measure, write."""
    torch.set_num_threads(1)
    teacher = load(resolve(data / TEACHER))
    lessons, drawn = make_lessons(data, teacher)
    network = train(lessons, teacher.card)
    metrics = measure(network, teacher.card, lessons, drawn)
    for name, value in metrics.items():
        print(f"{name}: {value}")
    write(network, teacher.card, metrics, data, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
