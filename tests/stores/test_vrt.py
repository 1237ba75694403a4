"""VRTs: those that combine local rasters open, all others stay shut."""

from __future__ import annotations

import os
import socketserver
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioIOError
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.opening import GDAL_SETTINGS
from tilemap.testing import random_scene, write_geotiff

VRT = """<VRTDataset rasterXSize="110" rasterYSize="75"{kind}>
<SRS>EPSG:32618</SRS><GeoTransform>400000, 10, 0, 4100000, 0, -10</GeoTransform>
<VRTRasterBand dataType="UInt16" band="1"{band}>{extra}
<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename>
<SourceBand>2</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>"""


def opened(path: Path) -> SceneSource:
    """A scene of one file."""
    return open_scene(SceneRequest((str(path),)))


def write_vrt(
    path: Path, file: str = "a.tif", kind: str = "", band: str = "", extra: str = ""
) -> Path:
    """A VRT of the second band of a file."""
    path.write_text(VRT.format(file=file, kind=kind, band=band, extra=extra))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a raster."""
    write_geotiff(tmp_path / "a.tif", random_scene())
    return tmp_path


def test_vrt_by_its_suffix(folder: Path):
    """It reads what it names, one inside another, and all of its files are known."""
    write_vrt(folder / "one.vrt")
    text = VRT.replace("<SourceBand>2", "<SourceBand>1")
    (folder / "two.VRT").write_text(text.format(file="one.vrt", kind="", band="", extra=""))
    source = opened(folder / "two.VRT")
    with source.open() as reader:
        got, valid = reader.read(Window(5, 6, 75, 110))
    np.testing.assert_array_equal(got[0], random_scene()[1, 5:, 6:])
    assert valid.all()
    assert [Path(f).name for f in source.files] == ["two.VRT", "one.vrt", "a.tif"]


def test_vrt_under_another_name(folder: Path):
    """A VRT that calls itself a GeoTIFF does not open, not even from a VRT."""
    write_vrt(folder / "secret.tif")
    with pytest.raises(SceneError, match=r"not a raster of an allowed format.*secret\.tif"):
        opened(folder / "secret.tif")
    write_vrt(folder / "b.vrt", "secret.tif")
    with pytest.raises(SceneError, match=r"not a raster of an allowed format.*secret\.tif"):
        opened(folder / "b.vrt")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("/vsicurl/http://x/a.tif", "local files by plain names"),
        ("https://x/a.tif", "local files by plain names"),
        ("/VSIMEM/a.tif", "local files by plain names"),
        ("a.png", "may only read local GeoTIFF"),
        ("NETCDF:a.tif", r"no such file: .*/NETCDF:a\.tif, which"),
        ("&lt;VRTDataset&gt;.vrt", r"no such file: .*/<VRTDataset>\.vrt, which"),
        ("", "may only read local GeoTIFF"),
        ("b.tif", r"no such file: .*b\.tif, which"),
        ("b.vrt", "nested 4 deep"),
    ],
)
def test_vrt_may_only_read_local_rasters(folder: Path, file: str, message: str):
    """No network, no archives, no other formats, no descriptions in place of files."""
    path = write_vrt(folder / "b.vrt", file)
    if file == "b.vrt":
        for number in range(5):
            path = write_vrt(folder / f"{number}.vrt", f"{number + 1}.vrt")
        write_vrt(folder / "5.vrt")
        path = folder / "0.vrt"
    with pytest.raises(SceneError, match=message):
        opened(path)


def test_vrt_of_itself_ends(folder: Path):
    """A VRT that reads itself is an error, not a loop."""
    write_vrt(folder / "b.vrt", "b.vrt")
    try:
        source = opened(folder / "b.vrt")
        with source.open() as reader, pytest.raises(OSError, match=r"b\.vrt"):
            reader.read(Window(0, 0, 75, 110))
    except SceneError as problem:
        assert "b.vrt" in str(problem)  # noqa: PT017


@pytest.mark.parametrize(
    "arguments",
    [
        {"band": ' subClass="VRTRawRasterBand"'},
        {"band": ' SUBCLASS="vrtrawrasterband"'},
        {"extra": "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"},
        {"extra": "<pixelfunctioncode>x</pixelfunctioncode>"},
        {"extra": "<OpenOptions/>"},
        {"kind": ' subClass="VRTProcessedDataset"'},
    ],
)
def test_vrt_may_only_combine(folder: Path, arguments: dict[str, str]):
    """Raw bytes and code are refused, in upper and lower case."""
    with pytest.raises(SceneError, match=r"only combine rasters|not a VRT that combines"):
        opened(write_vrt(folder / "b.vrt", **arguments))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<VRTDataset", b"<a/>", b"\xff\xfe<\0", b"<!DOCTYPE x><VRTDataset/>"],
)
def test_not_a_vrt(folder: Path, content: bytes):
    """What cannot be understood is an error that names the file."""
    (folder / "b.vrt").write_bytes(content)
    with pytest.raises(SceneError, match=r"b\.vrt"):
        opened(folder / "b.vrt")


# --- VRTs that work -----------------------------------------------------------------------------

MOSAIC = """<VRTDataset rasterXSize="110" rasterYSize="150">
  <SRS dataAxisToSRSAxisMapping="1,2">EPSG:32618</SRS>
  <GeoTransform>  4.0e+05,  1.0e+01,  0.0e+00,  4.1e+06,  0.0e+00, -1.0e+01</GeoTransform>
  <Metadata><MDI key="source">https://example.org/?a=[1&amp;b</MDI></Metadata>
  <Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/vsicurl/http://x/</MDI></Metadata>
  {top}
  <VRTRasterBand dataType="{dtype}" band="1" blockXSize="128" blockYSize="64"{band}>
    <Description>red</Description><NoDataValue>7</NoDataValue><ColorInterp>Red</ColorInterp>
    <Offset>-0.1</Offset><Scale>0.0001</Scale><UnitType>1</UnitType>
    {inside}
    <Histograms><HistItem><HistMin>0</HistMin></HistItem></Histograms>
  </VRTRasterBand>
  <OverviewList resampling="average">2 4</OverviewList>
