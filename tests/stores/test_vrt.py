"""VRTs: those that combine local rasters open, all others stay shut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
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
        ("NETCDF:a.tif", "may only read local GeoTIFF"),
        ("&lt;VRTDataset&gt;.vrt", "may only read local GeoTIFF"),
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
