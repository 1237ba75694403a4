"""Products are strict COGs, exact, deterministic, and nothing is left of a failed one."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from tilemap.errors import SceneError, StoreError
from tilemap.geometry import TileGrid, Window
from tilemap.stores.cog import (
    RasterProfile,
    check_crs,
    partial_path,
    publish,
    verify_cog,
    write_cog,
)
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.stores.overviews import halve

NORTH_UP = Affine(10, 0, 435730, 0, -10, 4179460)
SOUTH_UP = Affine(10, 0, 435730, 0, 10, 4159990)
ROTATED = Affine(8, 2, 435730, 1.5, -9, 4179460)
PALETTE = {0: (40, 40, 40), 1: (0, 90, 200), 3: (250, 250, 240)}
NAMES = {0: "shadow", 1: "water", 3: "snow & ice"}

Bytes = npt.NDArray[np.uint8]


def class_map(shape: tuple[int, int], seed: int = 3) -> Bytes:
    """Patches of four classes and nodata, without symmetry."""
    rng = np.random.default_rng(seed)
    small = rng.choice([0, 1, 3, 255], size=(-(-shape[0] // 7), -(-shape[1] // 5)))
    return small.astype(np.uint8).repeat(7, 0).repeat(5, 1)[: shape[0], : shape[1]]


def profile(
    shape: tuple[int, int],
    affine: Affine = NORTH_UP,
    crs: str | None = "EPSG:32618",
    classes: bool = True,
    **more: Any,
) -> RasterProfile:
    """A class map or a quantity on a grid."""
    if classes:
        more = {"palette": PALETTE, "names": NAMES, "overview": "mode", **more}
    return RasterProfile(GeoBox(shape, affine, crs), tags={"MODEL": "toy"}, **more)


def pieces(
    pixels: Bytes, core: int = 448, seed: int | None = None
) -> Iterator[tuple[Window, Bytes]]:
    """The cores of a raster, in reading order or shuffled."""
    grid = TileGrid((pixels.shape[0], pixels.shape[1]), core, 0, 0)
    windows = [grid.core_window(tile) for tile in grid.tiles()]
    if seed is not None:
        random.Random(seed).shuffle(windows)
    return ((window, pixels[window.slices()]) for window in windows)


def problems(path: Path) -> tuple[bool, list[str], list[str]]:
    """What the independent validator says of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        valid, errors, complaints = cog_validate(path, strict=True)
    return valid, errors, complaints


