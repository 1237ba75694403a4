"""Probe a model on a real scene and store what was found in its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.models import registry
from tilemap.models.card import ModelCard
from tilemap.models.probe import ProbeResult, probe_halo, region_side
from tilemap.models.protocol import FloatArray
from tilemap.models.registry import ModelRef
from tilemap.run_plan import check_units
from tilemap.stages.segment import standardise
from tilemap.stages.survey import spread
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene

REGIONS = 4


@dataclass(frozen=True)
class Crop:
    """A part of a scene, ready for a model.

    Args:
        window: where; it overhangs a scene that is smaller.
        image: standardised, float32 (band, y, x).
        valid: (y, x), True = observed.
    """

    window: Window
    image: FloatArray
    valid: npt.NDArray[np.bool_]


def read_crops(
    source: SceneSource, card: ModelCard, windows: Sequence[Window], wanted: int
) -> list[Crop]:
    """Read the first windows of a scene that are observed nearly everywhere.

    Args:
        source: with the bands of the card, in its order.
        windows: all of one size, in the order they are tried.
        wanted: how many to read.

    Returns:
        At least one, at most ``wanted`` of them, with at most 10 % nodata each.

    Raises:
        SceneError: if there is none.
    """
    crops: list[Crop] = []
    with source.open() as reader:
        for window in windows:
            if len(crops) == wanted:
                break
            image, valid = read_patch(reader, window)
            if valid.mean() >= 0.9:
                crops.append(Crop(window, standardise(image, valid, source.scene, card), valid))
    if not crops:
        rows, cols = windows[0].shape
        raise SceneError(
            f"crops of {rows} x {cols} pixels with at most 10 % nodata are needed, "
            f"{source.scene.name} has none"
        )
    return crops


def probe_model(
    ref: ModelRef, request: SceneRequest, regions: int = REGIONS, threads: int = 1
) -> tuple[ModelRef, ProbeResult]:
    """Measure context and halo of a model on a scene, and store the halo in its card.

    Args:
        regions: crops taken from all over the scene; of equal cost.
        threads: of the model.

    Returns:
        The model with its new card, and what was found. Where no margin is enough the card stays.

    Raises:
        SceneError: if the scene lacks what the model takes, or shows nothing but nodata.
        ModelError: if the crops show one class only; the card stays.
    """
    source = open_scene(dataclasses.replace(request, bands=ref.card.bands))
    check_units(source, ref.card.units, ref.card.name)
    model = registry.load(ref, "cpu", "float32", threads)
    side = region_side(model)
    windows = list(spread(source.scene.shape, side, 4 * regions))
    crops = [crop.image for crop in read_crops(source, ref.card, windows, regions)]
    found = probe_halo(model, crops)
    if found.halo is not None and found.halo != ref.card.halo:
        ref = registry.update_card(ref, halo=found.halo)
    return ref, found
