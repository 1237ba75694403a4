"""Two scenes of one place read as one: names, order, grids, gaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from tilemap.errors import SceneError, SceneMismatchError
from tilemap.geometry import Window
from tilemap.scene import SceneRequest
from tilemap.stores.geotiff import open_scene
from tilemap.testing import random_scene, write_geotiff

NAMES = ("red", "nir")
WHOLE = Window(0, 0, 75, 110)


@pytest.fixture
def request_(tmp_path: Path) -> SceneRequest:
    """The later scene has a gap; the earlier one another."""
    for seed, name in enumerate(("early", "late")):
        scene = random_scene((75, 110), 2, seed)
        scene[:, 10 * (seed + 1), 5:9] = 0
        write_geotiff(tmp_path / f"{name}.tif", scene, names=NAMES, scale=1e-4, nodata=0)
    return SceneRequest((str(tmp_path / "late.tif"),), before=(str(tmp_path / "early.tif"),))


def test_bands_of_both_dates(request_: SceneRequest) -> None:
    """The earlier ones first; valid where both were observed; both files in the fingerprint."""
    source = open_scene(request_)
    assert source.scene.band_names == ("before_red", "before_nir", "after_red", "after_nir")
    with source.open() as reader:
        image, valid = reader.read(WHOLE)
    want = np.concatenate([random_scene((75, 110), 2, 0), random_scene((75, 110), 2, 1)])
    assert np.array_equal(image[:, valid], want[:, valid])
    assert not valid[10, 5:9].any()
    assert not valid[20, 5:9].any()
    assert np.count_nonzero(~valid) == 8
    assert [file.name for file in source.inputs().files] == ["early.tif", "late.tif"]


def test_the_model_says_which_and_in_what_order(request_: SceneRequest) -> None:
    """Any order, any part."""
    names = ("after_nir", "before_red", "after_red", "before_nir")
    both = open_scene(request_)
    mixed = open_scene(replace(request_, bands=names))
    with both.open() as one, mixed.open() as two:
        want, got = one.read(WHOLE)[0], two.read(WHOLE)[0]
    assert np.array_equal(got, want[[3, 0, 2, 1]])


def test_the_earlier_scene_comes_onto_the_grid_of_the_later(
    request_: SceneRequest, tmp_path: Path
) -> None:
    """Half the resolution and another corner."""
    place = Affine(20, 0, 399_990, 0, -20, 4_100_020)
    constant = np.full((2, 40, 60), 1234, np.uint16)
    path = write_geotiff(
        tmp_path / "coarse.tif", constant, names=NAMES, scale=1e-4, transform=place
    )
    source = open_scene(replace(request_, before=(str(path),)))
    assert source.scene.shape == (75, 110)
    with source.open() as reader:
        image, valid = reader.read(WHOLE)
    assert (image[:2, valid] == 1234).all()


def test_what_cannot_be_a_pair(request_: SceneRequest, tmp_path: Path) -> None:
    """A model of one date; a band that is not there; scenes that do not meet."""
    with pytest.raises(SceneError, match="leave out `before`"):
        open_scene(replace(request_, bands=("red", "nir")))
    with pytest.raises(SceneError, match="lacks swir16"):
        open_scene(replace(request_, bands=("before_red", "after_swir16")))
    far = write_geotiff(
        tmp_path / "far.tif", random_scene((20, 20), 2), names=NAMES,
        transform=Affine(10, 0, 9e5, 0, -10, 4_100_000),
    )  # fmt: skip
    with pytest.raises(SceneMismatchError, match="no pixel in common"):
        open_scene(replace(request_, before=(str(far),)))