def read(path: Path, **options: Any) -> Bytes:
    """Band 1 by rasterio alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, **options) as file:
            pixels: Bytes = file.read(1)
    return pixels


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (300, 257), (512, 513), (2000, 1500), (5000, 4000)])
def test_is_a_strict_cog(tmp_path: Path, shape: tuple[int, int], classes: bool) -> None:
    """Every size, ragged or tiny, validates strictly and holds the pixels."""
    pixels, look = class_map(shape), profile(shape, classes=classes)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels, 960), tmp_path / "scratch")
    assert problems(receipt.partial) == (True, [], [])
    np.testing.assert_array_equal(read(receipt.partial), pixels)
    verify_cog(receipt.partial, look, pieces(pixels, 512))
    assert receipt.bytes == receipt.partial.stat().st_size


@pytest.mark.parametrize(
    ("affine", "crs"),
    [
        (NORTH_UP, "EPSG:32618"),
        (SOUTH_UP, "EPSG:32618"),
        (ROTATED, "EPSG:32618"),
        (Affine(0.1, 0, -75.7, 0, -0.1, 37.8), "EPSG:4326"),
        (Affine(231.6563582639536, 0, -6e6, 0, -231.6563582639536, -1e6), "ESRI:54008"),
        (NORTH_UP, None),
        (Affine.identity(), None),
    ],
)
def test_georeference_is_kept(tmp_path: Path, affine: Affine, crs: str | None) -> None:
    """Geotransform and CRS come back exactly, also if there is none; no warning is given."""
    pixels = class_map((40, 30))
    look = profile((40, 30), affine, crs)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels), tmp_path)
    verify_cog(receipt.partial, look, pieces(pixels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(receipt.partial) as file:
            assert file.transform.almost_equals(affine, precision=1e-9)
            assert (file.crs is None) == (crs is None)
            if crs is not None:
                assert file.crs == rasterio.CRS.from_user_input(crs)


COMPOUND = {
    "EPSG:32618+4326": "EPSG:32618",  # with heights on the ellipsoid
    "EPSG:5498": "EPSG:4269",  # with heights above the sea
    "EPSG:8734": "EPSG:3436",  # state plane, both in feet
    "EPSG:4979": "EPSG:4326",  # three-dimensional
    "ESRI:104696": "EPSG:5228",
}
OTHER_WORDS = ("EPSG:2217", "EPSG:5113", "EPSG:7133", "EPSG:3436", "ESRI:102711", "IAU_2015:30110")
LOCAL = 'LOCAL_CS["Lambert-93",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@pytest.mark.parametrize("crs", [*COMPOUND, *OTHER_WORDS, LOCAL])
def test_a_crs_that_comes_back_in_other_words(tmp_path: Path, crs: str) -> None:
    """A scene in it can be read, and a product on its grid can be written and verified."""
    scene = tmp_path / "scene.tif"
    declared = rasterio.CRS.from_user_input(crs)
    kinds = {"count": 1, "height": 40, "width": 30, "dtype": "uint8", "transform": NORTH_UP}
    with rasterio.open(scene, "w", driver="GTiff", crs=declared, **kinds) as file:
        file.write(class_map((40, 30))[None])
    geobox = open_scene(SceneRequest((str(scene),))).scene.geobox
    if crs in COMPOUND:
        assert geobox.crs == COMPOUND[crs]
    check_crs(geobox.crs)
    look = profile((40, 30), NORTH_UP, geobox.crs)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(class_map((40, 30))), tmp_path)
    verify_cog(receipt.partial, look, pieces(class_map((40, 30))))
    with pytest.raises(StoreError, match="must have CRS"):
        verify_cog(
            receipt.partial, profile((40, 30), crs="EPSG:32619"), pieces(class_map((40, 30)))
        )


def test_a_crs_that_no_geotiff_can_hold() -> None:
    """Longitudes of Ganymede run the other way, which the file does not keep."""
    with pytest.raises(SceneError, match=r"hold, Ganymede \(2015\).* comes back as another one"):
        check_crs(GeoBox((4, 4), NORTH_UP, "IAU_2015:50316").crs)


def test_looks_as_told(tmp_path: Path) -> None:
    """Palette with transparent nodata, names as tags, own tags, description."""
    look = profile((40, 30), description="land cover")
    receipt = write_cog(tmp_path / "a.tif", look, pieces(class_map((40, 30))), tmp_path)
    with rasterio.open(receipt.partial) as file:
        palette = file.colormap(1)
        assert palette[1] == (0, 90, 200, 255)
        assert palette[255][3] == 0
        assert file.nodata == 255
        assert file.colorinterp == (ColorInterp.palette,)
        assert file.descriptions == ("land cover",)
        tags = file.tags()
    assert tags["CLASS_3"] == "snow & ice"
    assert tags["MODEL"] == "toy"


def test_overviews_are_the_modes(tmp_path: Path) -> None:
    """A level shows classes of the level below, not neighbours in number; half-nodata is seen."""
    pixels = np.full((1024, 600), 3, dtype=np.uint8)
    pixels[::2, ::2] = 1
    pixels[:400] = 255
    pixels[1:400:2, ::2] = 1
    receipt = write_cog(tmp_path / "a.tif", profile((1024, 600)), pieces(pixels), tmp_path)
    level = read(receipt.partial, overview_level=0)
    assert level.shape == (512, 300)
    assert (level[:200] == 1).all()
    assert (level[200:] == 3).all()


def test_overviews_are_the_means(tmp_path: Path) -> None:
    """Quantities are averaged, without nodata."""
    pixels = np.zeros((600, 1024), dtype=np.uint8)
    pixels[1::2, 1::2] = 100
    pixels[:, 512:] = 255
    pixels[::2, 512::2] = 40
    look = profile((600, 1024), classes=False)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels), tmp_path)
    level = read(receipt.partial, overview_level=0)
    assert (level[:, :256] == 25).all()
    assert (level[:, 256:] == 40).all()


def test_very_long_raster_has_all_levels(tmp_path: Path) -> None:
    """Eleven levels: GDAL finds each beside the one before."""
    pixels = np.full((2, 600_000), 3, dtype=np.uint8)
    look = profile(pixels.shape)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels, 4096), tmp_path)
    verify_cog(receipt.partial, look, pieces(pixels, 4096))
    assert problems(receipt.partial)[0]
    with rasterio.open(receipt.partial) as file:
        assert file.overviews(1) == [2**k for k in range(1, 12)]


@settings(max_examples=8)
@given(core=st.integers(100, 1400), seed=st.integers(0, 99))
def test_same_pixels_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, core: int, seed: int
) -> None:
    """Neither the size nor the order of the windows shows in the file, nor its name or folder."""
    folder = tmp_path_factory.mktemp("cog")
    pixels = class_map((1300, 700))
    look = profile(pixels.shape)
    one = write_cog(folder / "one.tif", look, pieces(pixels, 512), folder)
    two = write_cog(folder / "two.tif", look, pieces(pixels, core, seed), folder / "deep" / "down")
    assert one.partial.read_bytes() == two.partial.read_bytes()
    assert one.sha256 == two.sha256


def test_other_pixels_other_digest(tmp_path: Path) -> None:
    """One pixel changes the digest."""
    pixels = class_map((64, 64))
    one = write_cog(tmp_path / "a.tif", profile((64, 64)), pieces(pixels), tmp_path)
    pixels[63, 0] ^= 1
    two = write_cog(tmp_path / "b.tif", profile((64, 64)), pieces(pixels), tmp_path)
    assert one.sha256 != two.sha256


def test_verify_names_first_pixel(tmp_path: Path) -> None:
    """A wrong pixel is named by row, column and both values."""
    pixels = class_map((700, 600))
    look = profile((700, 600))
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels), tmp_path)
    other = pixels.copy()
    other[650, 599] = 77
    with pytest.raises(StoreError, match=f"hold 77 at row 650, column 599, got {pixels[650, 599]}"):
        verify_cog(receipt.partial, look, pieces(other))


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("shape", profile((301, 600))),
        ("geotransform", profile((300, 600), Affine(10, 0, 435730.001, 0, -10, 4179460))),
        ("CRS", profile((300, 600), crs="EPSG:32619")),
        ("CRS", profile((300, 600), crs=None)),
        ("nodata", profile((300, 600), nodata=254)),
        ("palette", profile((300, 600), palette={**PALETTE, 1: (0, 90, 201)})),
        ("tags", profile((300, 600), names={**NAMES, 1: "lake"})),
    ],
)
def test_verify_names_what_differs(tmp_path: Path, what: str, other: RasterProfile) -> None:
    """Everything but the pixels is compared too."""
    pixels = class_map((300, 600))
    receipt = write_cog(tmp_path / "a.tif", profile((300, 600)), pieces(pixels), tmp_path)
    with pytest.raises(StoreError, match=f"must have {what} "):
        verify_cog(receipt.partial, other, pieces(pixels))


@pytest.mark.parametrize("side", [300, 900])
def test_verify_refuses_a_plain_tiff(tmp_path: Path, side: int) -> None:
    """A GeoTIFF that is not laid out as a COG is refused."""
    pixels = class_map((side, side))
    look = profile(pixels.shape, classes=False)
    path = tmp_path / "plain.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=255,
        crs="EPSG:32618", transform=NORTH_UP,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
        file.update_tags(MODEL="toy")
    with pytest.raises(StoreError, match="must have layout COG"):
        verify_cog(path, look, pieces(pixels))


def test_verify_finds_damage(tmp_path: Path) -> None:
    """A damaged or cut file is an error of ours, whatever GDAL says of it."""
    pixels = class_map((700, 600))
    look = profile(pixels.shape)
    receipt = write_cog(tmp_path / "a.tif", look, pieces(pixels), tmp_path)
    whole = receipt.partial.read_bytes()
    receipt.partial.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError):
        verify_cog(receipt.partial, look, pieces(pixels))


def test_gap_twice_and_overhang_are_refused(tmp_path: Path) -> None:
    """Windows must partition the raster: never zeros where nothing was written."""
    pixels = class_map((100, 90))
    look = profile(pixels.shape)
    parts = list(pieces(pixels, 50))
    beyond = Window(50, 50, 101, 90), np.zeros((51, 40), dtype=np.uint8)
    cases: list[tuple[Any, str]] = [
        (parts[:-1], "cover 9000 pixels once, they cover 7000"),
        ([*parts, parts[0]], "each window must come once"),
        ([*parts[:-1], beyond], "each window must come once and lie in"),
        ([(parts[0][0], parts[0][1][:-1])], "needs uint8 pixels of shape"),
        ([(parts[0][0], parts[0][1].astype(np.int16))], "needs uint8 pixels of shape"),
    ]
    for windows, message in cases:
        with pytest.raises(StoreError, match=message):
            write_cog(tmp_path / "a.tif", look, windows, tmp_path / "scratch")
        assert not list(tmp_path.glob("a.tif*"))
        assert not list(tmp_path.glob("scratch/*"))
    receipt = write_cog(tmp_path / "a.tif", look, parts, tmp_path / "scratch")
    with pytest.raises(StoreError, match="they cover 7000"):
        verify_cog(receipt.partial, look, parts[:-1])


def test_reader_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The error of the source passes through; temporary files do not stay."""
    pixels = class_map((100, 90))

    def failing() -> Iterator[tuple[Window, Bytes]]:
        yield next(pieces(pixels, 50))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cog(tmp_path / "a.tif", profile(pixels.shape), failing(), tmp_path / "scratch")
    assert [path.name for path in tmp_path.rglob("*")] == ["scratch"]


