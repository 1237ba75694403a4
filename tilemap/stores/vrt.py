"""What a VRT reads: the files it names, none of which may lead off the disk."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tilemap.errors import SceneError

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
_KINDS = ("", "vrtdataset", "vrtwarpeddataset", "vrtpansharpeneddataset")
_SOURCES = ("sourcefilename", "sourcedataset")
# these read raw bytes, run code, or open datasets by other names than a source's
_REFUSED = (
    "vrtrawrasterband",
    "pixelfunctionlanguage",
    "pixelfunctioncode",
    "geoloctransformer",
    "rpctransformer",
    "openoptions",
    "group",
)
_LARGEST_FILE = 64 * 2**20
_DEEPEST = 4
_MOST_FILES = 100_000


def referenced_files(path: str) -> tuple[str, ...]:
    """Absolute paths of everything a VRT reads, VRTs within it included, each once.

    A VRT may name anything GDAL can open: a URL, a service, a raw dump of any file. So only local
    files with the suffix of an allowed format pass, and no code runs.

    Raises:
        SceneError: if it names anything else, a file that is missing, or is nested too deep.
    """
    found: dict[str, None] = {}
    _collect(Path(path), found, depth=1)
    return tuple(found)


def _collect(path: Path, found: dict[str, None], depth: int) -> None:
    if depth > _DEEPEST:
        raise SceneError(f"VRTs may be nested {_DEEPEST} deep, {path} is deeper")
    root = _parse(path)
    for element in root.iter():
        tag = element.tag.lower()  # GDAL does not tell cases apart
        attributes = {key.lower(): value for key, value in element.attrib.items()}
        if tag in _REFUSED or attributes.get("subclass", "").lower() in _REFUSED:
            raise SceneError(f"a VRT may only combine rasters, {path} has {element.tag}")
        if tag not in _SOURCES:
            continue
        file = _local(element.text or "", path, attributes.get("relativetovrt", "0") == "1")
        if str(file) in found:
            continue
        found[str(file)] = None
        if len(found) > _MOST_FILES:
            raise SceneError(f"a VRT may read {_MOST_FILES} files, {path} reads more")
        if file.suffix.lower() == ".vrt":
            _collect(file, found, depth + 1)


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _LARGEST_FILE:
        raise SceneError(f"a VRT must be at most 64 MiB, {path} is larger")
    content = path.read_bytes()
    lower = content.lower()
    if b"/vsi" in lower or b"://" in lower or b"<!doctype" in lower or b"<!entity" in lower:
        raise SceneError(f"a VRT may only read local files by plain names, {path} does not")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise SceneError(f"not a VRT: {path}: {problem}") from problem
    kind = {key.lower(): value for key, value in root.attrib.items()}.get("subclass", "")
    if root.tag.lower() != "vrtdataset" or kind.lower() not in _KINDS:
        raise SceneError(f"not a VRT that combines rasters: {path} is {root.tag} {kind}".rstrip())
    return root


def _local(text: str, vrt: Path, relative: bool) -> Path:
    if not text.lower().endswith(_SUFFIXES) or ":" in text or "<" in text:
        raise SceneError(
            f"a VRT may only read local GeoTIFF, JPEG 2000 and VRT files, {vrt} reads {text!r}"
        )
    file = (vrt.parent / text if relative else Path(text)).absolute()
    if not file.is_file():
        raise SceneError(f"no such file: {file}, which {vrt} reads")
    return file