</VRTDataset>"""
PROPERTIES = """<SourceFilename relativeToVRT="1"{attributes}>{file}</SourceFilename>
  <SourceBand>{band}</SourceBand>
  <SourceProperties RasterXSize="110" RasterYSize="75" DataType="UInt16" BlockXSize="110"
    BlockYSize="37"/>
  <SrcRect xOff="0" yOff="0" xSize="110" ySize="75"/>
  <DstRect xOff="{left}" yOff="{top}" xSize="{width}" ySize="{height}"/>"""


def source(
    kind: str = "SimpleSource", more: str = "", attributes: str = "", **values: object
) -> str:
    """A source as gdalbuildvrt writes it."""
    place = {"file": "a.tif", "band": 1, "top": 0, "left": 0, "width": 110, "height": 75}
    inside = PROPERTIES.format(**place | {"attributes": attributes} | values)
    kind, _, rest = kind.partition(" ")
    return f"<{kind} {rest}>{inside}{more}</{kind}>"


TWO = source() + source(band=2, top=75)
SUM = "<PixelFunctionType>sum</PixelFunctionType>"
DERIVED = ' subClass="VRTDerivedRasterBand"'
MASK = """<MaskBand><VRTRasterBand dataType="Byte">{}</VRTRasterBand></MaskBand>"""
WORKING = {
    "mosaic": {"inside": TWO},
    "nodata": {
        "inside": source("ComplexSource", "<NODATA>5</NODATA>")
        + source("ComplexSource", "<NODATA>5</NODATA>", top=75, file="b.tif")
    },
    "reduced": {"inside": source('SimpleSource resampling="bilinear"', width=50, height=70)},
    "averaged": {"inside": source("AveragedSource", width=50, height=70)},
    "table": {
        "inside": source("ComplexSource", "<LUT>0:10,1000:90,3000:200</LUT>"),
        "dtype": "Byte",
    },
    "scaled": {
        "inside": source(
            "ComplexSource", "<ScaleOffset>0.5</ScaleOffset><ScaleRatio>1e-4</ScaleRatio>"
        ),
        "dtype": "Float32",
    },
    "stretched": {
        "inside": source(
            "ComplexSource",
            "<Exponent>0.5</Exponent><SrcMin>0</SrcMin><SrcMax>3000</SrcMax><DstMin>0</DstMin>"
            "<DstMax>255</DstMax><Clamp>true</Clamp>",
        )
    },
    "smoothed": {
        "inside": source(
            "KernelFilteredSource",
            '<Kernel normalized="1"><Size>3</Size><Coefs>1 1 1 1 1 1 1 1 1</Coefs></Kernel>',
        )
    },
    "derived": {"inside": SUM + source() + source(band=2, file="b.tif"), "band": DERIVED},
    "function": {
        "inside": '<PixelFunctionType>mul</PixelFunctionType><PixelFunctionArguments k="2"/>'
        + source()
        + source(band=2),
        "band": DERIVED,
    },
    "mask": {"inside": TWO, "top": MASK.format(source(band="mask,1", file="m.tif"))},
    "mask used": {
        "inside": source("ComplexSource", "<UseMaskBand>true</UseMaskBand>", file="m.tif")
    },
    "colours": {
        "inside": "<ColorTable><Entry c1='1' c2='2' c3='3' c4='255'/></ColorTable>"
        "<CategoryNames><Category>one &amp; two</Category></CategoryNames>" + source(),
        "dtype": "Byte",
    },
    "nested": {"inside": source(file="inner.vrt") + source(file="inner.vrt", top=75)},
    "colon": {"inside": source(file="2020-05-18T10:30.tif")},
}


@pytest.fixture
def several(folder: Path) -> Path:
    """A folder with rasters, one of them with a mask beside it, and a VRT."""
    image = random_scene()
    write_geotiff(folder / "b.tif", image[::-1].copy(), nodata=5)
    write_geotiff(folder / "2020-05-18T10:30.tif", image)
    path = write_geotiff(folder / "m.tif", image)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(image[0] > 1000)
    write_vrt(folder / "inner.vrt")
    return folder


def plain(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and where they are valid by rasterio alone."""
    with rasterio.open(path) as file:
        return file.read(1), file.dataset_mask() > 0


