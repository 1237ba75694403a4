"""Interpolation and averages against GDAL's warper and plain block means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.warp import reproject

from tilemap.stores.grids import gdal_crs
from tilemap.stores.resample import average_taps, bilinear_taps, resample
from tilemap.testing import random_scene


def run(
    image: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    steps: tuple[float, float],
    origin: tuple[float, float],
    window: tuple[int, int, int, int],
    average: bool = False,
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """Resample part of a source that is surrounded by what is not valid."""
    make = average_taps if average else bilinear_taps
    top, left, bottom, right = window
    rows, cols = make(steps[0], origin[0], top, bottom), make(steps[1], origin[1], left, right)
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    part = np.zeros((image.shape[0], *shape), image.dtype)
    seen = np.zeros(shape, np.bool_)
    r, c = (
        np.arange(n)[max(taps.start, 0) : max(taps.stop, 0)]
        for n, taps in zip(image.shape[1:], (rows, cols), strict=True)
    )
    there = np.ix_(r - rows.start, c - cols.start)
    seen[there] = valid[np.ix_(r, c)]
    part[:, there[0], there[1]] = np.where(seen[there], image[:, r[:, None], c[None]], 0)
    return resample(part, seen, rows, cols, 0.5 if average else None)


def warped(
    image: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    affine: Affine,
    shape: tuple[int, int],
    method: Resampling,
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """The same by GDAL: values, and where it wrote any."""
    source = np.concatenate([image, valid[None].astype(image.dtype)])
    source[:, ~valid] = 0
    target = np.zeros((source.shape[0], *shape), image.dtype)
    number = source.shape[0]
    with rasterio.Env():
        reproject(
            source,
            target,
            src_transform=Affine.identity(),
            src_crs=gdal_crs(None),
            dst_transform=affine,
            dst_crs=gdal_crs(None),
            resampling=method,
            src_alpha=number,
            dst_alpha=number,
            SRC_ALPHA_MAX="1",
            DST_ALPHA_MAX="1",
            tolerance=0,
        )
    return target[:-1], target[-1] > 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize(
    ("steps", "origin"),
    [((0.5, 0.5), (0, 1)), ((0.3, 0.7), (-1.2, 2.1)), ((-0.5, 0.25), (40, -3)), ((1, 1), (0.5, 0))],
)
def test_bilinear_is_gdals(dtype: str, steps: tuple, origin: tuple):
    """The same values and the same valid pixels as GDAL's bilinear warp, gaps included."""
    image = random_scene((41, 57), dtype=dtype)
    valid = np.random.default_rng(3).random((41, 57)) > 0.1
    valid[5:12, 20:30] = False
    got, seen = run(image, valid, steps, origin, (0, 0, 70, 90))
    affine = Affine(steps[1], 0, origin[1], 0, steps[0], origin[0])
    want, there = warped(image, valid, affine, (70, 90), Resampling.bilinear)
    np.testing.assert_array_equal(seen, there)
    assert seen.any()
    assert not seen.all()
    kind = np.dtype(dtype).kind
    # a value halfway between two integers may round either way
    np.testing.assert_allclose(
        got[:, seen].astype(float), want[:, seen].astype(float), rtol=1e-5, atol=int(kind != "f")
    )
    if kind != "f":
        assert (got[:, seen] != want[:, seen]).mean() < 0.01
    assert not got[:, ~seen].any()


@pytest.mark.parametrize("steps", [(3, 3), (1.5, 2.25), (-2, 7.3)])
def test_average_is_gdals(steps: tuple[float, float]):
    """The same area-weighted means as GDAL's, where whole pixels of the source are valid."""
    image = random_scene((63, 81), dtype=np.float32)
    valid = np.ones((63, 81), np.bool_)
    origin = (63.0 if steps[0] < 0 else 0.0, 0.0)
    shape = (int(63 / abs(steps[0])), int(81 / steps[1]))
    got, seen = run(image, valid, steps, origin, (0, 0, *shape), average=True)
    affine = Affine(steps[1], 0, origin[1], 0, steps[0], origin[0])
    want, _ = warped(image, valid, affine, shape, Resampling.average)
    assert seen.all()
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_average_of_blocks_is_their_mean():
    """Whole ratios give the plain mean of each block, rounded half up."""
    image = random_scene((66, 84))
    got, seen = run(image, np.ones((66, 84), bool), (6, 6), (0, 0), (0, 0, 11, 14), average=True)
    means = image.reshape(3, 11, 6, 14, 6).astype(np.float64).mean(axis=(2, 4))
    np.testing.assert_array_equal(got, np.floor(means + 0.5))
    assert seen.all()


def test_average_needs_half_its_area():
    """A mean of less than half of a pixel is not valid; gaps weigh nothing in the others."""
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    valid = np.ones((4, 4), np.bool_)
    valid[0, :2] = False
    valid[2, 2:] = valid[3, 2] = False
    got, seen = run(image, valid, (2, 2), (0, 0), (0, 0, 2, 2), average=True)
    np.testing.assert_array_equal(seen, [[True, True], [True, False]])
    np.testing.assert_array_equal(got[0], [[4.5, 4.5], [10.5, 0]])


def test_extremes_of_integers_survive():
    """The largest and smallest numbers of a type come out as they went in."""
    for dtype in ("uint8", "int8", "uint16", "int16", "int32", "uint32"):
        limits = np.iinfo(dtype)
        for value in (limits.min, limits.max):
            image = np.full((1, 9, 9), value, dtype)
            got, _ = run(image, np.ones((9, 9), bool), (0.37, 0.53), (2, 3), (0, 0, 8, 8))
            assert (got == value).all()


@given(
    step=st.tuples(*[st.floats(0.05, 6) | st.sampled_from([0.5, 3.0, -1.5])] * 2),
    origin=st.tuples(*[st.floats(-20, 20)] * 2),
    window=st.tuples(*[st.integers(0, 30)] * 4),
    dtype=st.sampled_from(["uint16", "float32"]),
    average=st.booleans(),
    gaps=st.floats(0, 0.6),
)
def test_cut_does_not_matter(
    step: tuple[float, float],
    origin: tuple[float, float],
    window: tuple[int, int, int, int],
    dtype: str,
    average: bool,
    gaps: float,
):
    """A window has the same bytes as the whole, gaps inside or outside of it."""
    image = random_scene((23, 31), bands=1, dtype=dtype) * (-1 if dtype == "float32" else 1)
    valid = np.random.default_rng(5).random((23, 31)) >= gaps
    top, left, height, width = window
    if not height or not width:
        return
    whole, seen = run(image, valid, step, origin, (0, 0, 60, 60), average)
    part, here = run(image, valid, step, origin, (top, left, top + height, left + width), average)
    index = (slice(top, top + height), slice(left, left + width))
    np.testing.assert_array_equal(here, seen[index])
    assert part.tobytes() == whole[:, *index].tobytes()
