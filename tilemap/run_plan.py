"""What a run will do and cost, before it does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError, GridError, SceneError, UsageError
from tilemap.geometry import TileGrid, Window, fit_core, round_up
from tilemap.measure import Cost
from tilemap.models.card import ModelCard
from tilemap.scene import Product, Scene, check_fills
from tilemap.stages.survey import sample, spread
from tilemap.stores.geotiff import SceneSource
from tilemap.stores.predictions import frame_windows

DEFAULT_PATCH = 1152
PATCHES = tuple(int(DEFAULT_PATCH / 2 ** (step / 2)) for step in range(12))
"""Largest patches that a memory limit leaves, in pixels: few, and far from each other.

Memory is measured, and no two measurements agree to the byte. Two machines with the same limit
still choose the same of these, except where a bound is next to the limit.
"""
DEFAULT_BLEND = 8
UNKNOWN_MARGIN = 56
"""Pixels a model of unknown reach is given beyond the blend, until it is probed."""


@dataclass(frozen=True, slots=True)
class GridSettings:
    """How the scene is cut, where the user says so; None lets the model and the scene decide.

    Args:
        core: side of the square a tile owns, pixels.
        halo: margin read around it, pixels.
        blend: half-width of the ramp between tiles, pixels.
    """

    core: int | None = None
    halo: int | None = None
    blend: int | None = None


def margin_of(card: ModelCard) -> int:
    """Pixels the model must see around a pixel: its context, else what the probe measured."""
    return next((m for m in (card.context, card.halo) if m is not None), UNKNOWN_MARGIN)


def choose_grid(
    scene: tuple[int, int],
    card: ModelCard,
    settings: GridSettings,
    largest_patch: int = DEFAULT_PATCH,
) -> TileGrid:
    """The grid of a run.

    By default ``halo >= margin + blend``, so that even the outermost pixel that has weight is seen
    with all the model looks at; the core fits the scene. Nothing that is timed has a say, so that
    two machines cut a scene the same way.

    Raises:
        GridError: if what the user set cannot hold for this model.
    """
    margin, stride = margin_of(card), card.stride
    halo = settings.halo
    if halo is None:
        wanted = DEFAULT_BLEND if settings.blend is None else settings.blend
        halo = round_up(margin + wanted, stride)
        if card.patch is not None:  # half of each side at least is core, whatever would be better
            halo = min(halo, card.patch // 4 // stride * stride)
    blend = settings.blend
    if blend is None:
        # A halo of just the margin is exact without a ramp; one below it is not, and a ramp helps.
        blend = min(DEFAULT_BLEND, halo if halo < margin else halo - margin)
    core = settings.core
    if card.patch is not None:
        fixed = card.patch - 2 * halo
        if core not in (None, fixed):
            raise GridError(
                f"{card.name} takes patches of {card.patch} pixels only: core must be "
                f"{card.patch} - 2 * halo = {fixed}, got {core}"
            )
        if fixed < stride:
            raise GridError(
                f"{card.name} takes patches of {card.patch} pixels only: halo must be below "
                f"{card.patch // 2}, got {halo}"
            )
        core = fixed
    elif core is None:
        core = fit_core(scene, max(largest_patch, stride + 2 * halo), halo, stride)
        core = max(core, round_up(2 * (settings.blend or 0), stride))
    if settings.blend is None:
        blend = min(blend, core // 2)
    return TileGrid(scene, core, halo, blend, stride, fixed=card.patch is not None)


def check_units(source: SceneSource, units: str, taker: str) -> None:
    """Stored numbers can be turned into the units the model takes, and look like them.

    Integers need a declared scale, and the offset that their product is known to have. What
    nobody declares is held against a sample of the pixels.

    Args:
        units: of the model.
        taker: what takes them, for messages.

    Raises:
        SceneError: if the model takes reflectance and the scene holds something else.
    """
    if units != "reflectance":
        return
    scene = source.scene
    bare = [b for b in scene.bands if not b.scaled and not b.dtype.startswith("float")]
    product = scene.product
    if product is not None and product.offset and any(b.scale != 1 for b in bare):
        raise SceneError(
            f"{scene.name} looks like {product.name}, whose offset is {product.offset:g}, but "
            f"only a scale is given; give the offset {product.offset:g}, or 0 if it has been "
            "applied already"
        )
    if bare:
        raise SceneError(
            f"{taker} takes reflectance (0..1), but {scene.name} stores {scene.dtype} without a "
            f"scale; {_usual(product)}"
        )
    _check_numbers(source, taker)


def _usual(product: Product | None) -> str:
    """What to do where no scale is declared: only numbers that hold for the product are named."""
    if product is None:
        return "give the scale, the offset and the nodata that its provider states"
    offset = "the offset of its metadata" if product.offset is None else f"{product.offset:g}"
    return (
        f"if it is {product.name}, give scale {product.scale:g}, offset {offset} and nodata "
        f"{product.nodata:g}"
    ).replace("offset the", "the")


HIGHEST, OFTEN = 5.0, 0.1
"""Numbers are no reflectance if so many of a sample are higher; clouds reach 2."""
_DARKEST = 0.001
"""No scene has so little reflectance in every band at nearly every pixel."""


def _check_numbers(source: SceneSource, taker: str) -> None:
    """Hold a sample of what nobody declares against reflectance.

    Raises:
        SceneError: if numbers without a scale are too high, some without nodata mean nothing, or
            a scale is declared for floats that are reflectance without it.
    """
    scene = source.scene
    floats = all(band.dtype.startswith("float") for band in scene.bands)
    if all(band.declared for band in scene.bands) and not floats:
        return
    rows, cols = scene.shape
    corners = [
        Window(top, left, top + _SPOT, left + _SPOT)
        for top in (0, rows - _SPOT)
        for left in (0, cols - _SPOT)
    ]
    with source.open() as reader:
        stored = sample(reader, [*corners, *spread(scene.shape, _SPOT, _SPOTS)])
    check_fills(scene, stored, np.ones(stored.shape[1:], dtype=np.bool_))
    for band, numbers in zip(scene.bands, stored, strict=True):
        if not band.scaled and numbers.size and (numbers > HIGHEST).mean() > OFTEN:
            raise SceneError(
                f"{taker} takes reflectance (0..1), but {band.name} of {scene.name} holds numbers "
                f"up to {numbers.max():g}; {_usual(scene.product)}"
            )
    if floats and stored.size:
        _check_scaled_twice(scene, stored, taker)


def _check_scaled_twice(scene: Scene, stored: npt.NDArray[Any], taker: str) -> None:
    """Floats with fractions, all nearly 0 after scaling, have been scaled already.

    Args:
        stored: numbers of a sample (band, n).

    Raises:
        SceneError: if they have.
    """
    usual = np.percentile(stored, 99, axis=1)  # a few fill numbers do not count
    scales = [abs(band.scale) for band in scene.bands]
    if max(usual * scales) >= _DARKEST or not 0 < max(usual) <= HIGHEST or min(scales) == 1:
        return
    if not (stored != np.rint(stored)).any():
        return  # whole numbers, as stored
    raise SceneError(
        f"{taker} takes reflectance (0..1), but {scene.name} declares the scale {max(scales):g} "
        f"for numbers up to {max(usual):.3g}, which makes them {max(usual * scales):.1g} at most; "
        "give `scale` 1 if they are reflectance already"
    )


_SPOT, _SPOTS = 64, 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do.

    Args:
        workers: processes that share the tiles.
        store_bytes: bound of the stores on disk.
        product_bytes: bound of products and temporary files.
        worker_bytes: bound of the memory of one worker.
        seconds: expected, start-up left out.
        products: rasters that are written.
    """

    grid: TileGrid
    workers: int
    device: str
    store_bytes: int
    product_bytes: int
    worker_bytes: int
    seconds: float
    products: int = 2

    @property
    def disk_bytes(self) -> int:
        """Everything on disk."""
        return self.store_bytes + self.product_bytes

    @property
    def tasks(self) -> int:
        """Segment and stitch each tile once, export each product."""
        return 2 * self.grid.size + self.products


