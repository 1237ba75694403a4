"""After the last step: a temperature from the validation part, figures of the test part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tilemap.evaluation.calibration import calibration, confidence_counts
from tilemap.evaluation.metrics import IntArray, confusion, scores
from tilemap.models.calibration import fit_temperature
from tilemap.models.protocol import FloatArray
from tilemap.training.baseline import PixelModel, fit_pixels
from tilemap.training.interface import Data
from tilemap.training.losses import IGNORE
from tilemap.training.split import Part
from tilemap.training.validate import block_logits, labelled, mean_iou, sample

PIXELS = 200_000
"""Most that a temperature or a baseline is fitted to."""
BASELINES = ("per_pixel", "plain")
VALIDATED = "per_pixel_validation_miou"
_DIGITS = 5

Metrics = dict[str, float | int | str]


@dataclass(frozen=True)
class Measured:
    """What was found of a trained network.

    Args:
        temperature: fitted on the validation part; 1 without one.
        metrics: for the card, see ``measure``.
    """

    temperature: float
    metrics: Metrics


def measure(network: nn.Module, data: Data, seed: int) -> Measured:
    """Fit the temperature, and compare the network with what can be had without one.

    ``test_*`` are of the network, ``plain_*`` of the training's most common class everywhere,
    ``per_pixel_*`` of a logistic regression on the bands of single pixels, each of IoU by class,
    mIoU (over the classes in the labels) and overall accuracy; all on the pixels of the test part.
    ``ece_before`` and ``ece_after`` are the calibration error without and with the temperature.
    Without a test part there is only that regression's mIoU on the validation part,
    ``per_pixel_validation_miou``. Where the labels are a teacher's, the figures are of agreement
    with it; ``test_teacher_agreement`` always is.

    Args:
        network: in evaluation mode.
        data: blocks of all parts.
        seed: of the pixels that are drawn.
    """
    temperature = 1.0
    if data.counts[Part.VALIDATION].sum():
        temperature = _temperature(network, data, seed)
    pixel_model, validated = _pixel_model(data, seed)
    if not data.counts[Part.TEST].sum():
        shown = data.counts[Part.VALIDATION].sum() > 0
        return Measured(temperature, {VALIDATED: _round(validated)} if shown else {})
    return Measured(temperature, _test(network, data, temperature, pixel_model))


def below_baseline(metrics: Metrics, validated: float) -> str | None:
    """A sentence if single pixels, or one class everywhere, do better than the network.

    Args:
        metrics: of ``Measured``.
        validated: mean IoU of the network on the validation part.
    """
    pixels, common = "a classifier of single pixels", "its most common class everywhere"
    if "test_miou" in metrics:
        blocks, own = "test", float(metrics["test_miou"])
        others = {pixels: metrics["per_pixel_miou"], common: metrics["plain_miou"]}
    else:
        blocks, own = "validation", validated
        others = {pixels: metrics[VALIDATED]} if VALIDATED in metrics else {}
    for what, other in others.items():
        if own < float(other):
            return (
                f"On the {blocks} blocks the network's mean IoU is {own:.3f}, that of {what} is "
                f"{float(other):.3f}: it must be higher to be of use."
            )
    return None


def _temperature(network: nn.Module, data: Data, seed: int) -> float:
    parts = (
        labelled(block_logits(network, block), block.label)
        for block in data.blocks(Part.VALIDATION)
    )
    return round(fit_temperature(*sample(parts, PIXELS, seed)), 4)


def _pixels(data: Data, part: Part) -> Iterator[tuple[FloatArray, npt.NDArray[np.uint8]]]:
    """Bands of the labelled pixels."""
    for block in data.blocks(part):
        yield labelled(block.image[:, *block.inner.slices()], block.label)


def _pixel_model(data: Data, seed: int) -> tuple[PixelModel, float]:
    """The better of two on the validation part: with classes as they are, and with equal ones.

    Returns:
        The model, and its mean IoU on the validation part; 0 without one.
    """
    bands, labels = sample(_pixels(data, Part.TRAIN), PIXELS, seed)
    classes = len(data.classes)
    models = [fit_pixels(bands, labels, classes, balanced) for balanced in (False, True)]
    found = np.zeros((len(models), classes, classes), np.int64)
    for block in data.blocks(Part.VALIDATION):
        for matrix, model in zip(found, models, strict=True):
            own = model.classify(block.image[:, *block.inner.slices()])
            matrix += confusion(block.label, own, classes)
    validated = [mean_iou(matrix) for matrix in found]
    best = int(np.argmax(validated))
    return models[best], validated[best]


def _test(network: nn.Module, data: Data, temperature: float, pixel_model: PixelModel) -> Metrics:
    classes, temperatures = len(data.classes), (1.0, temperature)
    matrices = {name: np.zeros((classes, classes), np.int64) for name in ("test", *BASELINES)}
    percents = np.zeros((len(temperatures), 101, 2), np.int64)
    same = taught = 0
    common = int(data.counts[Part.TRAIN].argmax())
    for block in data.blocks(Part.TEST):
        logits, label = block_logits(network, block), block.label
        own = logits.argmax(axis=0).astype(np.uint8)
        answers = {
            "test": own,
            "per_pixel": pixel_model.classify(block.image[:, *block.inner.slices()]),
            "plain": np.full_like(own, common),
        }
        for name, answer in answers.items():
            matrices[name] += confusion(label, answer, classes)
        for counts, one in zip(percents, temperatures, strict=True):
            counts += confidence_counts(_percent(logits, one), label, own)
        if block.teacher is not None:
            counted = label != IGNORE
            taught += int(counted.sum())
            same += int((own == block.teacher.argmax(axis=0))[counted].sum())
    metrics: Metrics = {}
    for name, matrix in matrices.items():
        metrics |= _figures(name, matrix, data)
    before, after = (calibration(counts).ece for counts in percents)
    metrics |= {"ece_before": _round(before or 0.0), "ece_after": _round(after or 0.0)}
    if taught:
        metrics["test_teacher_agreement"] = _round(same / taught)
    metrics["test_pixels"] = int(matrices["test"].sum())
    return metrics


def _percent(logits: FloatArray, temperature: float) -> npt.NDArray[np.uint8]:
    """Probability of the most probable class in percent, uint8 (y, x)."""
    scaled = (logits - logits.max(axis=0)) / temperature
    percent: npt.NDArray[np.uint8] = np.rint(100 / np.exp(scaled).sum(axis=0)).astype(np.uint8)
    return percent


def _figures(name: str, matrix: IntArray, data: Data) -> Metrics:
    found = scores(matrix)
    shown = matrix.sum(axis=1) > 0
    figures: Metrics = {
        f"{name}_miou": _round(mean_iou(matrix)),
        f"{name}_oa": _round(found.overall_accuracy),
    }
    for index, one in enumerate(data.classes):
        if shown[index]:
            figures[f"{name}_iou_{one.name.replace(' ', '_')}"] = _round(float(found.iou[index]))
    return figures


def _round(value: float) -> float:
    return round(float(value), _DIGITS)


def table(metrics: dict[str, Any]) -> list[str]:
    """The figures of a card as lines for a person; none if there are none.

    Args:
        metrics: of ``Measured`` or of a card.
    """
    keys = [key.removeprefix("test_") for key in metrics if key.startswith("test_iou_")]
    if not keys:
        return []
    rows: list[tuple[str, ...]] = [("", "network", "per pixel", "one class")]
    for key in (*keys, "miou", "oa"):
        values = [metrics[f"{name}_{key}"] for name in ("test", *BASELINES)]
        told = {"miou": "mean IoU", "oa": "overall accuracy"}.get(
            key, "IoU " + key.removeprefix("iou_")
        )
        rows.append((told, *(f"{value:.4f}" for value in values)))
    wide = max(len(row[0]) for row in rows)
    return [f"{row[0]:<{wide}}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]
