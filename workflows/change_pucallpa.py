"""Thirty-five years of Pucallpa: weak labels, a small model, eight maps, what changed.

    python workflows/change_pucallpa.py DATA

DATA holds the Landsat images as ``change/pucallpa_landsat/1985.tif`` to ``2020.tif`` (bands SWIR1,
nir, red, green). Nobody has labelled them, so rules do: water by an index of green and near
infrared, bare ground by sparse vegetation, the town as the largest dense patch of it. A small U-Net
learns these WEAK labels from all dates together, maps each, and ``tilemap.change`` compares them.
Run again after any interruption, it continues.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.features import shapes
from scipy import ndimage

import tilemap
from tilemap.cli.change import summary
from tilemap.cli.progress import ConsoleProgress, ConsoleTraining
from tilemap.errors import ConfigError, TilemapError
from tilemap.geometry import Window
from tilemap.training.split import Part, Split, assign_blocks, block_counts, part_of_window

CONFIG = Path(__file__).with_name("configs") / "pucallpa_weak.toml"
SCENES = Path("data/change/pucallpa_landsat")  # DATA is linked as data
YEARS = range(1985, 2021, 5)
BANDS = ("swir16", "nir", "red", "green")
WATER, VEGETATION, BARE, TOWN, NONE = 1, 2, 3, 4, 255
SPLIT = Split(block=48, validation=0.15, test=0.15, seed=2)
OUT = Path("pucallpa")
RATE = "fit"  # share of pixels that change class in a year: what explains the eight maps best
TAU = 0.7  # of the evidence counts: a model of weak labels is surer of them than they deserve
MMU_HA = 5.0  # smaller regions of change are mapped as none
THREADS = None  # of the CPU while it learns; None for one per core
WORKERS = None  # that map and compare

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def main(data: Path) -> int:
    """Label, train, map every date, compare them, print the figures."""
    config = place(data)
    model = tilemap.train(config, OUT / "training", progress=ConsoleTraining(), threads=THREADS)
    for year in YEARS:
        tilemap.segment(
            OUT / SCENES / f"{year}.tif", model=model.model, out=OUT / str(year), bands=BANDS,
            probabilities=True, workers=WORKERS, progress=ConsoleProgress(),
        )  # fmt: skip
    dates = [f"{year}-07-01" for year in YEARS]
    results = {
        method: tilemap.change(
            [OUT / str(year) for year in YEARS], out=OUT / method, dates=dates, method=method,
            rate=RATE, tau=TAU, mmu_ha=MMU_HA, workers=WORKERS, progress=ConsoleProgress(),
        )
        for method in ("pcc", "hmm")
    }  # fmt: skip
    print("\n".join(summary(results["hmm"])))
    print("\n".join(compared(*(read_labels(OUT / method, dates) for method in results))))
    return max(result.exit_code for result in results.values())


# --- figures -------------------------------------------------------------------------------------


def read_labels(folder: Path, dates: list[str]) -> Bytes:
    """Class of every date, uint8 (date, y, x), 255 where there is none."""
    planes = []
    for day in dates:
        with rasterio.open(folder / f"labels_{day}.tif") as file:
            planes.append(file.read(1))
    return np.stack(planes)


def compared(alone: Bytes, smoothed: Bytes) -> list[str]:
    """What memory does away with, and what it leaves.

    Args:
        alone: class of every date by itself, uint8 (date, y, x).
        smoothed: the same, each seen with the dates around it.
    """
    back, less = flickers(alone).mean(), flickers(smoothed).mean()
    river, still = water_moved(alone), water_moved(smoothed)
    kept = f"{(still == river)[river != 0].mean():.1%}" if river.any() else "nothing"
    first, last = ((smoothed[date] == TOWN).mean() for date in (0, -1))
    fewer = f"{back / less:.1f} times fewer" if less else "none"
    return [
        f"pixels that change and come back: {back:.2%} date by date, {less:.2%} together, {fewer}",
        f"water that came or went for good: {(river != 0).mean():.2%}, {kept} of it kept",
        f"town: {first:.2%} of the scene at the first date, {last:.2%} at the last",
    ]


def flickers(labels: Bytes) -> Mask:
    """Where a class is left and comes back, (y, x).

    Args:
        labels: class of every date, uint8 (date, y, x).
    """
    back = np.zeros(labels.shape[1:], dtype=np.bool_)
    for first in range(len(labels)):
        left = np.zeros_like(back)
        for later in labels[first + 1 :]:
            back |= left & (later == labels[first]) & (later != NONE)
            left |= (later != labels[first]) & (later != NONE)
    return back


def water_moved(labels: Bytes) -> npt.NDArray[np.int8]:
    """1 where water came and -1 where it went once, with two dates or more on either side; else 0.

    Args:
        labels: class of every date, uint8 (date, y, x).
    """
    water = (labels == WATER).astype(np.int8)
    steps = np.diff(water, axis=0)
    settled = (np.abs(steps).sum(axis=0) == 1) & (steps[[0, -1]] == 0).all(axis=0)
    observed = (labels != NONE).all(axis=0)
    return np.where(settled & observed, water[-1] - water[0], 0).astype(np.int8)


# --- weak labels ---------------------------------------------------------------------------------


def ratio(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Normalised difference of two bands, -1..1."""
    return (one - two) / np.maximum(one + two, 1)