def test_leftovers_of_a_killed_run_do_no_harm(tmp_path: Path) -> None:
    """Old temporary overviews and sidecars never get into the product."""
    pixels = class_map((900, 700))
    look = profile(pixels.shape)
    clean = write_cog(tmp_path / "a.tif", look, pieces(pixels), tmp_path / "scratch")
    old = tmp_path / "scratch" / "cog-b.tif"
    old.mkdir(parents=True)
    for name in ("flat.tif", "flat.tif.ovr", "flat.tif.ovr.ovr", "flat.tif.aux.xml"):
        (old / name).write_bytes(b"rubbish")
    (tmp_path / "b.tif.partial").write_bytes(b"rubbish")
    (tmp_path / "b.tif.partial.ovr").write_bytes(b"rubbish")
    again = write_cog(tmp_path / "b.tif", look, pieces(pixels), tmp_path / "scratch")
    verify_cog(again.partial, look, pieces(pixels))
    assert clean.sha256 == again.sha256


def test_no_space_is_said_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less free than the temporary file needs: an error with both figures."""
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    look = profile((4000, 3000))
    with pytest.raises(StoreError, match=r"no space.* needs 16\.0 MB .* 5\.0 MB are free"):
        write_cog(tmp_path / "a.tif", look, iter(()), tmp_path / "scratch")
    assert not list(tmp_path.rglob("*.tif*"))


LIMITED = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from tilemap.errors import StoreError
from tilemap.geometry import TileGrid
from tilemap.stages.export import export_raster
from tilemap.stores.cog import RasterProfile
shape = (2000, 2000)
look = RasterProfile(GeoBox(shape, Affine(1, 0, 0, 0, -1, 0), "EPSG:32618"))
noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
folder = Path(sys.argv[1])
grid = TileGrid(shape, 1024, 0, 0)
try:
    export_raster(lambda w: noise[w.slices()], grid, look, folder / "a.tif", folder / "scratch")
    print("written")
except StoreError as error:
    print("refused:", error, type(error).__name__)
"""


