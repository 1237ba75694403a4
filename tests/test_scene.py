"""Scenes described without files, and what a user may ask for."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.scene import Band, Scene, SceneRequest, check_same_grid


def scene(geobox: GeoBox, *dtypes: str) -> Scene:
    """A scene of such bands."""
    bands = tuple(Band(f"band_{i}", dtype) for i, dtype in enumerate(dtypes or ("uint8",)))
    return Scene(geobox, bands, "toy")


GRID = GeoBox((30, 40), Affine(10, 0, 400_000, 0, -10, 4_000_000), "EPSG:32618")


def test_dtype_holds_every_band():
    """Mixed types are promoted without loss."""
    assert scene(GRID, "uint8", "int16").dtype == np.int16
    assert scene(GRID, "uint16", "float32").dtype == np.float32
    assert scene(GRID, "uint32", "float32").dtype == np.float64


def test_shape_names_scaling():
    """A scene tells rows before columns, its bands' names and their scaling."""
    bands = (Band("red", "uint16", scale=1e-4, offset=-0.1, scaled=True), Band("nir", "uint16"))
    one = Scene(GRID, bands, "toy")
    assert one.shape == (30, 40)
    assert one.band_names == ("red", "nir")
    scale, offset = one.scaling()
    np.testing.assert_array_equal(scale, np.float32([1e-4, 1]))
    np.testing.assert_array_equal(offset, np.float32([-0.1, 0]))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (GeoBox((30, 40), GRID.affine, "EPSG:32619"), "CRS"),
        (GeoBox((30, 40), GRID.affine, None), "CRS"),
        (GeoBox((40, 30), GRID.affine, "EPSG:32618"), "shape"),
        (GeoBox((30, 40), Affine(10, 0, 400_001, 0, -10, 4_000_000), "EPSG:32618"), "geotransf"),
    ],
)
def test_check_same_grid_names_the_difference(other: GeoBox, what: str):
    """The first thing that differs is named, and what to do about it."""
    check_same_grid(scene(GRID), scene(GRID))
    with pytest.raises(SceneMismatchError, match=f"differ in {what}.*`like`"):
        check_same_grid(scene(GRID), scene(other))


def test_request_survives_json():
    """What was asked for can be saved and taken up again."""
    request = SceneRequest(("a.tif", "b.tif"), bands=("red", "nir"), nodata=0, scale=1e-4)
    saved = json.loads(json.dumps(dataclasses.asdict(request)))
    assert SceneRequest(**saved) == request


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": ()}, "at least one source"),
        ({"sources": "a.tif"}, "sources must be a list"),
        ({"sources": ("a",), "bands": "red"}, "bands must be a list"),
        ({"sources": ("a",), "bands": ("red", "red")}, "must differ, got red, red"),
        ({"sources": ("a",), "like": "b", "resolution": 3.0}, "not from both"),
        ({"sources": ("a",), "resolution": -3.0}, "above 0.*got -3"),
        ({"sources": ("a",), "resolution": float("nan")}, "above 0"),
        ({"sources": ("a",), "scale": 0.0}, "other than 0"),
        ({"sources": ("a",), "offset": float("inf")}, "offset must be a number"),
    ],
)
def test_request_refuses_what_cannot_hold(arguments: dict, message: str):
    """A contradiction shows where it was made."""
    with pytest.raises(SceneError, match=message):
        SceneRequest(**arguments)
