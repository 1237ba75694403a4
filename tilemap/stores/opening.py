"""Opening files by the few drivers allowed, and errors that name the file."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from tilemap.errors import SceneError, TilemapError
from tilemap.files import is_file, open_file
from tilemap.stores.vrt import read_vrt

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
    # nothing is asked of the network, should any file still find a way to make GDAL try
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_HTTP_PROXY": "127.0.0.1:0",
}
_VRT_TEXT = re.compile(r"'?<VRTDataset.*</VRTDataset>'?")
_BESIDE = (".msk", ".MSK", ".ovr", ".OVR")
_ERDAS = b"EHFA_HEADER_TAG"


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
        reason = _VRT_TEXT.sub("it", reason)
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
    return driver_by(_head(path, 8), path)


def _head(path: str, size: int) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(size)
    except OSError as problem:
        raise SceneError(f"cannot open {path}: {problem.strerror}") from problem


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

    The same holds for every file that GDAL opens by itself: masks and overviews beside this one,
    and what a VRT reads.

    Args:
        path: absolute; of a remote file what it is called in messages.
        remote: where its bytes come from, inside whose ``run`` this is called; None for a local
            file.

    Raises:
        SceneError: if that driver does not take it.
        StoreError: if a remote file cannot be read.
    """
    if remote is not None:
        driver = driver_by(remote.reader.read(0, 8), path)
        return _opened(path, driver, {"fp": remote.name, "opener": remote})
    driver = driver_of(path)
    if driver != "VRT":
        _check_beside(path)
        return _opened(path, driver, {"fp": Path(path)})
    vrt = read_vrt(path)
    for file in vrt.files:
        if driver_of(file) != "VRT":
            _check_beside(file)
    return _opened(path, driver, {"fp": vrt.text})


def _opened(path: str, driver: str, place: dict[str, Any]) -> Any:
    listener = _Listener()
    logger = logging.getLogger("rasterio._env")
    logger.addHandler(listener)
    try:
        with (
            rasterio.Env(**GDAL_SETTINGS),
            naming_file(path, "open", SceneError),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(**place, driver=driver, sharing=False)
            elsewhere = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    finally:
        logger.removeHandler(listener)
    if elsewhere is not None or listener.lost:
        dataset.close()
    if elsewhere is not None:
        raise SceneError(
            f"{path} must not name a file for its overviews, it has OVERVIEW_FILE={elsewhere[:80]}"
        )
    if listener.lost:
        raise SceneError(f"{path} is truncated: {listener.lost[0]}; fetch it again")
    return dataset


def _check_beside(path: str) -> None:
    """Masks and overviews that GDAL finds by their names are rasters of the same few formats.

    Raises:
        SceneError: if one is not.
    """
    erdas = [
        name
        for stem in (str(Path(path).with_suffix("")), path)
        for name in (f"{stem}.aux", f"{stem}.AUX")
        if is_file(name) and _head(name, len(_ERDAS)) == _ERDAS
    ]
    for name in (path, *erdas):
        for suffix in _BESIDE:
            beside = name + suffix
            if not os.path.exists(beside):  # noqa: PTH110  # as GDAL does, for names of any length
                continue
            if not is_file(beside):  # GDAL opens folders too, such as a Zarr store
                raise SceneError(f"{beside} is beside a raster, so it must be a file; remove it")
            open_dataset(beside).close()


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
