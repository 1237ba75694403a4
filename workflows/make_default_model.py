"""Make the default land-cover model: a narrow U-Net that imitates a large trained one.

The teacher (five classes: shadow, water, snow, land, cloud) is itself a U-Net. The narrow one
first takes over what it can of each of its layers by least squares (``tilemap.training.inherit``),
then learns the teacher's probabilities on the scenes of ``configs/default_model.toml``. Blocks of
ground are held out at every scale: they are never seen in training, neither as label nor as image.

    python workflows/make_default_model.py DATA OUT

DATA holds ``models/`` and ``scenes/``; OUT becomes the directory of the training, the model is in
its folder ``model``. The same command goes on where an earlier one was stopped.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import rasterio
import torch
from onnx import numpy_helper
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from torch import Tensor, nn

from tilemap.cli.progress import ConsoleTraining
from tilemap.directory import digest_of
from tilemap.models.card import ModelCard
from tilemap.models.mlm import read_card
from tilemap.models.networks import build
from tilemap.models.networks.plain import PlainUNet
from tilemap.models.registry import file_sha256, load, resolve, save_card
from tilemap.training.config import TrainingConfig, load_config
from tilemap.training.counting import Counted
from tilemap.training.finish import write_model
from tilemap.training.fit import fit
from tilemap.training.inherit import inherit, normalised
from tilemap.training.interface import Fitted, Listener, Place
from tilemap.training.making import make_samples, open_scenes
from tilemap.training.measuring import Measured, Metrics
from tilemap.training.sample_store import SampleStore
from tilemap.training.samples import TrainingData
from tilemap.training.split import Part, Split, assign_blocks
from tilemap.training.tally import SceneParts, band_statistics, block_tally, tally_scene
from tilemap.training.validate import block_logits

FloatArray = npt.NDArray[np.float32]

CONFIG = Path(__file__).parent / "configs" / "default_model.toml"
TEACHER = "models/ukis_csmask_0.2.1_model_6b_5class.onnx"
TEN_M = "scenes/s2_l1c_va_eastern_shore_10m.tif"  # B02 B03 B04 B08
TWENTY_M = "scenes/s2_l1c_va_eastern_shore_20m.tif"  # B8A B11 B12
HAND = "scenes/csmask_sentinel2_512_6b_5class.npz"  # img (y, x, 6), msk (y, x, 1)
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
BLOCKS = (216, 108, 72, 128)  # pixels, by scene of the configuration: three times the same ground
SPLIT = Split(validation=0.15, test=0.2, seed=0)
SHOWN = 12  # batches that the narrow network takes its first weights from
HALO = 56  # pixels; the probe finds 40 on the whole scene, but tiles of its salt marsh want more
DESCRIPTION = (
    "The default model: a narrow U-Net distilled from ukis-csmask-6b-5class on two Sentinel-2 "
    "scenes, the coast of Virginia at 10, 20 and 30 m and a cloudy one at 30 m. Good for trying "
    "tilemap out on top-of-atmosphere reflectance of such scenes; not for production. It knows no "
    "other landscape or season. Like its teacher it takes white beach for cloud or snow and wet "
    "salt marsh for water or shadow. Metrics are of blocks held out of those same two scenes, "
    "never seen in training at any scale: agreement_* is with the teacher, by the teacher's class; "
    "accuracy_* with the hand mask."
)


# --- scenes --------------------------------------------------------------------------------------


def write_scenes(data: Path, out: Path) -> None:
    """The scenes of the configuration, and its teacher."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / TEACHER, out / Path(TEACHER).name)
    stored, transform, crs = read_virginia(data)
    for name, factor in (("virginia_10m.tif", 1), ("virginia_20m.tif", 2), ("virginia_30m.tif", 3)):
        image = np.rint(average(stored, factor)).astype(np.uint16)
        write_scene(out / name, image, transform @ Affine.scale(factor), crs)
    with np.load(data / HAND) as hand:
        image = np.ascontiguousarray(hand["img"].transpose(2, 0, 1))
    write_scene(out / "csmask.tif", image, Affine(30, 0, 0, 0, -30, 0), None)


def read_virginia(data: Path) -> tuple[FloatArray, Affine, object]:
    """Stored numbers of the six bands on the 10 m grid, float32 (band, y, x), and the grid."""
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
        return bands[:, :-1].astype(np.float32), fine.transform, fine.crs


def average(image: FloatArray, factor: int) -> FloatArray:
    """Means over factor x factor pixels."""
    bands, rows, cols = image.shape[0], image.shape[1] // factor, image.shape[2] // factor
    image = image[:, : rows * factor, : cols * factor]
    means = image.reshape(bands, rows, factor, cols, factor).mean(axis=(2, 4))
    return np.asarray(means, np.float32)