@pytest.mark.parametrize("limit", [1_000_000, 4_500_000, 5_200_000, 50_000_000])
def test_writes_that_fail(tmp_path: Path, limit: int) -> None:
    """In the temporary file, in the copy, or unnoticed by GDAL: one error, and nothing stays."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if limit == 50_000_000:
        assert done.stdout == "written\n"
    else:
        assert done.stdout.startswith("refused: cannot ")
        assert not list(tmp_path.rglob("*.tif*"))


def test_a_file_that_has_no_room_is_a_full_disk(tmp_path: Path) -> None:
    """GDAL does not say why a write failed; the system does when it is asked."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), "1000000"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused: cannot write ")
    assert done.stdout.endswith("DiskFullError\n")


def numbers(dtype: str, count: int, shape: tuple[int, int], nodata: float) -> npt.NDArray[Any]:
    """Planes of patches over the whole range of a type, some nodata; (band, y, x)."""
    rng = np.random.default_rng(11)
    size = (count, -(-shape[0] // 6), -(-shape[1] // 4))
    if dtype == "float32":
        small = rng.normal(0, 1e5, size).astype(np.float32)
    else:
        limits = np.iinfo(dtype)
        small = rng.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True)
    small[:, 2::3, 1::5] = nodata
    planes = small.repeat(6, 1).repeat(4, 2)
    return np.ascontiguousarray(planes[:, : shape[0], : shape[1]])


def cut(planes: npt.NDArray[Any], core: int, seed: int) -> list[tuple[Window, npt.NDArray[Any]]]:
    """The cores of planes, shuffled; (y, x) if there is one plane."""
    grid = TileGrid((planes.shape[1], planes.shape[2]), core, 0, 0)
    whole = planes if len(planes) > 1 else planes[0]
    parts = [
        (window, whole[(..., *window.slices())])
        for window in (grid.core_window(tile) for tile in grid.tiles())
    ]
    random.Random(seed).shuffle(parts)
    return parts


WIDE = [
    ("uint8", ("a", "b", "c"), 255, "average"),
    ("uint16", (), 65535, "average"),
    ("uint16", (), 0, "mode"),
    ("int32", ("day", "gap"), -2147483648, "nearest"),
    ("int32", (), -1, "average"),
    ("float32", (), float("nan"), "average"),
    ("float32", ("a", "b"), -9999.0, "average"),
]


@pytest.mark.parametrize(("dtype", "bands", "nodata", "overview"), WIDE)
def test_other_types_and_bands(
    tmp_path: Path, dtype: str, bands: tuple[str, ...], nodata: float, overview: Any
) -> None:
    """Strict COG, every number back, overviews as told, the same bytes however it is cut."""
    shape = (1100, 613)
    planes = numbers(dtype, max(1, len(bands)), shape, nodata)
    look = profile(shape, classes=False, dtype=dtype, bands=bands, nodata=nodata, overview=overview)
    one, two = (
        write_cog(tmp_path / name, look, cut(planes, core, core), tmp_path / "scratch")
        for name, core in (("a.tif", 448), ("b.tif", 1200))
    )
    assert one.sha256 == two.sha256
    assert problems(one.partial) == (True, [], [])
    verify_cog(one.partial, look, cut(planes, 333, 1))
    with rasterio.open(one.partial) as file:
        np.testing.assert_array_equal(file.read(), planes)
        np.testing.assert_equal(file.nodata, nodata)
        assert file.descriptions == (bands or (None,))
    with rasterio.open(one.partial, overview_level=0) as file:
        for plane, level in zip(planes, file.read(), strict=True):
            np.testing.assert_array_equal(level, halve(plane, nodata, overview))


def test_verify_names_the_band(tmp_path: Path) -> None:
    """A wrong number in the second band is found, NaN is not taken for a difference."""
    planes = numbers("float32", 2, (70, 41), float("nan"))
    look = profile((70, 41), classes=False, dtype="float32", bands=("a", "b"), nodata=float("nan"))
    receipt = write_cog(tmp_path / "a.tif", look, cut(planes, 32, 0), tmp_path)
    verify_cog(receipt.partial, look, cut(planes, 32, 0))
    other = planes.copy()
    other[1, 66, 40] = 0.5
    with pytest.raises(StoreError, match=r"hold 0\.5 at row 66, column 40, band 2, got"):
        verify_cog(receipt.partial, look, cut(other, 32, 0))
    single = profile((70, 41), classes=False, dtype="float32", nodata=float("nan"))
    with pytest.raises(StoreError, match="must have dtype"):
        verify_cog(receipt.partial, single, cut(planes[:1], 32, 0))
    renamed = profile(
        (70, 41), classes=False, dtype="float32", bands=("a", "c"), nodata=float("nan")
    )
    with pytest.raises(StoreError, match="must have descriptions"):
        verify_cog(receipt.partial, renamed, cut(planes, 32, 0))


def test_bands_must_come_together(tmp_path: Path) -> None:
    """One plane is not two, another type is not converted in silence."""
    planes = numbers("int32", 2, (40, 30), -1)
    look = profile((40, 30), classes=False, dtype="int32", bands=("a", "b"), nodata=-1)
    for wrong in (planes[:1], planes[0], planes.astype(np.int64)):
        with pytest.raises(StoreError, match=r"needs int32 pixels of shape \(2, 40, 30\)"):
            write_cog(tmp_path / "a.tif", look, [(Window(0, 0, 40, 30), wrong)], tmp_path / "s")


def test_space_is_asked_for_all_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bands of four bytes need eight times a byte map."""
    usage = shutil.disk_usage(tmp_path)._replace(free=50_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    look = profile((4000, 3000), classes=False, dtype="int32", bands=("a", "b"))
    with pytest.raises(StoreError, match=r"no space.* needs 128\.0 MB"):
        write_cog(tmp_path / "a.tif", look, iter(()), tmp_path / "scratch")


def test_bits_are_named(tmp_path: Path) -> None:
    """The meaning of each bit stands in a tag."""
    look = profile((40, 30), classes=False, overview="nearest", bits={0: "few", 5: "provisional"})
    receipt = write_cog(tmp_path / "a.tif", look, pieces(class_map((40, 30))), tmp_path)
    with rasterio.open(receipt.partial) as file:
        tags = file.tags()
    assert (tags["BIT_0"], tags["BIT_5"]) == ("few", "provisional")


def test_publish_replaces_at_once(tmp_path: Path) -> None:
    """The old product stays until the new one is whole, and no partial file remains."""
    final = tmp_path / "a.tif"
    final.write_bytes(b"old")
    partial_path(final).write_bytes(b"new")
    publish(partial_path(final), final)
    assert final.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    with pytest.raises(StoreError, match=r"cannot write .*a\.tif"):
        publish(partial_path(final), final)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodata": 256}, "between 0 and 255, got 256"),
        ({"palette": {0: (0, 0, 300)}, "overview": "mode"}, "got 300"),
        ({"names": {-1: "x"}}, "got -1"),
        ({"palette": PALETTE, "overview": "average"}, "cannot be averaged"),
        ({"bits": {0: "few"}}, "cannot be averaged"),
        ({"dtype": "uint64"}, "one of uint8, uint16, int32, float32, got uint64"),
        ({"dtype": "uint16", "nodata": -1}, "in uint16, got -1"),
        ({"dtype": "int32", "nodata": 0.5}, "in int32, got 0.5"),
        ({"dtype": "int32", "nodata": float("nan")}, "in int32, got nan"),
        ({"dtype": "float32", "nodata": 0.1}, "in float32, got 0.1"),
        ({"dtype": "float32", "overview": "mode"}, "needs whole numbers, got float32"),
        ({"names": NAMES, "dtype": "uint16"}, "one band of uint8, got 1 of uint16"),
        ({"names": NAMES, "bands": ("a", "b")}, "one band of uint8, got 2 of uint8"),
    ],
)
def test_profile_is_checked(wrong: dict[str, Any], message: str) -> None:
    """What a raster cannot hold is refused at once."""
    with pytest.raises(StoreError, match=message):
        RasterProfile(GeoBox((3, 3), NORTH_UP, "EPSG:32618"), **wrong)
