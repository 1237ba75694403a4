"""Compare a map with its reference, tile by tile; only counts travel.

Each process opens the files itself. A tile leaves one string of bytes, its ``Tally``; the driver
adds them up, so any order and any number of workers give the same figures.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from distributed import Client
from distributed.scheduler import KilledWorker

from tilemap.cluster import ClusterSettings, connect, make_flight, opened
from tilemap.cluster.flight import Flight, Task
from tilemap.errors import (
    DiskFullError,
    InputChangedError,
    SceneError,
    SceneMismatchError,
    StoreError,
)
from tilemap.evaluation.counting import Counter, EvaluationPlugin, count_task, peak_memory
from tilemap.evaluation.request import (
    EvaluateSettings,
    Work,
    digests,
    prepare,
    settings_record,
)
from tilemap.evaluation.results import Evaluation, check_out, figures_of, notes_of, write_files
from tilemap.evaluation.tally import Tally
from tilemap.evaluation.trained_blocks import blocks_record, seen_warning
from tilemap.geometry import Tile
from tilemap.record import versions
from tilemap.report.evaluation_report import error_map

RETRIES = 2
FEW = 4
"""Tiles up to which no cluster is started: it would take longer than they do."""

Progress = Callable[[int, int], None]
"""Told how many tiles are done, of how many."""


@dataclass(frozen=True)
class Counted:
    """The counts of a whole map.

    Args:
        peak_bytes: largest resident memory of any process that counted.
    """

    tally: Tally
    peak_bytes: int


def evaluate_map(
    settings: EvaluateSettings,
    cluster: ClusterSettings,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a map with a reference, and write what came of it.

    Args:
        settings: what is compared.
        cluster: where; a map of few tiles is counted in this process unless one is asked for.
        out: directory of the files; None writes none.
        progress: told after each tile.

    Raises:
        TilemapError: of the kind that fits; no file is written then.
    """
    if out is not None:
        check_out(out)
    work = prepare(settings)
    inputs = digests(work.files(), work.inputs)
    start = time.perf_counter()
    counted = count_map(work, cluster, progress)
    seconds = time.perf_counter() - start
    pixels, training = int(counted.tally.matrix.sum()), None
    if work.blocks is not None:
        training = blocks_record(counted.tally.seen, pixels, settings.leave_out)
    figures = figures_of(counted.tally, work.classes, work.tolerance, work.region_names, training)
    record = {
        "figures": figures,
        "warnings": [*work.warnings, *seen_warning(training, pixels)],
        "notes": notes_of(figures, work.notes),
        "inputs": inputs,
        "settings": settings_record(settings),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {
            "pixels": work.grid.scene_window.size,
            "tiles": work.grid.size,
            "seconds": round(seconds, 3),
            "mpx_per_s": round(work.grid.scene_window.size / seconds / 1e6, 3),
            "peak_bytes": counted.peak_bytes,
        },
    }
    work.inputs.confirm()
    if out is not None:
        counter = Counter(work)
        picture = error_map(counter.errors, work.class_map.shape)
        counter.handles().close()
        work.inputs.confirm()
        write_files(out, record, picture)
    return Evaluation(record, out)


def count_map(work: Work, cluster: ClusterSettings, progress: Progress | None = None) -> Counted:
    """Count every tile: in this process if they are few, else on a cluster.

    Args:
        work: what is compared.
        cluster: where; a cluster that is asked for is always used.
        progress: told after each tile.

    Raises:
        SceneError: if a value is no class, or map and reference share no pixel.
        StoreError: if a file cannot be read.
        UnavailableError: if there is no scheduler, or the connection to it is lost.
    """
    total = Tally.empty(len(work.classes))
    told, size = progress or _silent, work.grid.size
    if size <= FEW and not cluster.asked:
        counter = Counter(work)
        for done, tile in enumerate(work.grid.tiles(), 1):
            total.add(counter.count(tile))
            told(done, size)
        counter.handles().close()
        peak = peak_memory()
    else:
        with connect(cluster) as client:
            for done, tally in enumerate(_on_cluster(client, work, cluster), 1):
                total.add(tally)
                told(done, size)
            peak = max(client.run(peak_memory, on_error="ignore").values(), default=0)
    if total.matrix.sum() == 0 and total.seen.any():
        raise SceneMismatchError(
            "`leave_out` must leave pixels to count, but all that map and reference share are in "
            f"blocks for {' and '.join(work.settings.leave_out)}"
        )
    if total.matrix.sum() == 0:
        raise SceneMismatchError(
            "map and reference must share a pixel that both observe, they share none; compare "
            "their extents, nodata and `ignore`"
        )
    return Counted(total, peak)


def _silent(done: int, size: int) -> None:
    """Nobody listens."""


def _on_cluster(client: Client, work: Work, cluster: ClusterSettings) -> Iterator[Tally]:
    """The tiles' counts as they come; a few tasks in flight per thread, however large the map."""
    name = f"evaluate-{uuid4().hex[:12]}"
    with opened(client, EvaluationPlugin(name, _absolute(work), work.inputs)):
        flight: Flight[Tile] = make_flight(client, cluster)
        try:
            yield from _counted(flight, name, work)
        finally:
            flight.cancel()


def _counted(flight: Flight[Tile], name: str, work: Work) -> Iterator[Tally]:
    waiting = deque(work.grid.tiles())
    tries: dict[Tile, int] = defaultdict(int)
    failures: dict[Tile, int] = defaultdict(int)
    while waiting or len(flight):
        while waiting and flight.room(segments=False) > 0:
            tile = waiting.popleft()
            tries[tile] += 1
            key = f"{name}-{tile.row}-{tile.col}-{tries[tile]}"
            flight.submit(Task(tile, (count_task, name, tuple(tile)), key))
        for landed in flight.landed():
            if landed.error is None and not landed.lost:
                yield Tally.from_bytes(landed.value, len(work.classes))
                continue
            if landed.error is not None:
                failures[landed.item] += 1
                _check(landed.error, failures[landed.item])
            waiting.appendleft(landed.item)


def _check(error: BaseException, failures: int) -> None:
    """Raise what another try cannot mend."""
    if isinstance(error, KilledWorker):
        raise StoreError(
            "the worker died each time it counted a tile; give it more memory, or a smaller `core`"
        ) from error
    if isinstance(error, SceneError | DiskFullError | InputChangedError) or failures > RETRIES:
        raise error


def _absolute(work: Work) -> EvaluateSettings:
    """The settings with paths that hold in any worker's working directory."""
    files = work.files()
    paths: dict[str, str | None] = {
        key: files[key] for key in ("reference", "classes", "regions") if key in files
    }
    if work.settings.confidence is not None:
        paths["confidence"] = files["confidence"]
    return replace(work.settings, class_map=files["map"], **paths)  # type: ignore[arg-type]
