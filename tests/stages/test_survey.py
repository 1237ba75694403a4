"""The survey: observed pixels in the card's units, and no more of a scene than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from tilemap.errors import SceneError
from tilemap.geometry import Window
from tilemap.scene import SceneRequest
from tilemap.stages.survey import SIDE, WINDOWS, ground_pixel_m, survey
from tilemap.stores.geotiff import SceneSource, open_scene
from tilemap.testing import random_scene, toy_card, write_geotiff

CARD = toy_card()


def _source(
    path: Path, image: np.ndarray, asked: Mapping[str, float] | None = None, **profile: object
) -> SceneSource:
    write_geotiff(path, image, names=CARD.bands, **profile)  # type: ignore[arg-type]
    return open_scene(SceneRequest((str(path),), bands=CARD.bands, **(asked or {})))


def test_pixels_come_in_the_units_of_the_card(tmp_path: Path) -> None:
    """Reflectance, or the numbers as they are; every pixel is one of the scene's."""
    image = random_scene((90, 130))
    source = _source(tmp_path / "s.tif", image, {"scale": 1e-4, "offset": -0.1})
    with source.open() as reader:
        physical = survey(reader, CARD)
        stored = survey(reader, CARD.model_copy(update={"units": "stored"}))
    assert physical.dtype == stored.dtype == np.float32
    np.testing.assert_allclose(physical, stored * 1e-4 - 0.1, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stored, image[:, ::2, ::2].reshape(3, -1))


def test_what_was_not_observed_is_left_out(tmp_path: Path) -> None:
    """Nodata and NaN; a scene of nothing else gives nothing."""
    image = random_scene((90, 130), dtype=np.float32)
    image[:, :, 60:] = -1
    image[1, 10, 10] = np.nan
    with _source(tmp_path / "s.tif", image, nodata=-1).open() as reader:
        pixels = survey(reader, CARD)
    assert pixels.shape == (3, 45 * 30 - 1)
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    with _source(tmp_path / "n.tif", np.full_like(image, -1), nodata=-1).open() as reader:
        assert survey(reader, CARD).shape == (3, 0)


def test_reading_does_not_grow_with_the_scene() -> None:
    """Sixteen windows of a scene of any size, each inside it, none twice."""

    class Reader:
        def __init__(self, shape: tuple[int, int]) -> None:
            from odc.geo.geobox import GeoBox

            from tilemap.scene import Band, Scene

            geobox = GeoBox(shape, Affine(10, 0, 0, 0, -10, 0), "EPSG:32618")
            self.scene = Scene(geobox, (Band("red", "float32"),) * 3, "memory")
            self.seen: list[Window] = []

        def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
            assert Window(0, 0, *self.scene.shape).contains(window)
            self.seen.append(window)
            if len(self.seen) == 3:
                raise SceneError("a block is damaged")
            return np.ones((3, *window.shape), np.float32), np.ones(window.shape, np.bool_)

    reader = Reader((100_000, 60_000))
    pixels = survey(reader, CARD)
    assert len(reader.seen) == len(set(reader.seen)) == WINDOWS
    assert pixels.shape == (3, (WINDOWS - 1) * (SIDE // 2) ** 2)  # without the damaged one
    small = Reader((100, 300))
    survey(small, CARD)
    assert len(small.seen) <= 4
    assert all(window.height == 100 for window in small.seen)


@pytest.mark.parametrize(
    ("crs", "pixel", "origin", "metres"),
    [
        ("EPSG:32618", 10.0, (400_000, 4_100_000), 10.0),
        ("EPSG:3857", 20.0, (0, 8_399_738), 10.0),  # at 60 degrees north
        ("EPSG:4326", 1e-4, (9.0, 0.005), 11.1),
    ],
)
def test_pixels_are_measured_on_the_ground(
    tmp_path: Path, crs: str, pixel: float, origin: tuple[float, float], metres: float
) -> None:
    """Whatever the projection makes of them."""
    transform = Affine(pixel, 0, origin[0], 0, -pixel, origin[1])
    image = random_scene((40, 50))
    source = _source(tmp_path / "s.tif", image, crs=crs, transform=transform, scale=1e-4)
    assert ground_pixel_m(source.scene) == pytest.approx(metres, rel=0.01)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_plain_image_has_no_ground(tmp_path: Path) -> None:
    """Without a CRS a pixel is of no size."""
    source = _source(tmp_path / "s.tif", random_scene((40, 50)), crs=None, scale=1e-4)
    assert ground_pixel_m(source.scene) is None
