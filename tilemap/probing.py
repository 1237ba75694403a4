"""Probe a model on a real scene and store what was found in its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.models import registry
from tilemap.models.probe import ProbeResult, probe_halo, region_side
from tilemap.models.protocol import FloatArray
from tilemap.models.registry import ModelRef
from tilemap.plan import check_units
from tilemap.stages.segment import standardise
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, open_scene

REGIONS = 4


def spread(shape: tuple[int, int], side: int, count: int) -> Iterator[Window]:
    """Square windows spread over a scene; they overhang a scene that is smaller than they are."""
    rows = max(1, int(np.sqrt(count)))
    cols = -(-count // rows)
    for index in range(count):
        row, col = divmod(index, cols)
        top = round((row + 0.5) / rows * max(shape[0] - side, 0))
        left = round((col + 0.5) / cols * max(shape[1] - side, 0))
        yield Window(top, left, top + side, left + side)


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
    """
    source = open_scene(dataclasses.replace(request, bands=ref.card.bands))
    check_units(source.scene, ref.card)
    model = registry.load(ref, "cpu", "float32", threads)
    side = region_side(model)
    crops: list[FloatArray] = []
    with source.open() as reader:
        for window in spread(source.scene.shape, side, 4 * regions):
            image, valid = read_patch(reader, window)
            if valid.mean() > 0.9 and len(crops) < regions:
                crops.append(standardise(image, valid, source.scene, ref.card))
    if not crops:
        raise SceneError(
            f"the probe needs crops of {side} x {side} pixels with at most 10 % nodata, "
            f"{source.scene.name} has none"
        )
    found = probe_halo(model, crops)
    if found.halo is not None and found.halo != ref.card.halo:
        ref = registry.update_card(ref, halo=found.halo)
    return ref, found
