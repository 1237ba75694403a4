"""One piece of work done: a scene mapped, a series compared, each in its run directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from tilemap.directory import RunDirectory, digest_of
from tilemap.errors import InputChangedError, OutputError, TilemapError, UnavailableError
from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.facts import CHANGE_ID
from tilemap.nightly.places import Places
from tilemap.nightly.works import Work
from tilemap.progress import Progress

if TYPE_CHECKING:
    from distributed import Client

    from tilemap.changing.prepare import PreparedSeries
    from tilemap.prepare import Prepared


class ClusterLostError(UnavailableError):
    """There is no cluster, or not any more: nothing else can be done either.

    Args:
        error: why; its text and exit code are taken over.
    """

    def __init__(self, error: TilemapError | str) -> None:
        super().__init__(str(error))
        if isinstance(error, TilemapError):
            self.exit_code = error.exit_code


@dataclass(frozen=True)
class Made:
    """What a run left.

    Args:
        run: its directory.
        status: ok or partial.
        record: contents of ``run.json``.
        seconds: wall time, start-up included.
    """

    run: Path
    status: Literal["ok", "partial"]
    record: Mapping[str, Any] = field(repr=False)
    seconds: float

    @property
    def pixels(self) -> int:
        """Newly mapped."""
        return int(self.record["pixels"])

    @property
    def km2(self) -> float | None:
        """True area of all classes together; None where it is not known."""
        if "transitions" in self.record:
            areas = [row["area_ha"] for row in self.record["transitions"]]
            return None if None in areas else sum(areas) / 100
        areas = [row["area_km2"] for row in self.record["classes"]]
        return None if None in areas else float(sum(areas))

    @property
    def steps(self) -> dict[str, float]:
        """Seconds by step, of all workers together."""
        return {name: float(s) for name, s in self.record["seconds"]["by_step"].items()}


class PassCluster:
    """The cluster of a pass: started or joined when the first work needs it, kept to the end.

    Args:
        config: its table ``[cluster]``.
    """

    def __init__(self, config: NightlyConfig) -> None:
        self._table = config.cluster
        self._open = ExitStack()
        self._client: Client | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def client(self) -> Client:
        """The client.

        Raises:
            ClusterLostError: if there is no cluster to be had.
        """
        from tilemap.cluster import connect

        with self._lock, naming_cluster(TilemapError):
            if self._client is None:
                self._client = self._open.enter_context(connect(self._table.settings()))
            return self._client


@contextmanager
def naming_cluster(kind: type[TilemapError] = UnavailableError) -> Iterator[None]:
    """What is not there while a run lasts is the cluster, no part of tilemap."""
    try:
        yield
    except kind as error:
        raise ClusterLostError(error) from error


def do_work(
    work: Work, config: NightlyConfig, places: Places, cluster: PassCluster, told: Progress
) -> Made:
    """Map a scene or compare a series; the same work continues where an earlier pass was stopped.

    Raises:
        TilemapError: of the kind that fits.
    """
    started = time.perf_counter()
    do = _map if work.kind == "map" else _compare
    run, status, record = do(work, config, places, cluster, told)
    return Made(run, status, record, time.perf_counter() - started)


_Outcome = tuple[Path, Literal["ok", "partial"], dict[str, Any]]


def _map(
    work: Work, config: NightlyConfig, places: Places, cluster: PassCluster, told: Progress
) -> _Outcome:
    from tilemap import api
    from tilemap.run import execute
    from tilemap.stores.remote.address import AllowList

    area = config.area(work.area)
    out = places.run(work.area, work.id, work.digest)
    options: Any = {
        **config.segment_options(area),
        "keep_stores": config.retention.stores,
        "stores": config.nightly.stores,
        "cluster": config.cluster.model_dump(exclude_unset=True),
        "allow_hosts": config.remote.allow_hosts,
    }
    prepared = api.plan(work.sources, model=config.models(area), out=out, **options)
    _check_found(work, prepared)
    directory = RunDirectory(out, AllowList.of(config.remote.allow_hosts))
    fresh = _is_of_another_run(directory, prepared)
    client = cluster.client()
    with naming_cluster():
        result = execute(prepared, out, fresh, told, client=client)
    return out, "ok" if result.status == "ok" else "partial", result.record


def _check_found(work: Work, prepared: Prepared) -> None:
    """The files of a scene are those that were found when the night began.

    Raises:
        InputChangedError: if one is not; the next night takes it as it is then.
    """
    found: dict[str, list[tuple[Any, Any]]] = {}
    for record in work.fingerprint:
        if "mtime_ns" in record:
            name = Path(str(record["name"])).name
            found.setdefault(name, []).append((record["size"], record["mtime_ns"]))
    for file in prepared.inputs.files:
        state = file.state[2:4]
        if state and state not in found.get(file.name, [state]):
            raise InputChangedError(
                f"{file.path} must stay as it was found, it has changed since; the next night "
                "maps it as it is then"
            )


def _compare(
    work: Work, config: NightlyConfig, places: Places, cluster: PassCluster, told: Progress
) -> _Outcome:
    from tilemap import api
    from tilemap.changing.directory import ChangeDirectory
    from tilemap.changing.execute import execute_series
    from tilemap.changing.prepare import prepare_series

    options = config.change_options(config.area(work.area))
    out = places.run(work.area, CHANGE_ID, digest_of(options))
    mask = options.pop("mask", None)
    inputs = [str(places.root / product.run) for product in work.dates]
    settings = api.change_settings(
        inputs,
        None,
        {
            **options,
            "dates": [str(product.day) for product in work.dates],
            "masks": [mask.format(scene=p.id) for p in work.dates] if mask is not None else (),
            "cluster": config.cluster.model_dump(exclude_unset=True),
        },
    )
    prepared = prepare_series(settings, out)
    fresh = _is_of_another_run(ChangeDirectory(out, prepared.identity), prepared)
    client = cluster.client()
    with naming_cluster():
        result = execute_series(prepared, out, fresh, told, client=client)
    return out, "ok" if result.status == "ok" else "partial", result.record


def _is_of_another_run(directory: RunDirectory, prepared: Prepared | PreparedSeries) -> bool:
    """Whether what lies there cannot be continued: another device or version, or other dates.

    The directories of the passes are the passes' own, so it is started anew then.
    """
    if directory.previous() is None:
        return False
    try:
        directory.check(prepared.identity, fresh=False)
        directory.check_versions(prepared.versions, allow_others=False)
    except OutputError:
        return True
    return False
