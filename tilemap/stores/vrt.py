"""VRTs, read by an XML parser and built again from what is understood.

A VRT can name anything GDAL opens: a URL, a service, a raw dump of any file, code. GDAL reads XML
in its own way, so a check of the file's text can always be passed by something GDAL understands
differently. GDAL therefore never sees the file: it gets a new text with understood elements only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tilemap.errors import SceneError
from tilemap.files import is_file, read_file

_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt")
_LARGEST_FILE = 64 * 2**20
_DEEPEST = 4
_MOST_FILES = 100_000
_DOMAINS = ("", "IMAGE_STRUCTURE", "IMAGERY", "RPC")  # others may name files
_CLASSES = {
    "VRTDataset": ("", "VRTDataset", "VRTWarpedDataset", "VRTPansharpenedDataset"),
    "VRTRasterBand": (
        "", "VRTSourcedRasterBand", "VRTDerivedRasterBand", "VRTWarpedRasterBand",
        "VRTPansharpenedRasterBand",
    ),
}  # fmt: skip
# a code, WKT, PROJJSON or a PROJ string; GDAL takes anything else for a file or an address
_SRS = re.compile(
    r"\s*(|\w+:\w+(\+\w+)?|urn:ogc:def:crs:[\w:.,+-]+|[A-Za-z_]+\d*\s*\[.*|\{.*|\+[^/]*"
    r"|WGS84|WGS72|NAD27|NAD83|CRS84)\s*",
    re.DOTALL,
)


class _Rule:
    """The attributes and children an element may have; ``*`` for any attribute."""

    def __init__(self, attributes: str = "", children: str = "") -> None:
        self.attributes = frozenset(attributes.split())
        self.children = frozenset(children.split())


# The names are those of GDAL's own schema (gdalvrt.xsd) and of what gdalwarp writes.
_FILE = "SourceFilename SourceBand SourceProperties"
_SOURCE = _Rule("resampling name", f"{_FILE} SrcRect DstRect")
_COMPLEX = (
    f"{_FILE} SrcRect DstRect NODATA UseMaskBand ScaleOffset ScaleRatio Exponent SrcMin SrcMax "
    "DstMin DstMax Clamp LUT ColorTableComponent"
)
_RECT = _Rule("xOff yOff xSize ySize")
_TRANSFORMERS = (
    "ApproxTransformer GenImgProjTransformer ReprojectionTransformer GCPTransformer "
    "TPSTransformer HomographyTransformer"
)
_INNER = _Rule("", _TRANSFORMERS)
_RULES = {
    "VRTDataset": _Rule(
        "subClass rasterXSize rasterYSize",
        "SRS GeoTransform GCPList Metadata VRTRasterBand MaskBand BlockXSize BlockYSize "
        "GDALWarpOptions SrcOvrLevel PansharpeningOptions",
    ),
    "SRS": _Rule("dataAxisToSRSAxisMapping coordinateEpoch"),
    "GCPList": _Rule("Projection dataAxisToSRSAxisMapping", "GCP"),
    "GCP": _Rule("Id Info Pixel Line X Y Z GCPZ"),
    "Metadata": _Rule("domain", "MDI"),
    "MDI": _Rule("key"),
    "MaskBand": _Rule("", "VRTRasterBand"),
    "VRTRasterBand": _Rule(
        "subClass dataType band blockXSize blockYSize",
        "Description UnitType Offset Scale CategoryNames ColorTable NoDataValue NodataValue "
        "HideNoDataValue Metadata ColorInterp MaskBand SimpleSource ComplexSource AveragedSource "
        "NoDataFromMaskSource KernelFilteredSource PixelFunctionType PixelFunctionArguments "
        "SourceTransferType BufferRadius SkipNonContributingSources",
    ),
    "CategoryNames": _Rule("", "Category"),
    "ColorTable": _Rule("", "Entry"),
    "Entry": _Rule("c1 c2 c3 c4"),
    "PixelFunctionArguments": _Rule("*"),
    "SimpleSource": _SOURCE,
    "AveragedSource": _SOURCE,
    "ComplexSource": _Rule("resampling name", _COMPLEX),
    "KernelFilteredSource": _Rule("resampling name", f"{_COMPLEX} Kernel"),
    "NoDataFromMaskSource": _Rule(
        "resampling name",
        f"{_FILE} SrcRect DstRect NODATA MaskValueThreshold RemappedValue",
    ),
    "Kernel": _Rule("normalized", "Size Coefs"),
    "SourceFilename": _Rule("relativeToVRT shared"),
    "SourceDataset": _Rule("relativeToVRT shared"),
    "SourceProperties": _Rule("RasterXSize RasterYSize DataType BlockXSize BlockYSize"),
    "SrcRect": _RECT,
    "DstRect": _RECT,
    "PansharpeningOptions": _Rule(
        "",
        "Algorithm AlgorithmOptions Resampling NumThreads BitDepth NoData "
        "SpatialExtentAdjustment PanchroBand SpectralBand",
    ),
    "AlgorithmOptions": _Rule("", "Weights"),
    "PanchroBand": _Rule("", "SourceFilename SourceBand"),
    "SpectralBand": _Rule("dstBand", "SourceFilename SourceBand"),
    "GDALWarpOptions": _Rule(
        "",
        "WarpMemoryLimit ResampleAlg WorkingDataType Option SourceDataset Transformer BandList "
        "SrcAlphaBand DstAlphaBand Cutline CutlineBlendDist",
    ),
    "Option": _Rule("name key"),
    "BandList": _Rule("", "BandMapping"),
    "BandMapping": _Rule(
        "src dst", "SrcNoDataReal SrcNoDataImag DstNoDataReal DstNoDataImag"
    ),
    "Transformer": _INNER,
    "BaseTransformer": _INNER,
    "ReprojectTransformer": _INNER,
    "SrcGCPTransformer": _INNER,
    "SrcTPSTransformer": _INNER,
    "SrcHomographyTransformer": _INNER,
    "DstGCPTransformer": _INNER,
    "DstTPSTransformer": _INNER,
    "DstHomographyTransformer": _INNER,
    "ApproxTransformer": _Rule(
        "", "MaxError MaxErrorForward MaxErrorReverse BaseTransformer"
    ),
    "GenImgProjTransformer": _Rule(
        "",
        "SrcGeoTransform SrcInvGeoTransform SrcGCPTransformer SrcTPSTransformer "
        "SrcHomographyTransformer DstGeoTransform DstInvGeoTransform DstGCPTransformer "
        "DstTPSTransformer DstHomographyTransformer ReprojectTransformer "
        "SrcApproximateErrorForward SrcApproximateErrorReverse DstApproximateErrorForward "
        "DstApproximateErrorReverse",
    ),
    "ReprojectionTransformer": _Rule("", "SourceCRS TargetCRS SourceSRS TargetSRS Options"),
    "Options": _Rule("", "Option"),
    "GCPTransformer": _Rule("", "Order Reversed Refine MinimumGcps Tolerance GCPList"),
    "TPSTransformer": _Rule("", "Reversed GCPList"),
    "HomographyTransformer": _Rule("", "Homography InverseHomography GCPList"),
}  # fmt: skip
_LEAF = _Rule()
# nothing that tilemap reads depends on these, and some of them name files
_LEFT_OUT = (
    "Overview", "OverviewList", "Histograms", "GDALRasterAttributeTable", "DestinationDataset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vrt:
    """A VRT that was understood.

    Args:
        text: what GDAL opens in place of the file: absolute names, VRTs within it included.
        files: absolute paths of everything it reads, VRTs within it included, each once.
    """

    text: str
    files: tuple[str, ...]


def read_vrt(path: str) -> Vrt:
    """Read a VRT that combines local rasters.

    Raises:
        SceneError: if it has anything that is not understood, reads anything but local files with
            the suffix of an allowed format, a file that is missing, or is nested too deep.
    """
    found: dict[str, None] = {}
    text = _rebuilt(Path(path), found, depth=1)
    return Vrt(text, tuple(found))


def without_places(path: str) -> bytes:
    """A VRT with numbers for the files that it reads: it is the same wherever they are.

    Statistics, which a GIS may add, are left out.

    Raises:
        SceneError: as ``read_vrt``.
    """
    root = _understood(_parse(Path(path)), Path(path))
    numbers: dict[Path, int] = {}
    for element in root.iter():
        if element.tag in ("SourceFilename", "SourceDataset"):
            relative = element.get("relativeToVRT", "0") == "1"
            file = _local(element.text or "", Path(path), relative)
            element.text = str(numbers.setdefault(file, len(numbers)))
            element.attrib.clear()
        drop_statistics(element)
    return ElementTree.tostring(root)


def drop_statistics(element: ElementTree.Element) -> None:
    """Remove what a GIS counts of the pixels and writes beside them."""
    for child in list(element):
        if child.tag == "Metadata":
            for item in list(child):
                if str(item.get("key")).startswith("STATISTICS_"):
                    child.remove(item)
        if child.tag == "Histograms" or (child.tag == "Metadata" and not len(child)):
            element.remove(child)


def _rebuilt(path: Path, found: dict[str, None], depth: int) -> str:
    if depth > _DEEPEST:
        raise SceneError(f"VRTs may be nested {_DEEPEST} deep, {path} is deeper")
    root = _understood(_parse(path), path)
    known: dict[tuple[str, bool], str] = {}  # each band names the same files again
    for element in root.iter():
        if element.tag not in ("SourceFilename", "SourceDataset"):
            continue
        name = element.text or "", element.get("relativeToVRT", "0") == "1"
        if name not in known:
            file = _local(name[0], path, name[1])
            found[str(file)] = None
            if len(found) > _MOST_FILES:
                raise SceneError(f"a VRT may read {_MOST_FILES} files, {path} reads more")
            nested = file.suffix.lower() == ".vrt"
            known[name] = _rebuilt(file, found, depth + 1) if nested else str(file)
        element.set("relativeToVRT", "0")
        element.text = known[name]
    _mask_beside(root, path, found)
    text = ElementTree.tostring(root, encoding="unicode")
    if len(text) > _LARGEST_FILE:
        raise SceneError(f"a VRT must be at most 64 MiB with the VRTs it reads, {path} is larger")
    return text


def _mask_beside(root: ElementTree.Element, path: Path, found: dict[str, None]) -> None:
    """Name the mask that GDAL would have found beside the file."""
    mask = path.with_name(f"{path.name}.msk")
    if root.find("MaskBand") is not None or not is_file(mask):
        return
    found[str(mask)] = None
    band = ElementTree.SubElement(
        ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", {"dataType": "Byte"}
    )
    source = ElementTree.SubElement(band, "SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", {"relativeToVRT": "0"}).text = str(mask)
    ElementTree.SubElement(source, "SourceBand").text = "1"


class _Builder(ElementTree.TreeBuilder):
    """A tree without a document type: entities are left to nobody."""

    def doctype(self, *_: object) -> None:
        """Called by the parser."""
        raise ValueError("it has a document type")


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _LARGEST_FILE:
        raise SceneError(f"a VRT must be at most 64 MiB, {path} is larger")
    try:
        parser = ElementTree.XMLParser(target=_Builder())
        root = ElementTree.fromstring(read_file(path), parser)
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise SceneError(f"not a VRT: {path}: {problem}") from problem
    if root.tag != "VRTDataset":
        raise SceneError(f"not a VRT that combines rasters: {path} is {root.tag}")
    return root


def _understood(element: ElementTree.Element, path: Path) -> ElementTree.Element:
    """The same element with understood attributes and children only.

    Raises:
        SceneError: if it has any other.
    """
    rule = _RULES.get(element.tag, _LEAF)
    new = ElementTree.Element(element.tag, element.attrib)
    odd = element.attrib.keys() - rule.attributes
    if odd and "*" not in rule.attributes:
        raise SceneError(f"a VRT may only combine rasters, {path} has {element.tag} {min(odd)}=")
    for child in element:
        if child.tag in _LEFT_OUT or _other_domain(child):
            continue
        if child.tag not in rule.children:
            raise SceneError(
                f"a VRT may only combine rasters, {path} has {child.tag} in {element.tag}"
            )
        new.append(_understood(child, path))
    text = "".join(_texts(element))
    if not rule.children:
        new.text = text
    elif text.strip():
        raise SceneError(f"a VRT may only combine rasters, {path} has text in {element.tag}")
    _check_values(new, path)
    return new


def _texts(element: ElementTree.Element) -> Iterator[str]:
    yield element.text or ""
    yield from (child.tail or "" for child in element)


def _other_domain(element: ElementTree.Element) -> bool:
    return element.tag == "Metadata" and (
        element.get("domain", "") not in _DOMAINS or "format" in element.attrib
    )


def _check_values(element: ElementTree.Element, path: Path) -> None:
    kind = element.get("subClass")
    if kind is not None and kind not in _CLASSES[element.tag]:
        raise SceneError(f"a VRT may only combine rasters, {path} has a {kind}")
    for srs in (
        element.get("Projection"),
        element.text if element.tag.endswith(("SRS", "CRS")) else None,
    ):
        if srs is not None and not _SRS.fullmatch(srs):
            raise SceneError(f"a VRT must give its CRS as WKT or a code, {path} has {srs[:80]!r}")


def _local(text: str, vrt: Path, relative: bool) -> Path:
    if "://" in text or text.lower().startswith("/vsi"):
        raise SceneError(f"a VRT may only read local files by plain names, {vrt} reads {text!r}")
    if not text.lower().endswith(_SUFFIXES):
        raise SceneError(
            f"a VRT may only read local GeoTIFF, JPEG 2000 and VRT files, {vrt} reads {text!r}"
        )
    file = (vrt.parent / text if relative else Path(text)).absolute()
    try:
        exists = file.is_file()
    except OSError as problem:
        raise SceneError(
            f"cannot look at {text!r}: {problem.strerror}, {vrt} reads it"
        ) from problem
    if not exists:
        raise SceneError(f"no such file: {file}, which {vrt} reads")
    return file
