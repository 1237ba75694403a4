"""Scenes from several files: mosaics, stacks, mixed resolutions, folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.geometry import Window
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.testing import random_scene, write_geotiff


def opened(*files: str | os.PathLike[str], **asked: object) -> SceneSource:
    """A scene of some files."""
    return open_scene(SceneRequest(tuple(map(str, files)), **asked))


def read(source: SceneSource, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A window, or the whole scene."""
    with source.open() as reader:
        return reader.read(window or Window(0, 0, *source.scene.shape))


def grid(left: float = 400_000, top: float = 4_100_000, size: float = 10) -> Affine:
    """North up, square pixels."""
    return Affine(size, 0, left, 0, -size, top)


# --- mosaics -----------------------------------------------------------------------------------


def test_mosaic_first_valid_wins(tmp_path: Path):
    """The union of the extents; the first file where it is valid, the second where it is not."""
    one, two = random_scene((50, 60), seed=1), random_scene((40, 70), seed=2)
    one[:, 30:, 40:] = 0
    a = write_geotiff(tmp_path / "a.tif", one, names=("blue", "green", "red"))
    b = write_geotiff(
        tmp_path / "b.tif", two, names=("blue", "green", "red"), transform=grid(400_200, 4_100_100)
    )
    source = opened(a, b, nodata=0)
    want = np.zeros((3, 60, 90), np.uint16)
    want[:, 0:40, 20:90] = two  # b begins 10 rows above and 20 columns right of a
    want[:, 10:60, 0:60] = np.where(one > 0, one, want[:, 10:60, 0:60])
    got, valid = read(source)
    assert source.scene.geobox.affine == grid(400_000, 4_100_100)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(valid, want[0] > 0)
    assert not valid.all()
    other, _ = read(opened(b, a, nodata=0))
    assert (other[:, 10:40, 20:60] == two[:, 10:, :40]).all()


@given(windows=st.tuples(*[st.integers(0, 60)] * 4))
def test_mosaic_windows_are_parts(
    tmp_path_factory: pytest.TempPathFactory, windows: tuple[int, int, int, int]
):
    """However a mosaic is cut, it is the same."""
    folder = tmp_path_factory.getbasetemp()
    a, b = folder / "mosaic_a.tif", folder / "mosaic_b.tif"
    if not b.exists():
        one = random_scene((50, 60), seed=1)
        one[:, ::7] = 0
        write_geotiff(a, one)
        write_geotiff(b, random_scene((40, 30), seed=2), transform=grid(400_500, 4_100_050))
    source = opened(a, b, nodata=0)
    top, left, height, width = windows
    rows, cols = source.scene.shape
    top, left = min(top, rows), min(left, cols)
    window = Window(top, left, min(top + height, rows), min(left + width, cols))
    whole, seen = read(source)
    part, valid = read(source, window)
    np.testing.assert_array_equal(part, whole[:, *window.slices()])
    np.testing.assert_array_equal(valid, seen[window.slices()])


def test_grids_off_by_rounding_are_one(tmp_path: Path):
    """A ten-thousandth of a pixel is not a shift."""
    image = random_scene((20, 30))
    a = write_geotiff(tmp_path / "a.tif", image)
    b = write_geotiff(tmp_path / "b.tif", image, transform=grid(400_300.001))
    assert opened(a, b).scene.shape == (20, 60)


