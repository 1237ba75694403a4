"""One scene as training reads it: image, valid, labels, parts, and what a teacher says of it.

A Zarr group per scene, made once: it gets its name when all of it is written and on the disk, and
carries the digest of what it was made from, so that a half-written one, or one of other inputs,
is made anew.
"""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from tilemap.errors import StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.scene import Scene
from tilemap.stores.chunks import (
    Index,
    add_array,
    array_of,
    create_group,
    finish_group,
    open_group,
    read_chunk,
    sync_chunk,
    write_chunk,
)

CHUNK = 512
CACHE_BYTES = 256 << 20
_DIGEST = "tilemap:digest"


class ChunkCache:
    """Decoded chunks, those used last; shared by all scenes of a training, safe for threads.

    Args:
        most: bytes it holds.
    """

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most, self._held = most, 0
        self._chunks: OrderedDict[tuple[str, Index], npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, name: str, index: Index, make: Callable[[], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """One chunk, read-only.

        Args:
            name: of the array, unique among all that share the cache.
            index: of the chunk.
            make: reads or computes the chunk if it is not held.

        Raises:
            StoreError: see ``read_chunk``.
        """
        key = (name, index)
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = make()
        chunk.flags.writeable = False
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self._held += chunk.nbytes
                while self._held > self._most and len(self._chunks) > 1:
                    self._held -= self._chunks.popitem(last=False)[1].nbytes
        return chunk

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        return self._held


class SampleStore:
    """Reads windows of one scene's samples.

    Args:
        path: of a finished group.
        scene: what it was made from.
        cache: of decoded chunks.

    Raises:
        StoreError: if it is not there or lacks an array.
    """

    def __init__(self, path: Path, scene: Scene, cache: ChunkCache) -> None:
        group = open_group(path)
        self.path, self._scene, self._cache = path, scene, cache
        self._arrays = {name: array_of(group, name) for name, _ in group.arrays()}
        for name in ("image", "valid", "label"):
            array_of(group, name)

    @property
    def scene(self) -> Scene:
        """What is read; with ``read`` this makes it a ``WindowReader``."""
        return self._scene

    @property
    def has_parts(self) -> bool:
        """Whether the parts are told pixel by pixel."""
        return "part" in self._arrays

    @property
    def taught(self) -> bool:
        """Whether a teacher's probabilities are there."""
        return "teacher" in self._arrays

    def read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Stored numbers (band, y, x) and valid (y, x) of a window inside the scene."""
        return self._window("image", window), self._window("valid", window)

    def label(self, window: Window) -> npt.NDArray[np.uint8]:
        """Class index (y, x), IGNORE where none is known."""
        return self._window("label", window)

    def part(self, window: Window) -> npt.NDArray[np.uint8]:
        """``Part`` (y, x); only where ``has_parts``."""
        return self._window("part", window)

    def teacher(self, window: Window) -> npt.NDArray[np.float16]:
        """Probability (class, y, x); only where ``taught``."""
        return self._window("teacher", window)

    def _window(self, name: str, window: Window) -> npt.NDArray[Any]:
        array = self._arrays[name]

        def get(index: Index) -> npt.NDArray[Any]:
            return self._cache.get(f"{self.path}/{name}", index, lambda: read_chunk(array, index))

        return _assemble(array, window, get)

    def remember(
        self, name: str, index: Index, make: Callable[[], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """What is computed of a chunk, kept as chunks are; see ``ChunkCache.get``."""
        return self._cache.get(f"{self.path}:{name}", index, make)


class SampleWriter:
    """Writes a scene's samples chunk by chunk; only ``finish`` gives the group its name.

    Args:
        path: of the group; whatever is there is removed.
        scene: whose samples they are.
        parts: whether parts are told pixel by pixel.
        classes: of a teacher; 0 for none.
        teacher_chunk: side of its chunks.
    """

    def __init__(
        self, path: Path, scene: Scene, parts: bool, classes: int = 0, teacher_chunk: int = CHUNK
    ) -> None:
        if path.exists():
            shutil.rmtree(path)
        self._path, self.scene = path, scene
        self._group = create_group(path, {})
        bands = len(scene.bands)
        self._add("image", (bands,), scene.dtype)
        self._add("valid", (), np.bool_)
        self._add("label", (), np.uint8)
        if parts:
            self._add("part", (), np.uint8)
        if classes:
            self._add("teacher", (classes,), np.float16, teacher_chunk)

    def _add(
        self, name: str, lead: tuple[int, ...], dtype: npt.DTypeLike, chunk: int = CHUNK
    ) -> None:
        axes = ("band" if name == "image" else "class", "y", "x")[-2 - len(lead) :]
        shape = (*lead, *self.scene.shape)
        add_array(self._group, name, shape, (*lead, chunk, chunk), dtype, axes)

    def write(self, name: str, row: int, col: int, value: npt.NDArray[Any]) -> None:
        """Write one chunk and flush it to the disk.

        Args:
            name: of the array.
            row: of the chunk.
            col: of the chunk.
            value: (y, x) or (band or class, y, x), as large as the chunk inside the scene.
        """
        array = array_of(self._group, name)
        index = (*(0,) * (value.ndim - 2), row, col)
        write_chunk(array, index, value)
        sync_chunk(array, index)

    def read(self, name: str, window: Window) -> npt.NDArray[Any]:
        """What was written of one array."""
        array = array_of(self._group, name)
        return _assemble(array, window, lambda index: read_chunk(array, index))

    def finish(self, digest: str) -> None:
        """Everything is written.

        Args:
            digest: of what it was made from.
        """
        self._group.attrs.update({_DIGEST: digest})
        finish_group(self._path)


def is_made_from(path: Path, digest: str) -> bool:
    """Whether a finished group is there that was made from the same."""
    if not path.is_dir():
        return False
    try:
        return open_group(path).attrs.get(_DIGEST) == digest
    except StoreError:
        return False


def chunk_grid(scene: tuple[int, int], side: int = CHUNK) -> TileGrid:
    """The chunks of a scene as cores without a halo."""
    return TileGrid(scene, side, 0, 0)


def chunk_windows(scene: tuple[int, int]) -> Iterator[tuple[int, int, Window]]:
    """Row, column and window of every chunk, row by row."""
    grid = chunk_grid(scene)
    return ((*tile, grid.core_window(tile)) for tile in grid.tiles())


def _assemble(
    array: zarr.Array[Any], window: Window, get: Callable[[Index], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """A window of an array from its chunks; only its last two axes are cut."""
    height, width = array.chunks[-2:]
    lead = array.shape[:-2]
    out = np.empty((*lead, *window.shape), dtype=array.dtype)
    for row in range(window.top // height, -(-window.bottom // height)):
        for col in range(window.left // width, -(-window.right // width)):
            chunk = get((*(0,) * len(lead), row, col))
            top, left = row * height, col * width
            whole = Window(top, left, top + chunk.shape[-2], left + chunk.shape[-1])
            both = window.intersect(whole)
            out[..., *both.within(window)] = chunk[..., *both.within(whole)]
    return out
