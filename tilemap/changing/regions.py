"""Records of regions between the passes: what a core tells, and what it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilemap.comparison.regions import BorderRegions, JoinedRegions, join_regions
from tilemap.errors import DamagedError
from tilemap.geometry import Tile, TileGrid
from tilemap.stages.sieve import ChangePolygon, Regions, outline_regions

FOLDER = "regions"
Parts = Mapping[str, npt.NDArray[Any]]


def record_path(stores: Path, tile: Tile, what: str) -> Path:
    """File of one core's record: "border", "joined" or "parts"."""
    return stores / FOLDER / f"{tile.row}-{tile.col}.{what}.npz"


def write_parts(path: Path, parts: Parts) -> None:
    """Write arrays, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = dict(parts)
        np.savez(file, **arrays)
    partial.replace(path)


def read_parts(path: Path, tile: Tile) -> dict[str, npt.NDArray[Any]]:
    """Read arrays.

    Raises:
        DamagedError: if they are not there or cannot be read.
    """
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # of a decoder that meets damaged bytes
        raise DamagedError(f"{path} must be readable: {error}", tile) from error


def write_border(stores: Path, tile: Tile, border: BorderRegions) -> None:
    """What a core tells of its border."""
    parts: dict[str, npt.NDArray[Any]] = {
        "number": border.number,
        "code": border.code,
        "pixels": border.pixels,
        "first": border.first,
        **border.edges,
    }
    write_parts(record_path(stores, tile, "border"), parts)


def read_border(stores: Path, tile: Tile) -> BorderRegions:
    """The inverse of ``write_border``."""
    parts = read_parts(record_path(stores, tile, "border"), tile)
    edges = {side: parts[side] for side in ("top", "bottom", "left", "right")}
    return BorderRegions(parts["number"], parts["code"], parts["pixels"], parts["first"], edges)


def join_borders(stores: Path, grid: TileGrid) -> None:
    """Join the borders of all cores, and tell each what its regions belong to."""
    borders = {tile: read_border(stores, tile) for tile in grid.tiles()}
    for tile, joined in join_regions(grid, borders).items():
        parts: dict[str, npt.NDArray[Any]] = {
            "number": joined.number, "key": joined.key, "pixels": joined.pixels,
        }  # fmt: skip
        write_parts(record_path(stores, tile, "joined"), parts)


def read_joined(stores: Path, tile: Tile) -> JoinedRegions:
    """What a core was told."""
    parts = read_parts(record_path(stores, tile, "joined"), tile)
    return JoinedRegions(parts["number"], parts["key"], parts["pixels"])


def read_polygons(stores: Path, grid: TileGrid) -> list[ChangePolygon]:
    """All regions of a map, once every core is finished."""

    def parts() -> Iterator[Regions]:
        for tile in grid.tiles():
            yield Regions.unpack(read_parts(record_path(stores, tile, "parts"), tile))

    return outline_regions(parts(), grid.scene[1])