@pytest.mark.parametrize(
    ("crs", "transform", "what"),
    [
        ("EPSG:32619", grid(), "CRS.*EPSG:32618.*EPSG:32619"),
        ("EPSG:32618", grid(size=15), "pixel size.*10 x -10.*15 x -15"),
        ("EPSG:32618", grid(400_304), "where pixels begin.*shift of 0.400 columns and 0.000 rows"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, crs: str, transform: Affine, what: str):
    """What differs between which files, and what to do about it; --like then unites them."""
    image = random_scene((40, 40))
    a = write_geotiff(tmp_path / "a.tif", image)
    b = write_geotiff(tmp_path / "b.tif", image, crs=crs, transform=transform)
    with pytest.raises(SceneMismatchError, match=f"differ in {what}.*`like`"):
        opened(a, b)
    if crs == "EPSG:32618":
        got, valid = read(opened(a, b, like=str(a)))
        np.testing.assert_array_equal(got, image)
        assert valid.all()


def test_unaligned_files_united_by_like(tmp_path: Path):
    """Each file is brought to the grid on its own; the first valid pixel wins."""
    a = write_geotiff(tmp_path / "a.tif", random_scene((40, 40), seed=1))
    b = write_geotiff(tmp_path / "b.tif", random_scene((40, 40), seed=2), transform=grid(400_304))
    like = write_geotiff(tmp_path / "like.tif", np.zeros((1, 40, 70), np.uint8))
    both, valid = read(opened(a, b, like=str(like)))
    alone, seen = read(opened(b, like=str(like)))
    np.testing.assert_array_equal(both[:, :, :40], random_scene((40, 40), seed=1))
    np.testing.assert_array_equal(both[:, :, 40:], alone[:, :, 40:])
    assert valid[:, :40].all()
    np.testing.assert_array_equal(valid[:, 40:], seen[:, 40:])


def test_files_that_scale_differently(tmp_path: Path):
    """Stored numbers of different scale are not joined, unless the user says what holds."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(), names=("red", "nir", "pan"), scale=1e-4)
    b = write_geotiff(
        tmp_path / "b.tif", random_scene(), names=("red", "nir", "pan"), transform=grid(401_100)
    )
    with pytest.raises(SceneMismatchError, match=r"scale of red.*a\.tif has 0\.0001.*`scale`"):
        opened(a, b)
    assert opened(a, b, scale=1e-4).scene.shape == (75, 220)


def test_same_extent_twice_is_told(tmp_path: Path):
    """Two files of the same bands and ground: the second only fills gaps, and that is said."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(seed=1), names=("red", "nir", "pan"))
    b = write_geotiff(tmp_path / "b.tif", random_scene(seed=2), names=("red", "nir", "pan"))
    source = opened(a, b)
    assert len(source.warnings) == 1
    assert "b.tif has the bands and the extent of" in source.warnings[0]
    np.testing.assert_array_equal(read(source)[0], random_scene(seed=1))


def test_real_landsat_mosaic(data: Path):
    """The Itaipu pair: the union grid, and in the overlap the values of both files."""
    big = data / "scenes/l8_l1tp_224078_20200518_b234.tif"
    small = data / "scenes/l8_l1tp_224077_20200518_b234_crop.tif"
    source = opened(big, small, nodata=0)
    assert source.scene.shape == (1960, 2141)
    assert source.scene.geobox.affine == Affine(30, 0, 714_345, 0, -30, -2_773_995)
    assert source.scene.band_names == ("blue", "green", "red")
    got, valid = read(source)
    with rasterio.open(big) as one, rasterio.open(small) as two:
        a, b = one.read(), two.read()
    placed = np.zeros((2, 3, 1960, 2141), np.uint16)
    placed[0, :, 100 : 100 + 1860, 100 : 100 + 2041] = a
    placed[1, :, :1269, :1328] = b
    seen = (placed > 0).all(axis=1)
    np.testing.assert_array_equal(valid, seen.any(axis=0))
    np.testing.assert_array_equal(got, np.where(seen[0], placed[0], placed[1]) * seen.any(axis=0))
    assert seen.all(axis=0).sum() > 1_000_000


# --- stacks of resolutions ---------------------------------------------------------------------


def test_coarse_bands_come_onto_the_finest_grid(tmp_path: Path):
    """Bilinear as GDAL does it, in any order of files; the fine bands stay as they are."""
    fine = write_geotiff(
        tmp_path / "fine.tif", random_scene((61, 83), bands=2), names=("red", "nir")
    )
    coarse = write_geotiff(
        tmp_path / "coarse.tif",
        random_scene((31, 43), bands=1, seed=4),
        names=("swir16",),
        transform=grid(399_990, 4_100_010, 20),
    )
    source = opened(coarse, fine, bands=("red", "swir16", "nir"))
    assert source.scene.geobox.affine == grid()
    assert source.scene.shape == (61, 83)
    got, valid = read(source)
    with rasterio.open(fine) as dataset:
        np.testing.assert_array_equal(got[[0, 2]], dataset.read())
    with (
        rasterio.open(coarse) as dataset,
        WarpedVRT(
            dataset,
            transform=grid(),
            height=61,
            width=83,
            crs="EPSG:32618",
            resampling=Resampling.bilinear,
        ) as vrt,
    ):
        want = vrt.read(1)
    assert valid.all()
    np.testing.assert_allclose(got[1].astype(int), want.astype(int), atol=1)
    assert (got[1] != want).mean() < 0.01


def test_uncovered_pixels_are_invalid_by_their_centre(tmp_path: Path):
    """Nothing is invented beyond a band's extent: neither values nor validity."""
    fine = write_geotiff(tmp_path / "fine.tif", random_scene((9, 9), bands=1), names=("red",))
    for shift, lost in ((0, 1), (4, 1), (6, 0)):  # metres that the coarse band begins lower
        coarse = write_geotiff(
            tmp_path / f"coarse{shift}.tif",
            random_scene((4, 4), bands=1, seed=4),
            names=("swir16",),
            transform=grid(400_000, 4_100_000 - shift, 20),
        )
        got, valid = read(opened(fine, coarse))
        want = np.zeros((9, 9), bool)
        top = 0 if shift < 5 else 1
        want[top : 9 - lost, :8] = True
        np.testing.assert_array_equal(valid, want, err_msg=str(shift))
        assert not got[:, ~valid].any()


def test_gaps_of_coarse_bands_do_not_bleed(tmp_path: Path):
    """Not observed pixels weigh nothing in their neighbours."""
    image = np.full((1, 10, 12), 500, np.uint16)
    image[0, 4:6, 3:7] = 65_535
    fine = write_geotiff(tmp_path / "fine.tif", random_scene((20, 24), bands=1), names=("red",))
    coarse = write_geotiff(
        tmp_path / "coarse.tif", image, names=("swir16",), transform=grid(size=20), nodata=65_535
    )
    got, valid = read(opened(fine, coarse))
    np.testing.assert_array_equal(valid, (image[0] == 500).repeat(2, 0).repeat(2, 1))
    assert (got[1][valid] == 500).all()


def test_coarse_copies_are_left_out(tmp_path: Path):
    """Of a band at several resolutions over the same ground the finest is read."""
    fine = write_geotiff(tmp_path / "T18SVG_20230601T155829_B02_10m.tif", random_scene((40, 40), 1))
    coarse = write_geotiff(
        tmp_path / "T18SVG_20230601T155829_B02_20m.tif",
        random_scene((20, 20), 1),
        transform=grid(size=20),
    )
    source = opened(coarse, fine)
    assert source.files == (str(fine),)
    assert source.scene.band_names == ("blue",)


def test_real_virginia_stack(data: Path):
    """Three unequal extents and resolutions on the 10 m grid; the last row is half covered."""
    files = [data / f"scenes/s2_l1c_va_eastern_shore_{n}m.tif" for n in (10, 20, 60)]
    source = opened(*files)
    assert source.scene.geobox.affine == Affine(10, 0, 435_730, 0, -10, 4_179_460)
    assert source.scene.shape == (1947, 1933)
    assert source.scene.band_names[:6] == ("blue", "green", "red", "nir", "nir08", "swir16")
    assert source.warnings == ()
    window = Window(900, 700, 1947, 1933)
    got, valid = read(source, window)
    with rasterio.open(files[0]) as dataset:
        want = dataset.read(window=((900, 1947), (700, 1933)))
    np.testing.assert_array_equal(got[:4], np.where(valid, want, 0))
    inside = np.zeros(window.shape, bool)  # 60 m: to 455040 E and 4160040 N
    inside[: 1942 - 900, : 1931 - 700] = True
    np.testing.assert_array_equal(valid, inside)
    two, seen = read(opened(*files[:2], bands=("swir16", "blue")), window)
    assert seen[:-1].all()
    assert not seen[-1].any()
    np.testing.assert_array_equal(two[:, inside], got[[5, 0]][:, inside])


def test_mosaic_of_stacks(tmp_path: Path):
    """Two neighbours, each with its 10 m and 20 m file: as one scene cut in two."""
    fine, coarse = random_scene((60, 80), bands=2), random_scene((30, 40), bands=1, seed=5)
    names = []
    for number, part in enumerate((slice(0, 20), slice(20, 40))):
        at = 400_000 + 20 * part.start
        both = slice(2 * part.start, 2 * part.stop)
        a, b = tmp_path / f"fine{number}.tif", tmp_path / f"coarse{number}.tif"
        write_geotiff(a, fine[:, :, both], names=("red", "nir"), transform=grid(at))
        write_geotiff(b, coarse[:, :, part], names=("swir16",), transform=grid(at, size=20))
        names += [a, b]
    write_geotiff(tmp_path / "all_fine.tif", fine, names=("red", "nir"))
    write_geotiff(tmp_path / "all_coarse.tif", coarse, names=("swir16",), transform=grid(size=20))
    cut, whole = opened(*names), opened(tmp_path / "all_fine.tif", tmp_path / "all_coarse.tif")
    assert cut.scene.geobox == whole.scene.geobox
    np.testing.assert_array_equal(read(cut)[0], read(whole)[0])
    assert read(cut)[1].all()


def test_bands_without_common_ground(tmp_path: Path):
    """Bands that cover different places make no scene."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(bands=1), names=("red",))
    b = write_geotiff(
        tmp_path / "b.tif", random_scene(bands=1), names=("nir",), transform=grid(500_000)
    )
    with pytest.raises(SceneMismatchError, match=r"b\.tif has no pixel in common"):
        opened(a, b)


def test_types_are_promoted_or_refused(tmp_path: Path):
    """Bytes and floats go together; numbers that only 64 bits would hold do not."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(bands=1, dtype=np.uint8), names=("red",))
    b = write_geotiff(tmp_path / "b.tif", random_scene(bands=1, dtype=np.float32), names=("nir",))
    source = opened(a, b)
    assert source.scene.dtype == np.float32
    got, _ = read(source)
    np.testing.assert_array_equal(got[0], random_scene(bands=1, dtype=np.uint8)[0])
    np.testing.assert_array_equal(got[1], random_scene(bands=1, dtype=np.float32)[0])
    c = write_geotiff(tmp_path / "c.tif", random_scene(bands=1, dtype=np.uint32), names=("red",))
    d = write_geotiff(tmp_path / "d.tif", random_scene(bands=1, dtype=np.int16), names=("nir",))
    with pytest.raises(SceneError, match="int16, uint32 do not go together"):
        opened(c, d)


# --- folders and unnamed files -----------------------------------------------------------------


def test_folder_of_single_bands(tmp_path: Path):
    """All rasters of a folder, sorted, named by their sensor's habit; other files are left."""
    image = random_scene(bands=3)
    for plane, code in zip(image, ("B5", "B4", "B6"), strict=True):
        name = f"LC08_L1TP_224078_20200518_20200820_02_T1_{code}.TIF"
        write_geotiff(tmp_path / name, plane[None])
    (tmp_path / "LC08_L1TP_224078_20200518_20200820_02_T1_MTL.txt").write_text("x")
    source = opened(tmp_path)
    assert source.scene.band_names == ("red", "nir", "swir16")
    np.testing.assert_array_equal(read(source)[0], image[[1, 0, 2]])
    one = opened(tmp_path, bands=("swir16",))
    assert len(one.files) == 1


def test_unnamed_planes_are_counted_on(tmp_path: Path):
    """Files of unknown bands over the same ground are planes, over different ground a mosaic."""
    for number in range(3):
        write_geotiff(tmp_path / f"x{number}.tif", random_scene(bands=1, seed=number))
    source = opened(*sorted(tmp_path.glob("x*.tif")))
    assert source.scene.band_names == ("band_1", "band_2", "band_3")
    np.testing.assert_array_equal(read(source)[0][2], random_scene(bands=1, seed=2)[0])
    write_geotiff(tmp_path / "y.tif", random_scene(bands=1), transform=grid(401_100))
    assert opened(tmp_path / "x0.tif", tmp_path / "y.tif").scene.band_names == ("band_1",)


def test_user_names_for_a_mosaic(tmp_path: Path):
    """Names given once hold for each file with that many bands."""
    a = write_geotiff(tmp_path / "a.tif", random_scene(bands=2))
    b = write_geotiff(tmp_path / "b.tif", random_scene(bands=2), transform=grid(401_100))
    source = opened(a, b, band_names=("red", "nir"))
    assert source.scene.band_names == ("red", "nir")
    assert source.scene.shape == (75, 220)
    four = opened(a, b, band_names=("red", "nir", "pan", "swir16"), bands=("swir16",))
    assert four.scene.shape == (75, 110)


def test_the_same_file_twice_is_one(tmp_path: Path):
    """Naming a file twice changes nothing."""
    a = write_geotiff(tmp_path / "a.tif", random_scene())
    shutil.copy(a, tmp_path / "b.txt")
    source = opened(a, tmp_path, a)
    assert source.files == (str(a),)
    assert source.warnings == ()


def test_more_files_than_may_be_open(tmp_path: Path):
    """A mosaic of many files does not run out of handles."""
    from tilemap.stores.mosaic import Handles

    files = [
        write_geotiff(
            tmp_path / f"{n:02}.tif", random_scene((8, 8), 1, n), transform=grid(400_000 + 80 * n)
        )
        for n in range(6)
    ]
    source = opened(*files)
    whole, _ = read(source)

    def held() -> int:
        """Files of the scene that this process has open."""
        links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists())
        return sum(link.startswith(str(tmp_path)) for link in links)

    with source.open() as reader:
        reader._handles = Handles(most=2)
        for _ in range(2):
            got, valid = reader.read(Window(0, 0, 8, 48))
            np.testing.assert_array_equal(got, whole)
        assert held() == 2
    assert held() == 0
    assert valid.all()


def band_files(folder: Path) -> None:
    """A folder of single bands of Sentinel-2."""
    for band in ("B02", "B03", "B04", "B08"):
        write_geotiff(
            folder / f"T18SVG_20230601T155829_{band}_10m.tif", random_scene(bands=1), nodata=0
        )


def complex_file(path: Path) -> None:
    """A raster of complex numbers."""
    write_geotiff(path, np.ones((1, 4, 5), np.complex64))


JUNK = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("see the other folder"),
    "complex": complex_file,
}