def make_plan(
    grid: TileGrid,
    scene: Scene,
    card: ModelCard,
    cost: Cost,
    workers: int,
    keep_tiles: bool,
    uncertainty: Sequence[str] = (),
) -> Plan:
    """Add up what the tiles of a grid take; every figure but the seconds is a bound."""
    layers = 2 + len(uncertainty)
    pixels = grid.scene[0] * grid.scene[1]
    frame = sum(w.size for tile in _corner_tiles(grid) for w in frame_windows(grid, tile).values())
    frames = frame * len(card.classes) * 2 * grid.size // max(len(_corner_tiles(grid)), 1)
    store = 2 * layers * pixels + frames + 16384 * grid.size
    if keep_tiles:
        store += grid.patch_pixels() * (len(card.bands) * scene.dtype.itemsize + 1)
    side = _largest_side(grid)
    seconds = cost.seconds_per_pixel * grid.patch_pixels() / min(workers, grid.size)
    return Plan(
        grid=grid,
        workers=workers,
        device=cost.device,
        store_bytes=store,
        product_bytes=2 * layers * pixels + (4 << 20),
        worker_bytes=cost.worker_bytes(side),
        seconds=seconds * 1.1,
        products=layers,
    )


def probability_bytes(grid: TileGrid, classes: int) -> int:
    """Bound of the stores where the probability of every class is kept: before and after stitch."""
    return 2 * (classes * grid.scene[0] * grid.scene[1] + 4096 * grid.size)


