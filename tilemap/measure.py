"""What one tile costs: memory and seconds, measured in a process of its own before the run.

A model's memory cannot be known from its file. So one patch is segmented in a fresh process that
has loaded what a worker loads, at two sizes; between them memory is linear in the pixels of the
patch. The figures are kept by model, patch and machine, so that only the first run pays for them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilemap import errors
from tilemap.errors import StoreError, TilemapError, UnavailableError
from tilemap.files import decode_json, outside_error, read_json
from tilemap.geometry import Tile, TileGrid, round_up
from tilemap.models import registry

if TYPE_CHECKING:
    from tilemap.models.protocol import Model
    from tilemap.models.recipe import Recipe
    from tilemap.scene import Scene
    from tilemap.stores.predictions import Uncertainty

MB = 1 << 20
WORKER_SLACK_BYTES = 320 * MB
"""GDAL's block cache (64 MiB), an export (64), the codecs' threads, a worker's connections."""
FRAGMENTED = 1.25
"""What the heap of a worker grows to over many tiles, against the first ones."""
GRANULE = 64


@dataclass(frozen=True, slots=True)
class Trial:
    """What is measured.

    Args:
        side: height and width of the patch, pixels.
        uncertainty: measures that are kept besides.
    """

    model: Recipe
    scene: Scene
    side: int
    device: str
    precision: str
    threads: int
    engine: str = "auto"
    uncertainty: tuple[Uncertainty, ...] = ()

    def load(self) -> Model:
        """The model as a worker would load it."""
        return self.model.load(self.device, self.precision, self.threads, self.engine)


@dataclass(frozen=True, slots=True)
class Cost:
    """What tiles of a model cost in one worker.

    Args:
        device: where the model ran.
        base_bytes: memory of a worker apart from the patch.
        bytes_per_pixel: memory per pixel of the patch.
        seconds_per_pixel: of one worker, per pixel of the patch; for the estimate only, since a
            cut that follows a stopwatch is another one on another machine.
    """

    device: str
    base_bytes: int
    bytes_per_pixel: float
    seconds_per_pixel: float

    def worker_bytes(self, patch: int) -> int:
        """Bound of a worker's memory with patches of ``patch`` pixels a side."""
        return int(self.base_bytes + self.bytes_per_pixel * patch * patch + WORKER_SLACK_BYTES)


def resolve_device(model: Recipe, device: str) -> str:
    """Turn "auto" into "cuda" where every member can use it and one is there, else into "cpu"."""
    if device != "auto":
        return device
    if any(member.path.suffix == ".onnx" for member in model.members):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def measure(trial: Trial) -> Cost:
    """Cost of a model's tiles; from an earlier measurement where there is one.

    Raises:
        TilemapError: whatever kept the model from being loaded or run.
    """
    cache = registry.data_home() / "measured" / f"{_key(trial)}.json"
    try:
        return Cost(**read_json(cache))
    except (StoreError, TypeError):
        pass
    environment = {**os.environ, "OMP_NUM_THREADS": str(trial.threads)}
    done = subprocess.run(
        [sys.executable, "-m", "tilemap.measure"],
        input=pickle.dumps(trial),
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode < 0:
        raise UnavailableError(
            f"one tile of {trial.model.card.name}, {trial.side} pixels a side, must fit into "
            f"memory; measuring it was ended by signal {-done.returncode}"
        )
    if done.returncode != 0 or not done.stdout:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise TilemapError(f"measuring one tile of {trial.model.card.name} failed: {tail[0]}")
    answer = decode_json(done.stdout.splitlines()[-1])
    if "error" in answer:
        raise getattr(errors, answer["type"], TilemapError)(answer["error"])
    cost = Cost(**answer)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(dataclasses.asdict(cost)))
        partial.replace(cache)
    except OSError:
        pass  # a home that cannot be written only costs the next run some seconds
    return cost


def _key(trial: Trial) -> str:
    from tilemap import __version__

    parts = (
        __version__, trial.model.digest, trial.model.tta, trial.uncertainty, trial.side,
        trial.scene.dtype.str, trial.device, trial.precision, trial.threads, trial.engine,
        platform.node(), platform.processor(), sys.version,
        Path(__file__).stat().st_mtime_ns,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _peak() -> int:
    """High-water mark of resident memory since it was last reset, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _run_once(trial: Trial, side: int) -> tuple[int, float]:
    """Peak bytes and seconds of one patch of ``side`` pixels, in this process."""
    import numpy as np

    from tilemap.stages.segment import segment_patch, standardise

    card, scene = trial.model.card, trial.scene
    model = trial.load()
    margin = min(GRANULE, side // 4)
    grid = TileGrid((side - 2 * margin,) * 2, side - 2 * margin, margin, 0)
    random = np.random.default_rng(0)
    # Reflectance up to 0.3, as integers times 10,000 or as it is: a model need not bear more.
    image = random.integers(1, 3000, (len(card.bands), side, side))
    image = (image * 1e-4 if scene.dtype.kind == "f" else image).astype(scene.dtype)
    valid = np.ones((side, side), dtype=np.bool_)
    tile = Tile(0, 0)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        standard = standardise(image, valid, scene, card)
        segment_patch(grid, tile, standard, valid, model, trial.uncertainty)
        seconds.append(time.perf_counter() - start)
    return _peak(), min(seconds)


def run_trial(trial: Trial) -> Cost:
    """Measure in this process, which should do nothing else; see ``measure``."""
    import tilemap.worker  # noqa: F401  what a worker has loaded counts

    trial = dataclasses.replace(trial, device=resolve_device(trial.model, trial.device))
    card = trial.model.card
    if card.patch is not None:
        small = large = card.patch
    else:
        large = round_up(trial.side, card.stride)
        small = round_up(max(large // 2, card.stride), card.stride)
    model = trial.load()
    base = _peak()
    del model
    low, seconds = _run_once(trial, small)
    high = low
    if large > small:
        high, seconds = _run_once(trial, large)
        slope = max((high - low) / (large * large - small * small), 1.0)
    else:
        slope = max((high - base) / (large * large), 1.0)
    # The patch that the other thread reads or writes meanwhile, and its standardised copy.
    waiting = len(card.bands) * (2 * trial.scene.dtype.itemsize + 4) + 2
    return Cost(
        device=trial.device,
        base_bytes=max(base, int(high - slope * large * large)),
        bytes_per_pixel=slope * FRAGMENTED + waiting,
        seconds_per_pixel=seconds / (large * large),
    )


def main() -> None:
    """Read a pickled trial from standard input, write its cost or its error as JSON."""
    trial: Trial = pickle.load(sys.stdin.buffer)
    try:
        answer = dataclasses.asdict(run_trial(trial))
    except Exception as error:
        known = outside_error(error)
        if known is None:
            raise
        answer = {"type": type(known).__name__, "error": str(known)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    from tilemap.measure import main as run_main

    run_main()