def test_hidden_files_are_no_bands(tmp_path: Path) -> None:
    """What macOS and others leave beside files is passed over."""
    band_files(tmp_path)
    for name in ("._T18SVG_20230601T155829_B02_10m.tif", ".T18SVG_20230601T155829_B04_10m.tif"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    source = open_scene(SceneRequest((str(tmp_path),)))
    assert source.scene.band_names == ("blue", "green", "red", "nir")
    assert source.warnings == ()


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("bands", [("red",), None])
def test_a_file_of_no_band_is_left_out_with_a_note(
    tmp_path: Path, kind: str, bands: tuple[str, ...] | None
) -> None:
    """It may lie beside bands that can all be read."""
    band_files(tmp_path)
    JUNK[kind](tmp_path / "preview.tif")
    source = open_scene(SceneRequest((str(tmp_path),), bands=bands))
    assert source.scene.band_names == (bands or ("blue", "green", "red", "nir"))
    assert len(source.warnings) == 1
    assert source.warnings[0].startswith("a file of no wanted band is left out")
    assert "preview.tif" in source.warnings[0]


@pytest.mark.parametrize("kind", JUNK)
def test_a_wanted_band_is_never_left_out(tmp_path: Path, kind: str) -> None:
    """A band that cannot be read ends the run, unless others are wanted."""
    band_files(tmp_path)
    broken = tmp_path / "T18SVG_20230601T155829_B04_10m.tif"
    broken.unlink()
    JUNK[kind](broken)
    for bands in (("red",), ("blue", "red"), None):
        with pytest.raises(SceneError, match="B04_10m"):
            open_scene(SceneRequest((str(tmp_path),), bands=bands))
    assert open_scene(SceneRequest((str(tmp_path),), bands=("blue",))).scene.band_names == ("blue",)


@pytest.mark.parametrize("kind", JUNK)
def test_a_neighbour_is_never_left_out(tmp_path: Path, kind: str) -> None:
    """In a folder of tiles an unreadable file would be a hole in the map."""
    write_geotiff(tmp_path / "west.tif", random_scene(bands=1), names=("red",))
    JUNK[kind](tmp_path / "east.tif")
    with pytest.raises(SceneError, match=r"east\.tif"):
        open_scene(SceneRequest((str(tmp_path),), bands=("red",)))


# --- files of several days ---------------------------------------------------------------------


def two(folder: Path, *names: str) -> list[Path]:
    """Files of the same bands, each a few rows larger than the one before."""
    return [
        write_geotiff(
            folder / name, random_scene((40 + 5 * n, 30), 2, seed=n), names=("red", "nir")
        )
        for n, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("S_20190601.tif", "S_20200601.tif"),
        ("S_2019-06-01.tif", "S_2019-06-03.tif"),
        ("MOD.A2020139.tif", "MOD.A2020155.tif"),
        ("LC08_L2SP_224078_20200518_20200820_02_T1.tif", "LC08_L2SP_224078_20200603_20200820.tif"),
        ("S_20200601.tif", "plain.tif", "S_20190601.tif"),
    ],
)
def test_files_of_different_days_are_no_scene(tmp_path: Path, names: tuple[str, ...]):
    """Files or a folder: refused with both days, unless they are one on purpose."""
    files = two(tmp_path, *names)
    for sources in (files, [tmp_path]):
        with pytest.raises(SceneMismatchError, match=r"one day: .* is of 20.* of 20.*`mosaic`"):
            opened(*sources)
        source = opened(*sources, mosaic=True)
        assert any("files of several days are one scene" in note for note in source.warnings)