@pytest.mark.parametrize("name", WORKING)
def test_vrt_has_the_pixels_that_gdal_gives(several: Path, name: str):
    """What is built again gives the numbers, the mask and the description of the file."""
    path = several / "x.vrt"
    path.write_text(MOSAIC.format_map({"top": "", "dtype": "UInt16", "band": ""} | WORKING[name]))
    pixels, valid = plain(path)
    scene = opened(path)
    with scene.open() as reader:
        got, seen = reader.read(Window(0, 0, *scene.scene.shape))
    np.testing.assert_array_equal(seen, valid)
    np.testing.assert_array_equal(got[0], np.where(valid, pixels, 0))
    assert valid.any()
    band = scene.layers[0].rasters[0].bands[0]
    assert (band.description, band.nodata, band.scale, band.offset) == ("red", 7, 0.0001, -0.1)


WARPS: dict[str, dict[str, Any]] = {
    "bilinear": {"resampling": Resampling.bilinear},
    "alpha": {"add_alpha": True},
    "nodata": {"src_nodata": 5, "nodata": 9, "resampling": Resampling.average},
    "points": {},
}


@pytest.mark.parametrize("name", WARPS)
def test_vrt_that_warps(several: Path, name: str):
    """A VRT as gdalwarp writes it reads as it did, also one that a few points place."""
    path = several / "x.vrt"
    source = several / "a.tif"
    if name == "points":
        corners = ((0, 0), (0, 110), (75, 0), (75, 110), (30, 50))
        points = [GroundControlPoint(r, c, 4e5 + 10 * c + r, 4.1e6 - 10 * r) for r, c in corners]
        with rasterio.open(source, "r+") as file:
            file.gcps = points, "EPSG:32618"
    with (
        rasterio.open(source) as file,
        WarpedVRT(file, crs="EPSG:3857", **WARPS[name]) as warped,
    ):
        copy(warped, path, driver="VRT")
    assert ("GCPTransformer" if name == "points" else "GDALWarpOptions") in path.read_text()
    with rasterio.open(path) as file:
        pixels, kind = file.read(1), file.colorinterp[-1]
    scene = opened(path)
    with scene.open() as reader:
        got, seen = reader.read(Window(0, 0, *scene.scene.shape))
    np.testing.assert_array_equal(got[0][seen], pixels[seen])
    assert seen.any()
    assert (kind == ColorInterp.alpha) == (name == "alpha")


