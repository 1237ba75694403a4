"""Cut the scene that ships with the package out of the whole one, and prove that no pixel changed.

    python workflows/make_demo_data.py FOLDER_OF_WHOLE_SCENES

The crop lies where fields, forest, towns, lagoon, salt marsh, beach and open sea meet. Its 20 m
pixels nest exactly in its 10 m ones: both files cover the same ground.
"""

from __future__ import annotations

import sys
from pathlib import Path

import rasterio
from rasterio.windows import Window

OUT = Path(__file__).parents[1] / "tilemap" / "data" / "scenes"
WHOLE = "s2_l1c_va_eastern_shore_{}m.tif"
CROP = "va_eastern_shore_{}m.tif"
LEFT, TOP = 440_000, 4_174_660  # metres, UTM zone 18N; on the grids of both resolutions
WIDTH, HEIGHT = 9_360, 8_840  # metres
BANDS = {10: ("B02", "B03", "B04", "B08"), 20: ("B11", "B12")}
SCALE = 0.0001  # reflectance = DN / 10000
TAGS = {"SPACECRAFT_NAME": "Sentinel-2"}  # codes such as B04 mean nothing without it


def crop(source: Path, target: Path, gsd_m: int) -> None:
    """Copy the window's pixels, declare the scale, keep band names and georeferencing."""
    with rasterio.open(source) as whole:
        col, row = (LEFT - whole.transform.c) / gsd_m, (whole.transform.f - TOP) / gsd_m
        if (col, row) != (int(col), int(row)):
            raise SystemExit(f"the corner is not on the {gsd_m} m grid: row {row}, col {col}")
        window = Window(int(col), int(row), WIDTH // gsd_m, HEIGHT // gsd_m)
        names = BANDS[gsd_m]
        pixels = whole.read([whole.descriptions.index(name) + 1 for name in names], window=window)
        profile = {
            "driver": "GTiff",
            "width": window.width,
            "height": window.height,
            "count": len(names),
            "dtype": whole.dtypes[0],
            "crs": whole.crs,
            "transform": whole.window_transform(window),
            "tiled": True,
            "blockxsize": 512,
            "blockysize": 512,
            "interleave": "band",
            "compress": "zstd",
            "zstd_level": 22,
            "predictor": 2,
        }
    target.unlink(missing_ok=True)
    with rasterio.open(target, "w", **profile) as file:
        file.write(pixels)
        file.update_tags(**TAGS)
        file.descriptions = names
        file.scales = (SCALE,) * len(names)
        file.offsets = (0.0,) * len(names)


def verify(source: Path, target: Path) -> None:
    """Read both by world coordinates and compare every pixel."""
    with rasterio.open(source) as whole, rasterio.open(target) as part:
        window = rasterio.windows.from_bounds(*part.bounds, transform=whole.transform)
        indexes = [whole.descriptions.index(name) + 1 for name in part.descriptions]
        same = (whole.read(indexes, window=window) == part.read()).all()
        if not same or part.crs != whole.crs or part.scales != (SCALE,) * part.count:
            raise SystemExit(f"{target} differs from {source}")
        print(f"{target.name}: {part.shape}, {part.descriptions}, {tuple(part.bounds)},")
        print(f"  equal to the original at every pixel, {target.stat().st_size:,} bytes")


def main(folder: Path) -> None:
    """Both resolutions."""
    OUT.mkdir(parents=True, exist_ok=True)
    for gsd_m in BANDS:
        source, target = folder / WHOLE.format(gsd_m), OUT / CROP.format(gsd_m)
        crop(source, target, gsd_m)
        verify(source, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