@pytest.mark.parametrize("bands", [None, ("red", "nir")])
def test_bands_of_different_days_are_no_scene(tmp_path: Path, bands: tuple[str, ...] | None):
    """Each band from another day is no picture of either; a band that is not wanted is none."""
    files = [
        write_geotiff(tmp_path / name, random_scene(bands=1), names=(band,))
        for name, band in (("A_20190601_a.tif", "red"), ("A_20200601_b.tif", "nir"))
    ]
    with pytest.raises(SceneMismatchError, match=r"of 2019-06-01, .* of 2020-06-01"):
        opened(*files, bands=bands)
    assert opened(*files, bands=("red",)).warnings == ()


def test_an_earlier_scene_of_two_days_is_refused(tmp_path: Path):
    """What lies before is held to the same; that it is of another day than the scene is its use."""
    a, b, c = two(tmp_path, "S_20180601.tif", "S_20190601.tif", "S_20200601.tif")
    opened(c, before=(str(a),))
    with pytest.raises(SceneMismatchError, match=r"of 2018-06-01, .* of 2019-06-01"):
        opened(c, before=(str(a), str(b)))


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (("T31_20230601T235958.tif", "T32_20230602T000012.tif"), 1),
        (("LC08_20200518_20200820.tif", "LC08_20200518_20210101.tif"), 0),
        (("north.tif", "S_20200601.tif"), 0),
        (("1985.tif", "north_2020.tif"), 0),
    ],
)
def test_files_of_one_pass_are_a_scene(tmp_path: Path, names: tuple[str, ...], notes: int):
    """Over midnight with a note; days of processing do not count, nor files that state none."""
    assert len(opened(*two(tmp_path, *names)).warnings) == notes