def test_mask_beside_a_vrt(several: Path):
    """The mask that GDAL finds beside the file is still used."""
    path = write_vrt(several / "x.vrt")
    (several / "m.tif.msk").rename(several / "x.vrt.msk")
    pixels, valid = plain(path)
    with opened(path).open() as reader:
        got, seen = reader.read(Window(0, 0, 75, 110))
    np.testing.assert_array_equal(seen, valid)
    np.testing.assert_array_equal(got[0], np.where(valid, pixels, 0))
    assert not valid.all()


def test_files_of_a_vrt(several: Path):
    """Sources, VRTs within and what is beside the sources decide the pixels too."""
    (several / "b.tif.aux.xml").write_text(
        '<PAMDataset><Metadata><MDI key="AREA_OR_POINT">Area</MDI></Metadata></PAMDataset>'
    )
    (several / "m.tif.aux.xml").write_text("<PAMDataset/>")  # says nothing
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(several / "a.tif", "r+") as file:
        file.build_overviews([2])
    inside = source(file="m.tif") + source(file="b.tif") + source(file="inner.vrt")
    path = several / "x.vrt"
    path.write_text(MOSAIC.format(top="", dtype="UInt16", band="", inside=inside))
    names = [str(Path(file).relative_to(several)) for file in opened(path).files]
    assert sorted(names) == [
        "a.tif", "a.tif.ovr", "b.tif", "b.tif.aux.xml", "inner.vrt", "m.tif", "m.tif.msk", "x.vrt",
    ]  # fmt: skip
    assert "a.tif.ovr" not in [Path(file).name for file in opened(several / "a.tif").files]


# --- what GDAL opens by itself ------------------------------------------------------------------

WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:1/x</ServerUrl></Service>
<DataWindow><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow></GDAL_WMS>"""


@pytest.mark.parametrize("content", [VRT.format(file="a.tif", kind="", band="", extra=""), WMS])
@pytest.mark.parametrize("name", ["{}.msk", "{}.ovr", "{}.OVR", "{}.msk.ovr", "{}.ovr.msk"])
@pytest.mark.parametrize("through", ["a.tif", "x.vrt"])
def test_files_beside_a_raster(folder: Path, content: str, name: str, through: str):
    """Masks and overviews are rasters of an allowed format, also those of masks and overviews."""
    path = write_vrt(folder / "x.vrt") if through == "x.vrt" else folder / "a.tif"
    for outer in (".msk", ".ovr"):
        if outer + "." in name:
            write_geotiff(folder / f"a.tif{outer}", random_scene()[:1])
    odd = folder / name.format("a.tif")
    odd.write_text(content)
    with pytest.raises(SceneError, match=f"not a raster of an allowed format.*{odd.name}$"):
        opened(path)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_beside_a_raster_is_a_file(folder: Path, make: Callable[[Path], None]):
    """GDAL would open a folder by another driver, and wait for a pipe for ever."""
    make(folder / "a.tif.ovr")
    with pytest.raises(SceneError, match=r"a\.tif\.ovr is beside a raster, so it must be a file"):
        opened(folder / "a.tif")


def test_file_beside_that_comes_later(folder: Path):
    """A worker that opens a known scene looks again."""
    scene = opened(folder / "a.tif")
    (folder / "a.tif.msk").write_text(WMS)
    with scene.open() as reader, pytest.raises(SceneError, match=r"a\.tif\.msk"):
        reader.read(Window(0, 0, 75, 110))


@pytest.mark.parametrize("where", ["inside", "beside", "beside a mask", "in a source"])
def test_overviews_by_name(folder: Path, where: str):
    """A tag that names a file for overviews is refused, in the file or beside it."""
    tag = {"OVERVIEW_FILE": str(folder / "a.tif")}
    path = write_geotiff(folder / "b.tif", random_scene()[:1])
    if where == "beside a mask":
        path = write_geotiff(folder / "a.tif.msk", random_scene()[:1])
    if where in ("inside", "in a source"):
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="OVERVIEWS", **tag)
    else:
        Path(f"{path}.aux.xml").write_text(
            '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
            f"{tag['OVERVIEW_FILE']}</MDI></Metadata></PAMDataset>"
        )
    if where == "in a source":
        path = write_vrt(folder / "x.vrt", "b.tif")
    opens = folder / "a.tif" if where == "beside a mask" else path
    with pytest.raises(SceneError, match="must not name a file for its overviews"):
        opened(opens)


def test_gdal_settings_keep_off_the_network():
    """Should a file find a way past the checks, GDAL asks nobody."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        server.timeout = 0.2
        asked: list[object] = []
        server.verify_request = lambda *client: bool(asked.append(client))  # type: ignore[method-assign]
        url = f"http://127.0.0.1:{server.server_address[1]}/a.tif"
        for name in (
            f"/vsicurl/{url}",
            f"/vsicurl_streaming/{url}",
            WMS.replace("1:1/x", url[16:]),
        ):
            with (
                rasterio.Env(**GDAL_SETTINGS),
                pytest.raises(RasterioIOError),
                rasterio.open(name) as file,
            ):
                file.read()
            server.handle_request()
        assert asked == []