def _largest_side(grid: TileGrid) -> int:
    return max(grid.patch_window(next(grid.tiles())).shape)


def _corner_tiles(grid: TileGrid) -> list[tuple[int, int]]:
    rows, cols = grid.shape
    return [(min(1, rows - 1), min(1, cols - 1))]


def check_memory(
    grid: TileGrid, card: ModelCard, cost: Cost, limit_bytes: int, settings: GridSettings
) -> TileGrid:
    """The grid, or one with smaller patches that fits into the memory limit.

    Raises:
        ConfigError: if the patch the user or the model asks for does not fit, or none does; it
            says the smallest limit that works.
    """
    side = _largest_side(grid)
    if cost.worker_bytes(side) <= limit_bytes:
        return grid
    smallest_side = side
    if settings.core is None and card.patch is None:
        smallest_core = max(card.stride, round_up(2 * grid.blend, card.stride))
        smallest_side = min(side, smallest_core + 2 * grid.halo)
        for patch in (*(p for p in PATCHES if smallest_side < p < side), smallest_side):
            if cost.worker_bytes(patch) <= limit_bytes:
                return choose_grid(grid.scene, card, settings, patch)
    need = _mib(cost.worker_bytes(smallest_side))
    raise ConfigError(
        f"a worker needs {need} for one tile of {smallest_side} x {smallest_side} pixels, the "
        f"memory limit is {_mib(limit_bytes, down=True)}; the smallest limit that works is "
        f"`memory_limit` {need.replace(' ', '')}"
    )


def _mib(size: int, down: bool = False) -> str:
    return f"{size // (1 << 20) if down else -(-size // (1 << 20))} MiB"


def parse_bytes(text: str | int) -> int:
    """Bytes of a text such as ``2GiB``, ``800 MB`` or ``1.5e9``.

    Raises:
        UsageError: if it is none.
    """
    import dask.utils

    try:
        size = int(dask.utils.parse_bytes(text)) if text != "" else 0
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"a memory limit must look like 2GiB or 800MB, got {text!r:.80}"
        ) from error
    if size <= 0:
        raise UsageError(f"a memory limit must be above 0, got {text!r:.80}")
    return size
