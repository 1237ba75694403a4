"""What a VRT reads: the files it names, none of which may lead off the disk."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tilemap.errors import SceneError

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
_SOURCES = ("SourceFilename", "SourceDataset")
_LARGEST_FILE = 64 * 2**20
_DEEPEST = 4
_MOST_FILES = 100_000


def referenced_files(path: str) -> tuple[str, ...]:
    """Absolute paths of everything a VRT reads, VRTs within it included, each once.

    A VRT may name anything GDAL can open: a URL, a service, a raw dump of any file. So only local
    files with the suffix of an allowed format pass, and no code runs.

    Raises:
        SceneError: if it names anything else, a file that is missing, or itself.
    """
    found: dict[str, None] = {}
    _collect(Path(path), found, depth=0)
    return tuple(found)


def _collect(path: Path, found: dict[str, None], depth: int) -> None:
    if depth > _DEEPEST:
        raise SceneError(f"VRTs may be nested {_DEEPEST} deep, {path} is deeper")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise SceneError(f"a VRT must be at most 64 MiB, {path} is larger")
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, UnicodeError, ValueError) as problem:
        if isinstance(problem, SceneError):
            raise
        raise SceneError(f"not a VRT: {path}: {problem}") from problem
    for element in root.iter():
        raw = element.get("subClass", "") == "VRTRawRasterBand"
        code = element.tag in ("PixelFunctionLanguage", "PixelFunctionCode")
        if raw or code or element.tag in ("GDALWarpOptionsFile", "VirtualOverviewFile"):
            raise SceneError(f"a VRT may only combine rasters, {path} has {element.tag}")
        if element.tag not in _SOURCES:
            continue
        relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
        file = _local(element.text or "", path, relative)
        if str(file) in found:
            continue
        found[str(file)] = None
        if len(found) > _MOST_FILES:
            raise SceneError(f"a VRT may read {_MOST_FILES} files, {path} reads more")
        if file.suffix.lower() == ".vrt":
            _collect(file, found, depth + 1)


def _local(text: str, vrt: Path, relative: bool) -> Path:
    if not text.lower().endswith(_SUFFIXES) or ":" in text or "<" in text or "/vsi" in text:
        raise SceneError(
            f"a VRT may only read local GeoTIFF, JPEG 2000 and VRT files, {vrt} reads {text!r}"
        )
    file = vrt.parent / text if relative else Path(text)
    if not file.is_absolute():
        file = file.absolute()
    if not file.is_file():
        raise SceneError(f"no such file: {file}, which {vrt} reads")
    return file
