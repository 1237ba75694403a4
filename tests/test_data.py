"""The scene that ships with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import from_bounds

import tilemap

FOLDER = Path(tilemap.__file__).parent / "data"
SCENES = {gsd_m: FOLDER / "scenes" / f"va_eastern_shore_{gsd_m}m.tif" for gsd_m in (10, 20)}


def test_shipped_scene_needs_no_flag() -> None:
    """Bands are named, the scale to reflectance is declared, both files cover the same ground."""
    with rasterio.open(SCENES[10]) as fine, rasterio.open(SCENES[20]) as coarse:
        assert fine.descriptions == ("B02", "B03", "B04", "B08")
        assert coarse.descriptions == ("B11", "B12")
        assert fine.bounds == coarse.bounds
        assert fine.shape == (2 * coarse.shape[0], 2 * coarse.shape[1])
        assert fine.crs == coarse.crs
        assert fine.crs.to_epsg() == 32618
        for file in (fine, coarse):
            assert set(file.scales) == {0.0001}
            assert set(file.offsets) == {0.0}
            reflectance = file.read() * file.scales[0]
            assert 0 < reflectance.min() < reflectance.max() < 1


def test_shipped_pixels_are_those_of_the_whole_scene(data: Path) -> None:
    """Every pixel equals the original at the same place on Earth."""
    for gsd_m, path in SCENES.items():
        whole_path = data / "scenes" / f"s2_l1c_va_eastern_shore_{gsd_m}m.tif"
        with rasterio.open(whole_path) as whole, rasterio.open(path) as part:
            window = from_bounds(*part.bounds, transform=whole.transform)
            indexes = [whole.descriptions.index(name) + 1 for name in part.descriptions]
            assert np.array_equal(whole.read(indexes, window=window), part.read())


def test_what_ships_is_small_and_named_in_the_notice() -> None:
    """At most 10 MB, and each scene and each model's weights are told in NOTICE."""
    files = [
        path
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name != "NOTICE" and path.suffix not in {".json", ".py", ".pyc"}
    ]
    assert sum(path.stat().st_size for path in files) <= 10_000_000
    notice = (FOLDER / "NOTICE").read_text()
    for path in files:
        told = (path.name, path.parent.relative_to(FOLDER).as_posix() + "/")
        assert any(name in notice for name in told), path
