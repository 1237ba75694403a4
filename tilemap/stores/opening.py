"""Opening files by the few drivers allowed, and errors that name the file."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from tilemap.errors import SceneError, TilemapError

if TYPE_CHECKING:
    from tilemap.stores.remote.dataset import Container

SUFFIXES = (".tif", ".tiff", ".jp2")
_SIGNATURES = {  # the first bytes of a file decide its driver, never its name
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
GDAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",  # sidecars are still looked up by their names
    "GDAL_PAM_ENABLED": "YES",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_MAX_DATASET_POOL_SIZE": "64",
    "GTIFF_VIRTUAL_MEM_IO": "NO",
    "GDAL_HTTP_MAX_RETRY": "0",
}


def plain_path(source: str | os.PathLike[str]) -> Path:
    """The absolute path of a local file or folder.

    Raises:
        SceneError: for a URL or a GDAL virtual path, and for what does not exist.
    """
    text = os.fspath(source)
    if text.startswith("/vsi") or "://" in text or "\0" in text:
        raise SceneError(f"a source must be a local file, got {text!r}; download it first")
    path = Path(text).expanduser().absolute()
    try:
        exists = path.exists()
    except OSError as problem:
        raise SceneError(f"cannot look at {text!r}: {problem.strerror}") from problem
    if not exists:
        raise SceneError(f"no such file: {text}")
    return path


@contextmanager
def naming_file(path: str, doing: str, error: type[TilemapError]) -> Iterator[None]:
    """Turn whatever GDAL raises into one error that names the file."""
    try:
        yield
    except (TilemapError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as problem:
        reason = " ".join(str(problem.__cause__ or problem).split()) or type(problem).__name__
        raise error(
            f"cannot {doing} {path}: {reason[:300].rstrip('.')}; it may be truncated or damaged"
        ) from problem


def driver_of(path: str) -> str:
    """The one driver that may open a file: VRT by its suffix, the others by their first bytes.

    So a text file named .tif that GDAL would take for a VRT or a service stays shut.

    Raises:
        SceneError: if it is none of them.
    """
    if path.lower().endswith(".vrt"):
        return "VRT"
    try:
        with Path(path).open("rb") as file:
            head = file.read(8)
    except OSError as problem:
        raise SceneError(f"cannot open {path}: {problem.strerror}") from problem
    return driver_by(head, path)


def driver_by(head: bytes, path: str) -> str:
    """The driver for a file that begins like this.

    Args:
        head: its first 8 bytes.
        path: for the message.

    Raises:
        SceneError: if there is none.
    """
    for signature, driver in _SIGNATURES.items():
        if head.startswith(signature):
            return driver
    raise SceneError(f"not a raster of an allowed format (GeoTIFF, COG, JPEG 2000): {path}")


def open_dataset(path: str, remote: Container | None = None) -> Any:
    """A rasterio dataset in read mode, by the one driver allowed for the file.

    Args:
        path: absolute; of a remote file what it is called in messages.
        remote: where its bytes come from, inside whose ``run`` this is called; None for a local
            file.

    Raises:
        SceneError: if that driver does not take it.
        StoreError: if a remote file cannot be read.
    """
    driver = driver_of(path) if remote is None else driver_by(remote.reader.read(0, 8), path)
    place: dict[str, Any] = {"fp": Path(path)}
    if remote is not None:
        place = {"fp": remote.name, "opener": remote}
    listener = _Listener()
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(listener)
    try:
        with (
            naming_file(path, "open", SceneError),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(**place, driver=driver, sharing=False)
    finally:
        logger.removeHandler(listener)
    if listener.lost:
        dataset.close()
        raise SceneError(f"{path} is truncated: {listener.lost[0]}; fetch it again")
    return dataset


class _Listener(logging.Handler):
    """Hears of tags that GDAL could not read and passes over, such as nodata, scale, geokeys."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lost: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by the logger."""
        text = record.getMessage()
        if record.thread == self._thread and "IO error" in text:
            self.lost.append(" ".join(text.rpartition("TIFFFetchNormalTag:")[2].split())[:200])