def write_scene(path: Path, image: npt.NDArray[np.generic], transform: Affine, crs: object) -> None:
    """A GeoTIFF of the six bands; whole numbers are reflectance * 10000."""
    with rasterio.open(
        path, "w", driver="GTiff", count=len(image), height=image.shape[1], width=image.shape[2],
        dtype=image.dtype, transform=transform, crs=crs, compress="deflate", tiled=True,
    ) as file:  # fmt: skip
        file.write(image)
        file.descriptions = BANDS
        if image.dtype == np.uint16:
            file.scales = [1e-4] * len(image)


# --- what is held out ----------------------------------------------------------------------------


def split_ground(stores: Sequence[SampleStore], classes: int) -> tuple[SceneParts, ...]:
    """Blocks of each scene; those of one ground are for the same at every scale.

    They are drawn in strata of the shadow at 10 m, of which the teacher and a small model differ
    most.
    """
    fine, *coarser, cloudy = stores
    ground = draw_blocks(fine, BLOCKS[0], classes)
    own = draw_blocks(cloudy, BLOCKS[-1], classes)
    blocks = [ground, *(ground for _ in coarser), own]
    return tuple(
        SceneParts(store, block, side)
        for store, block, side in zip(stores, blocks, BLOCKS, strict=True)
    )


def draw_blocks(store: SampleStore, side: int, classes: int) -> npt.NDArray[np.uint8]:
    """What each block of one scene is for."""
    shadow = block_tally(store, side, classes)[:, :, 0]
    return assign_blocks(shadow + 1, dataclasses.replace(SPLIT, block=side))


def make_data(config: TrainingConfig, out: Path, listener: Listener) -> TrainingData:
    """Samples of all scenes with the teacher's answers, split by ground."""
    scenes = open_scenes(config)
    samples = out / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    stores = make_samples(scenes, config, samples, listener.note)
    parts = split_ground(stores, len(config.classes))
    tallies = tuple(tally_scene(one, len(config.classes)) for one in parts)
    statistics = band_statistics(parts, config.model.units, listener.note)
    return TrainingData(config, scenes, Counted(parts, tallies, statistics, ()), stride=16)


# --- the first weights ---------------------------------------------------------------------------


def read_teacher(path: Path) -> PlainUNet:
    """The teacher as a network of ours, with the weights of its ONNX file."""
    graph = onnx.load(str(path)).graph
    tensors = {
        one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer
    }
    teacher: Any = PlainUNet(6, 5, "32 64 128 256 512", "after").eval()
    kinds = ("Conv", "ConvTranspose", "BatchNormalization")
    nodes: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in kinds}
    for node in graph.node:
        if node.op_type in nodes:  # named by their weights, normalisations by what they take
            name = node.input[0 if node.op_type == "BatchNormalization" else 1].split("/")[0]
            nodes[node.op_type][name] = [tensors[i] for i in node.input if i in tensors]
    steps = [step for double in (*teacher.down, *teacher.up) for step in double]
    with torch.no_grad():
        for number, (conv, _, norm) in enumerate(steps, 1):
            put(conv, nodes["Conv"][f"conv2d_{number}"])
            *scaling, mean, variance = nodes["BatchNormalization"][f"conv2d_{number}"]
            put(norm, scaling)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.eps = 1e-6
        for number, rise in enumerate(teacher.rise, 1):
            put(rise, nodes["ConvTranspose"][f"conv2d_transpose_{number}"])
        put(teacher.head, nodes["Conv"][f"conv2d_{len(steps) + 1}"])
    made: PlainUNet = teacher
    return made


def put(module: Any, tensors: list[Tensor]) -> None:
    """Weight and bias of a module."""
    module.weight.copy_(tensors[0])
    module.bias.copy_(tensors[1])


def check_teacher(teacher: PlainUNet, path: Path) -> None:
    """It answers as its file does in ONNX Runtime."""
    image = np.random.default_rng(0).normal(size=(6, 256, 256)).astype(np.float32)
    with torch.no_grad():
        ours = teacher(torch.from_numpy(image)[None]).softmax(dim=1)[0].numpy()
    np.testing.assert_allclose(ours, load(resolve(path)).predict(image), atol=1e-4)


def take_over(student: PlainUNet, teacher: PlainUNet, card: ModelCard, data: TrainingData) -> None:
    """The first weights of the student, from what training may see."""
    batches = [data.batch(step) for step in range(SHOWN)]
    own = np.concatenate([batch.image for batch in batches])
    counted = np.concatenate([batch.label != 255 for batch in batches])
    mean, std, theirs, spread = (
        np.array(numbers, np.float32)[:, None, None]
        for numbers in (data.mean, data.std, card.mean, card.std)
    )
    seen = (own * std + mean - theirs) / spread
    images = torch.from_numpy(own), torch.from_numpy(seen.astype(np.float32))
    left = inherit(student, teacher, images, torch.from_numpy(counted))
    print(f"taken over from the teacher; of the logits' variance {left[-1]:.3f} is left to learn")