# --- disguises ----------------------------------------------------------------------------------

DISGUISES = {
    "namespace": source(attributes=' xmlns="x"'),
    "prefix": "<x:SimpleSource xmlns:x='x'>" + source() + "</x:SimpleSource>",
    "attribute for an element": "<SimpleSource SourceFilename='a.tif'><SourceBand>1</SourceBand>"
    "</SimpleSource>",
    "element for an attribute": "<subClass>VRTRawRasterBand</subClass><SourceFilename>a.tif"
    "</SourceFilename><ImageOffset>0</ImageOffset>",
    "raw": "<SourceFilename>a.tif</SourceFilename><ByteOrder>LSB</ByteOrder>",
    "escapes": source(file="&#47;vsicurl&#47;http:&#x2f;&#47;127.0.0.1:1&#47;a.tif"),
    "CDATA": source(file="<![CDATA[/vsicurl/http://127.0.0.1:1/a.tif]]>"),
    "other case": source().replace("SimpleSource", "simplesource"),
    "options": source(more="<OpenOptions><OOI key='OVERVIEW_LEVEL'>0</OOI></OpenOptions>"),
    "several texts": source(file="a.tif<!-- -->/../../secret.tif"),
    "inner text": source(file="<b>a.tif</b>"),
    "python": "<PixelFunctionLanguage>Python</PixelFunctionLanguage>" + source(),
    "array": "<ArraySource><SingleSourceArray><SourceFilename>a.tif</SourceFilename>"
    "<SourceArray>/</SourceArray></SingleSourceArray></ArraySource>",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_vrt_in_disguise(folder: Path, name: str):
    """What is not understood is refused in one line, whatever GDAL would make of it."""
    path = folder / "x.vrt"
    path.write_text(MOSAIC.format(top="", dtype="UInt16", band="", inside=DISGUISES[name]))
    with pytest.raises(SceneError, match=r"VRT.*x\.vrt|no such file.*x\.vrt") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "top",
    [
        "<Group name='/'/>",
        "<GDALWarpOptions><SourceDataset>a.tif</SourceDataset><Transformer><RPCTransformer>"
        "<DEMPath>/vsicurl/http://x/a</DEMPath></RPCTransformer></Transformer></GDALWarpOptions>",
        "<SRS>http://127.0.0.1:1/crs</SRS>",
        "<GCPList Projection='http://127.0.0.1:1/crs'/>",
        "<VerticalShiftGrids><Grids>/etc/hostname</Grids></VerticalShiftGrids>",
    ],
)
def test_vrt_names_nothing_elsewhere(folder: Path, top: str):
    """Elevation models, grids and CRS by address are refused too."""
    path = folder / "x.vrt"
    path.write_text(MOSAIC.format(top=top, dtype="UInt16", band="", inside=source()))
    with pytest.raises(SceneError, match=r"only combine rasters|CRS as WKT or a code"):
        opened(path)


def test_vrt_in_another_encoding(folder: Path):
    """UTF-16 hides names from a search for bytes, not from a parser."""
    text = MOSAIC.format(
        top="", dtype="UInt16", band="", inside=source(file="/vsicurl/http://x/a.tif")
    )
    (folder / "x.vrt").write_text('<?xml version="1.0" encoding="utf-16"?>' + text, "utf-16")
    with pytest.raises(SceneError, match="local files by plain names"):
        opened(folder / "x.vrt")
    (folder / "x.vrt").write_text("<!DOCTYPE VRTDataset>" + text, "utf-16")
    with pytest.raises(SceneError, match="document type"):
        opened(folder / "x.vrt")
