"""The same software everywhere: compared before a run, and again when a worker joins later."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from tilemap.cluster.driver import by_value, put

STRICT = ("python", "tilemap", "code", "numpy", "zarr", "dask", "distributed")
"""What must be equal: tasks are pickled by one and read by the other, and chunks likewise."""
LOOSE = ("rasterio", "torch", "onnxruntime", "openvino")
"""What should be: results may differ in the last digit."""

Software = Mapping[str, str | None]
"""Versions by name; None for what is not there."""


def installed() -> dict[str, str | None]:
    """The software of this process. ``code`` is a digest of tilemap's own files.

    Needs nothing of tilemap: a worker may have none.
    """
    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("tilemap", "numpy", "zarr", "dask", "distributed", *LOOSE):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["code"] = code_digest()
    return found


def code_digest() -> str | None:
    """Digest of tilemap's own modules, 12 digits; None where there is no tilemap."""
    from importlib.util import find_spec

    module = sys.modules.get("tilemap")
    try:
        spec = module.__spec__ if module is not None else find_spec("tilemap")
    except ImportError:
        return None
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def differences(here: Software, there: Software, names: tuple[str, ...]) -> list[str]:
    """What differs, as ``numpy 2.1.0 here, 1.26.4 there``; a digest of code only if nothing else.

    >>> differences({"zarr": "3.1.0"}, {"zarr": None}, ("zarr",))
    ['zarr 3.1.0 here, none there']
    """
    found = []
    for name in names:
        own, other = here.get(name), there.get(name)
        if own == other or (name == "code" and here.get("tilemap") != there.get("tilemap")):
            continue
        label = "tilemap's code" if name == "code" else name
        found.append(f"{label} {own or 'none'} here, {other or 'none'} there")
    return found


def compare(client: Client, scheduler: bool = True, workers: bool = True) -> list[str]:
    """Compare this process with the scheduler and with every worker.

    Returns:
        What differs and is borne, a line each.

    Raises:
        ConfigError: if what must be equal is not; it names both versions and where the other is.
    """
    from tilemap.errors import ConfigError

    here = installed()
    there: dict[str, Software] = {}
    with by_value(sys.modules[__name__]):
        if scheduler:
            there["the scheduler"] = client.run_on_scheduler(installed)
        if workers:
            found = client.run(installed, on_error="ignore")
            there |= {f"worker {address}": software for address, software in found.items()}
    for where, software in there.items():
        if wrong := differences(here, software, STRICT):
            raise ConfigError(
                f"{where} must have the same software as this process: {'; '.join(wrong)}; "
                "install the same there, or name the wheel in [cluster]"
            )
    notes: dict[str, list[str]] = {}
    for where, software in there.items():
        for note in differences(here, software, LOOSE) if where != "the scheduler" else ():
            notes.setdefault(note, []).append(where)
    return [f"{note} ({_places(places)})" for note, places in notes.items()]


def _places(places: list[str]) -> str:
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{places[0]}{more}"


class VersionPlugin(WorkerPlugin):
    """A worker that joins later with other software leaves again."""

    name = "tilemap-versions"

    def __init__(self) -> None:
        self.software = installed()

    async def setup(self, worker: Worker) -> None:
        """Called by Dask in each worker."""
        wrong = differences(self.software, installed(), STRICT)
        if wrong:
            leave(worker, "; ".join(wrong).replace(" here, ", " with the driver, "))


def leave(worker: Any, why: str) -> None:
    """Close a worker that cannot take part: it would fail task after task, and so get them all."""
    import logging

    logging.getLogger("distributed.worker").error("tilemap: this worker leaves: %s", why)
    worker.loop.add_callback(worker.close, reason=f"tilemap: {why}", nanny=True)


def guard(client: Client) -> None:
    """Turn workers away that join with other software, as long as this driver is there."""
    with by_value(sys.modules[__name__]):
        put(client, VersionPlugin())
