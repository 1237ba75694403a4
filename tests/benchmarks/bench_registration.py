"""How well a shift is found, and what it costs where it is not corrected, on a real scene.

Shifts the Virginia scene by known parts of a pixel, by Fourier phase and by cubic splines, and
maps each with the default model. Prints, per shift, the error of the shift found from the bands
and from the probabilities alone, and the share of pixels whose label changed beside s * E (E:
share of differing pairs of 4-neighbours), as it is and moved back; then the same for a map moved
by bilinear resampling. Nothing is asserted: figures are to read.

    TILEMAP_DATA=... python tests/benchmarks/bench_registration.py

Without TILEMAP_DATA it takes the part of the scene that ships with tilemap.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tilemap import api
from tilemap.comparison.registration import BlockShift, Shift, block_shift, move, robust_shift
from tilemap.models import registry
from tilemap.probability import quantise, shares

TRUE_PX = (0.0, 0.1, 0.3, 0.5, 1.0)
BLOCK = 256
EDGE = 64
FloatArray = npt.NDArray[Any]


def scene_files() -> tuple[Path, Path]:
    """The 10 m and the 20 m bands."""
    folder = os.environ.get("TILEMAP_DATA")
    if folder:
        scenes = Path(folder) / "scenes"
        return (
            scenes / "s2_l1c_va_eastern_shore_10m.tif",
            scenes / "s2_l1c_va_eastern_shore_20m.tif",
        )
    ten, twenty = api.demo_scene()
    return ten, twenty


def read_scene() -> FloatArray:
    """Blue, green, red, nir, swir16, swir22 at 10 m, reflectance, float32 (band, y, x)."""
    import rasterio
    from rasterio.warp import Resampling, reproject

    ten, twenty = scene_files()
    with rasterio.open(ten) as file:
        fine, transform, crs = file.read().astype(np.float32), file.transform, file.crs
    swir = np.zeros((2, *fine.shape[1:]), dtype=np.float32)
    with rasterio.open(twenty) as file:
        for plane, name in zip(swir, ("B11", "B12"), strict=True):
            band = rasterio.band(file, file.descriptions.index(name) + 1)
            reproject(
                band, plane, dst_transform=transform, dst_crs=crs, resampling=Resampling.cubic
            )
    return np.concatenate([fine, swir]) / np.float32(1e4)


def by_fourier(image: FloatArray, row: float, col: float) -> FloatArray:
    """Shift by the phase of the spectrum."""
    padded = np.pad(image, ((0, 0), (EDGE, EDGE), (EDGE, EDGE)), mode="reflect")
    rows, cols = np.fft.fftfreq(padded.shape[1])[:, None], np.fft.rfftfreq(padded.shape[2])
    turn = np.exp(-2j * np.pi * (rows * row + cols * col))
    shifted = [np.fft.irfft2(np.fft.rfft2(band) * turn, s=band.shape) for band in padded]
    return np.stack(shifted)[:, EDGE:-EDGE, EDGE:-EDGE].astype(np.float32)


def by_spline(image: FloatArray, row: float, col: float) -> FloatArray:
    """Shift by cubic splines."""
    return np.stack([ndimage.shift(band, (row, col), order=3, mode="mirror") for band in image])


def shift_of(reference: FloatArray, moving: FloatArray) -> tuple[Shift | None, float]:
    """Shift over all blocks, and milliseconds a block."""
    valid = np.ones((BLOCK, BLOCK), dtype=bool)
    found: list[BlockShift | None] = []
    started = time.perf_counter()
    for top in range(0, reference.shape[1] - BLOCK + 1, BLOCK):
        for left in range(0, reference.shape[2] - BLOCK + 1, BLOCK):
            block = np.s_[:, top : top + BLOCK, left : left + BLOCK]
            found.append(block_shift(reference[block], moving[block], valid))
    spent = (time.perf_counter() - started) * 1e3 / max(len(found), 1)
    return robust_shift([block for block in found if block is not None]), spent


def error_of(shift: Shift | None, true: tuple[float, float]) -> str:
    """For the table."""
    if shift is None:
        return "   none"
    off = float(np.hypot(shift.row - true[0], shift.col - true[1]))
    return f"{off:7.4f} (spread {shift.spread:.3f}, {shift.blocks} blocks)"


def edges_of(labels: npt.NDArray[np.integer]) -> tuple[float, float]:
    """Shares of differing pairs of neighbours, one below the other and side by side."""
    return (
        float((labels[1:] != labels[:-1]).mean()),
        float((labels[:, 1:] != labels[:, :-1]).mean()),
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    scene = read_scene()
    model = registry.load(registry.resolve("tilemap-demo-5class"), threads=threads)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.card.mean, model.card.std))
    stride = model.card.stride
    extent = [(n - 2 * EDGE) // stride * stride for n in scene.shape[1:]]
    inner = np.s_[:, EDGE : EDGE + extent[0], EDGE : EDGE + extent[1]]

    def quantised(image: FloatArray) -> npt.NDArray[np.uint8]:
        return quantise(model.predict((image[inner] - mean) / std))

    first = quantised(scene)
    labels = first.argmax(axis=0)
    down, right = edges_of(labels)
    print(
        f"{scene_files()[0].name}: {extent[0]} x {extent[1]} pixels, E = {(down + right) / 2:.4f}"
    )
    for name, resample in (("fourier", by_fourier), ("spline", by_spline)):
        for px in TRUE_PX:
            for true in dict.fromkeys([(px, 0.0), (0.0, px), (px, -0.7 * px)]):
                shifted = resample(scene, *true) if px else scene
                second = quantised(shifted)
                bands, cost = shift_of(scene[inner], shifted[inner])
                maps, _ = shift_of(shares(first), shares(second))
                print(f"{name} {true[0]:4.1f} {true[1]:5.2f}  {cost:3.0f} ms a block")
                print(f"    error, px: bands {error_of(bands, true)}; maps {error_of(maps, true)}")
                changed = (second.argmax(axis=0) != labels).mean()
                expected = abs(true[0]) * down + abs(true[1]) * right
                back = move(second, *np.clip((maps.row, maps.col), -1, 1)) if maps else None
                left = 0.0 if back is None else (back.argmax(axis=0) != labels[1:-1, 1:-1]).mean()
                print(
                    f"    false change {changed:.4f}, s * E {expected:.4f}; moved back {left:.4f}"
                )
    print("the map itself, moved by bilinear resampling")
    for px in TRUE_PX[1:]:
        pair = [move(first, *by).argmax(axis=0) for by in ((px, 0.0), (0.0, px))]
        changed = float(np.mean([(moved != labels[1:-1, 1:-1]).mean() for moved in pair]))
        expected = px * (down + right) / 2
        print(f"    {px:.1f} px: {changed:.4f}, s * E {expected:.4f}, {changed / expected:.2f}")


if __name__ == "__main__":
    main()