# --- figures and card ----------------------------------------------------------------------------


def measure(network: nn.Module, data: TrainingData, part: Part, hand: Path) -> Metrics:
    """How often the network agrees with its teacher, and with the hand, where held out."""
    with np.load(hand) as file:
        drawn = file["msk"][..., 0]
    pairs: dict[str, list[npt.NDArray[np.uint8]]] = {}
    for block in data.blocks(part):
        assert block.teacher is not None
        own = block_logits(network, block).argmax(axis=0).ravel()
        teacher = block.teacher.argmax(axis=0).ravel()
        scene = block.place.split(".")[0]
        answers = [own, teacher]
        if scene == "csmask":
            top, bottom, left, right = map(
                int, re.findall(r"(\d+)-(\d+), cols (\d+)-(\d+)", block.place)[0]
            )
            answers.append(drawn[top:bottom, left:right].ravel())
        pairs.setdefault(scene, []).append(np.stack(answers).astype(np.uint8))
    metrics: Metrics = {}
    for scene, found in pairs.items():
        own, teacher, *mask = np.concatenate(found, axis=1)
        metrics[f"agreement_{scene}"] = share(own == teacher)
        for number, one in enumerate(data.classes):
            if (teacher == number).sum() >= 100:
                metrics[f"agreement_{scene}_{one.name}"] = share((own == number)[teacher == number])
        for truth in mask:
            metrics[f"accuracy_{scene}"] = share(own == truth)
            metrics[f"teacher_accuracy_{scene}"] = share(teacher == truth)
    return metrics


def share(true: npt.NDArray[np.bool_]) -> float:
    """Share of True."""
    return round(float(true.mean()), 4)


def with_norm(
    fitted: Fitted, data: TrainingData, config: TrainingConfig
) -> tuple[Fitted, TrainingConfig]:
    """The same with normalisations, so that it can be pruned and trained on."""
    network = fitted.network
    assert isinstance(network, PlainUNet)
    images = torch.from_numpy(np.concatenate([data.batch(step).image for step in range(SHOWN)]))
    options = {**config.model.options, "norm": "before"}
    changed = config.model_copy(
        update={"model": config.model.model_copy(update={"options": options})}
    )
    return dataclasses.replace(fitted, network=normalised(network, images)), changed


def finish(folder: Path, data: Path, config: TrainingConfig) -> ModelCard:
    """Say in the card what this model is and what it was made from."""
    sources = {
        TEN_M: "Sentinel-2 L1C, Virginia Eastern Shore, Copernicus free and open",
        TWENTY_M: "the same, 20 m bands",
        HAND: "Sentinel-2, scene and hand mask of ukis-csmask, Apache-2.0",
        TEACHER: "teacher, its weights are the start, ukis-csmask 0.2.1, Apache-2.0",
    }
    lines = [
        f"{text}; {Path(name).name} sha256 {file_sha256(data / name)}"
        for name, text in sources.items()
    ]
    loop, sampling = config.training, config.sampling
    lines.append(
        f"seed {config.seed}, {loop.steps} steps of {sampling.batch} crops of {sampling.crop} x "
        f"{sampling.crop} pixels"
    )
    card = read_card(folder / "model.json")
    told = {
        "version": "2",
        "halo": max(HALO, card.halo or 0),
        "description": DESCRIPTION,
        "source": "workflows/make_default_model.py",
        "training_data": tuple(lines),
    }
    card = card.model_copy(update=told)
    save_card(card, folder)
    return card


def main(data: Path, out: Path) -> None:
    """Write scenes, ask the teacher, take over, train, measure, write."""
    torch.set_num_threads(1)
    inputs = out / "inputs"
    if not inputs.exists():
        write_scenes(data, inputs)
    shutil.copy(CONFIG, inputs / CONFIG.name)
    config = load_config(inputs / CONFIG.name)
    listener = ConsoleTraining()
    samples = make_data(config, out, listener)
    teacher = read_teacher(data / TEACHER)
    check_teacher(teacher, data / TEACHER)
    student = build(config.model.architecture, len(BANDS), len(config.classes))
    assert isinstance(student, PlainUNet)
    take_over(student, teacher, resolve(data / TEACHER).card, samples)
    print(measure(student.eval(), samples, Part.VALIDATION, data / HAND))
    place = Place(folder=out, identity=digest_of(config.model_dump(mode="json")))
    fitted = fit(student, samples, config, place, listener)
    print(measure(fitted.network, samples, Part.VALIDATION, data / HAND))
    fitted, config = with_norm(fitted, samples, config)
    measured = Measured(1.0, measure(fitted.network, samples, Part.TEST, data / HAND))
    write_model(out / "model", fitted, samples, config, measured, listener, threads=1)
    for name, value in finish(out / "model", data, config).metrics.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