def weak_labels(image: Bytes) -> Bytes:
    """Classes of an image by rules; 0 where nothing was observed.

    Args:
        image: stored numbers, uint8 (band, y, x), bands as in ``BANDS``.
    """
    swir, nir, red, green = image.astype(np.float64)
    greenness, wetness = ratio(nir, red), ratio(green, nir)
    # shallow or muddy water is bright in the near infrared, but never in the short-wave infrared
    water = (wetness > -0.1) | ((wetness > -0.4) & (green > swir))
    labels = np.full(water.shape, VEGETATION, np.uint8)
    labels[greenness < 0.55] = BARE
    labels[town((greenness < 0.5) & ~water, water)] = TOWN
    labels[water] = WATER
    labels[(image == 0).all(axis=0)] = 0
    return labels


def town(sparse: Mask, water: Mask) -> Mask:
    """The largest patch where most of 9 x 9 pixels are sparse; sand bars lie at water, it does not.

    Args:
        sparse: little vegetation, (y, x).
        water: (y, x).
    """
    dense = ndimage.uniform_filter(sparse.astype(np.float64), 9) > 0.6
    inland = ndimage.uniform_filter(water.astype(np.float64), 25) <= 0.12
    numbers, count = ndimage.label(dense & inland)
    if count == 0:
        return np.zeros_like(dense)
    largest = numbers == np.bincount(numbers.ravel())[1:].argmax() + 1
    grown: Mask = ndimage.binary_dilation(largest, iterations=12, mask=dense)  # back to the shore
    return grown


def place(data: Path) -> Path:
    """Everything the training reads, in OUT: a link to the data, labels, blocks, configuration."""
    folder = data / SCENES.relative_to("data")
    if not folder.is_dir():
        raise ConfigError(f"the images must be in {folder}, there is no such folder")
    weak = OUT / "weak"
    weak.mkdir(parents=True, exist_ok=True)
    link = OUT / "data"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(data.resolve(), target_is_directory=True)
    ever = np.zeros((), dtype=bool)
    for year in YEARS:
        with rasterio.open(OUT / SCENES / f"{year}.tif") as file:
            labels = weak_labels(file.read())
            profile = {"crs": file.crs, "transform": file.transform}
        write_raster(weak / f"{year}.tif", labels, profile)
        ever = ever | (labels == TOWN)
    write_blocks(weak / "blocks.geojson", ever, profile)
    return Path(shutil.copy(CONFIG, OUT / CONFIG.name))


def write_raster(path: Path, labels: Bytes, profile: dict[str, object]) -> None:
    """A label raster; 0 is not learned from."""
    rows, cols = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=rows, width=cols, count=1, dtype="uint8", nodata=0,
        compress="deflate", **profile,
    ) as file:  # fmt: skip
        file.write(labels, 1)


def write_blocks(path: Path, town: Mask, profile: dict[str, object]) -> None:
    """Blocks to train on and to hold out, the same at all dates, in strata of the town."""
    parts = assign_blocks(block_counts(town, SPLIT.block) + 1, SPLIT)
    of_pixel = part_of_window(parts, SPLIT.block, Window(0, 0, *town.shape))
    features = [
        {
            "type": "Feature",
            "properties": {"part": Part(int(value)).name.lower()},
            "geometry": shape,
        }
        for shape, value in shapes(of_pixel, transform=profile["transform"])
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


if __name__ == "__main__":  # workers import this file again
    try:
        sys.exit(main(Path(sys.argv[1])))
    except IndexError:
        sys.exit(__doc__)
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
