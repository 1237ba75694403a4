"""Crops of a real scene, and what each form of a model is worth on them: size, speed, labels."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError
from tilemap.models.card import ModelCard
from tilemap.models.parity import Parity, compare, count_labels, labels_of, mean_iou
from tilemap.models.probe import patch_side
from tilemap.models.protocol import FloatArray, Model
from tilemap.probing import Crop, read_crops
from tilemap.run_plan import check_units
from tilemap.scene import check_same_grid
from tilemap.stages.survey import spread
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene

_ROUNDS = 7


@dataclass(frozen=True)
class Ground:
    """What forms of a model are compared on.

    Args:
        source: the scene.
        crops: of the scene, of the size the model takes.
    """

    source: SceneSource
    crops: tuple[Crop, ...]

    @property
    def patches(self) -> list[FloatArray]:
        """Standardised, float32 (band, y, x) each."""
        return [crop.image for crop in self.crops]


@dataclass(frozen=True)
class Figures:
    """One form of a model on the same crops as the others; see ``measure_forms``.

    Args:
        bytes: size of the file of weights.
        mpx_s: million pixels per second of one core, see ``speed_of``.
        parity: how far it is from the first form.
        miou: mean intersection over union with reference labels, 0..1; None without them.
    """

    bytes: int
    mpx_s: float
    parity: Parity
    miou: float | None


def find_ground(model: Model, request: SceneRequest, regions: int) -> Ground:
    """Crops from all over a scene.

    Args:
        model: what they are for.
        request: the scene; the bands of the model's card are taken of it.
        regions: how many.

    Raises:
        SceneError: if the scene lacks what the model takes, or shows nothing but nodata.
    """
    card = model.card
    source = open_scene(dataclasses.replace(request, bands=card.bands))
    check_units(source, card.units, card.name)
    side = patch_side(model)
    windows = list(spread(source.scene.shape, side, 4 * regions))
    # One in four will do: taken from all over the scene rather than from its top.
    count = len(windows)
    step = next(n for n in range(round(0.618 * count), 0, -1) if math.gcd(n, count) == 1)
    order = [windows[index * step % count] for index in range(count)]
    return Ground(source, tuple(read_crops(source, card, order, regions)))


def measure_forms(
    forms: Mapping[str, tuple[Model, Path]],
    ground: Ground,
    truth: Sequence[npt.NDArray[np.int64]] | None = None,
) -> dict[str, Figures]:
    """Size, speed and labels of several forms of one model, on the same crops.

    Args:
        forms: by name, each loaded with one thread, and its file; the first is what the others
            are compared with.
        ground: the crops.
        truth: reference labels of the crops, from ``read_labels``.
    """
    models = {name: model for name, (model, _) in forms.items()}
    speeds = speed_of(models, ground.patches)
    first = next(iter(models.values()))
    return {
        name: Figures(
            path.stat().st_size,
            speeds[name],
            compare(first, model, ground.patches),
            None if truth is None else _miou(model, ground.patches, truth),
        )
        for name, (model, path) in forms.items()
    }


def speed_of(models: Mapping[str, Model], patches: Sequence[FloatArray]) -> dict[str, float]:
    """Million pixels per second of processor time, the median of rounds of one patch each.

    Every model runs once in each round, so that what slows the machine slows all of them; and what
    other processes take of the time is not counted.

    Args:
        models: by name, on the CPU.
        patches: taken in turn.
    """
    for model in models.values():
        model.predict(patches[0])
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(_ROUNDS):
        patch = patches[turn % len(patches)]
        for name, model in models.items():
            start = time.process_time()
            model.predict(patch)
            seconds[name].append((time.process_time() - start) * 1e6 / patch[0].size)
    return {name: 1 / float(np.median(each)) for name, each in seconds.items()}


def read_labels(path: str, ground: Ground, card: ModelCard) -> list[npt.NDArray[np.int64]]:
    """Reference labels of crops.

    Args:
        path: a raster of class values on the grid of the scene.
        ground: the crops.
        card: for the values of its classes.

    Returns:
        Class index (y, x) of each crop, -1 where the raster has no value of the card.

    Raises:
        SceneError: if the raster cannot be read, or has no class of the card in any crop.
        SceneMismatchError: if it lies on another grid.
    """
    source = open_scene(SceneRequest((path,)))
    check_same_grid(ground.source.scene, source.scene)
    found = []
    with source.open() as reader:
        for crop in ground.crops:
            values, valid = read_patch(reader, crop.window)
            index = np.full(valid.shape, -1, np.int64)
            for place, info in enumerate(card.classes):
                index[(values[0] == info.value) & valid & crop.valid] = place
            found.append(index)
    if all(index.max() < 0 for index in found):
        known = ", ".join(str(info.value) for info in card.classes)
        raise SceneError(f"{path} must have values of the classes ({known}), it has none of them")
    return found


def _miou(
    model: Model, patches: Sequence[FloatArray], truth: Sequence[npt.NDArray[np.int64]]
) -> float:
    classes = len(model.card.classes)
    counts = [
        count_labels(true, labels_of(model.predict(patch)), classes)
        for patch, true in zip(patches, truth, strict=True)
    ]
    return mean_iou(np.sum(counts, axis=0))
