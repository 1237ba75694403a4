"""What runs inside a worker process: the counts of one tile.

Everything but the tile's address the process opens once for each evaluation; what it imports is
little, so that workers are quickly there.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from distributed import Worker, WorkerPlugin

from tilemap.errors import SceneError, StoreError
from tilemap.evaluation.classes import UNKNOWN
from tilemap.evaluation.metrics import IGNORE
from tilemap.evaluation.request import EvaluateSettings, Work, prepare
from tilemap.evaluation.tally import Tally, count_tile
from tilemap.evaluation.trained_blocks import SEEN
from tilemap.geometry import Tile, Window
from tilemap.stores.fingerprint import Inputs
from tilemap.stores.mosaic import Handles
from tilemap.stores.opening import GDAL_SETTINGS

GDAL_CACHE_MB = 64

ByteArray = npt.NDArray[np.uint8]


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes; 0 where the system does not tell.

    As ``tilemap.worker`` does it, without what that imports.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class Counter:
    """An evaluation as one process holds it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._local = threading.local()

    def handles(self) -> Handles:
        """The open files of this thread: GDAL's must not be shared."""
        handles: Handles | None = getattr(self._local, "handles", None)
        if handles is None:
            handles = self._local.handles = Handles()
        return handles

    def labels(self, window: Window) -> ByteArray:
        """Class indices of the map, uint8 (y, x).

        Raises:
            SceneError: if a stored number is no class.
        """
        image, valid = self.handles().of(self.work.class_map).read((0,), window)
        labels = self.work.map_lookup.apply(image[0])
        labels[~valid] = IGNORE
        if (labels == UNKNOWN).any():
            odd = ", ".join(f"{v:g}" for v in np.unique(image[0][labels == UNKNOWN])[:12].tolist())
            known = ", ".join(f"{c.value} {c.name}" for c in self.work.classes)
            raise SceneError(f"the map must have values of its classes ({known}), got {odd}")
        return labels

    def errors(self, window: Window) -> tuple[ByteArray, npt.NDArray[np.bool_]]:
        """1 where map and reference disagree, uint8 (1, y, x), and where both are known (y, x)."""
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, **GDAL_SETTINGS):
            reference = self.work.reference.read(self.handles(), window)
            labels = self.labels(window)
            self._leave_out(reference, window)
        seen = (reference != IGNORE) & (labels != IGNORE)
        return (reference != labels)[None].astype(np.uint8), seen

    def count(self, tile: Tile) -> Tally:
        """The counts of one tile."""
        work = self.work
        core = work.grid.core_window(tile)
        window = core.grow(work.tolerance.halo).intersect(work.grid.scene_window)
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB, **GDAL_SETTINGS):
            reference = work.reference.read(self.handles(), window)
            inside = core.within(window)
            if (reference[inside] == IGNORE).all():
                return Tally.empty(len(work.classes))
            confidence = None
            if work.confidence is not None:
                pixels, valid = self.handles().of(work.confidence).read((0,), core)
                confidence = np.where(valid, pixels[0], IGNORE).astype(np.uint8)
            labels = self.labels(window)
            both = (reference[inside] != IGNORE) & (labels[inside] != IGNORE)
            parts = self._leave_out(reference, window)
            tally = count_tile(
                (reference, labels),
                inside,
                len(work.classes),
                work.tolerance,
                confidence,
                None if work.regions is None else work.regions.burn(core),
            )
            if parts is not None:
                tally.seen += [np.count_nonzero(both & (parts[inside] == p)) for p in SEEN.values()]
            return tally

    def _leave_out(self, reference: ByteArray, window: Window) -> ByteArray | None:
        """Ignore the reference on the parts that are left out.

        Returns:
            ``Part`` of each pixel, uint8 (y, x); None if nobody knows.
        """
        if self.work.blocks is None:
            return None
        parts = self.work.blocks.read(window)
        for part in self.work.settings.leave_out:
            reference[parts == SEEN[part]] = IGNORE
        return parts


_counters: dict[str, Counter] = {}


class EvaluationPlugin(WorkerPlugin):
    """Opens an evaluation in every worker process, those that join later included."""

    def __init__(self, name: str, settings: EvaluateSettings, inputs: Inputs) -> None:
        self.evaluation, self.settings, self.inputs = name, settings, inputs
        self.name = f"tilemap-{name}"

    def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        work = prepare(self.settings)
        self.inputs.confirm()
        _counters[self.evaluation] = Counter(work)

    def teardown(self, worker: Worker) -> None:
        """Called by Dask when it is over."""
        _counters.pop(self.evaluation, None)


def count_task(name: str, tile: tuple[int, int]) -> bytes:
    """One tile in a worker; may be run twice, in any order, anywhere."""
    if name not in _counters:
        raise StoreError(f"evaluation {name} must be set up in this worker process first")
    return _counters[name].count(Tile(*tile)).to_bytes()
