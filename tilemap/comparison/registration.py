"""How far one date lies off another, and moving it back.

The shift of a block is that of the phase of its cross spectrum, a plane through the origin
(Foroosh, Zerubia and Berthod 2002, IEEE Transactions on Image Processing 11(3), 188-200). The
plane is fitted where the signal is good, as Stone, Orchard, Chang and Martucci do (2001, IEEE
Transactions on Geoscience and Remote Sensing 39(10), 2235-2243): low frequencies only, where
neither aliasing nor the kernel of a resampler bends the phase; weighted by the energy of the
gradients, so that broad brightness under the window, which does not move with the scene, counts
little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from tilemap.errors import GridError, SceneMismatchError
from tilemap.probability import NODATA, quantise, shares

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]
Verdict = Literal["ok", "shift", "accepted"]
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

IGNORED_PX = 0.2
"""Up to here a date is compared as it is."""
MOVED_PX = 0.5
"""Up to here a date is moved to fit; beyond it is refused."""

_HIGHEST = 0.25  # cycles per pixel, half of what a grid can hold
_TAPER_PX = 8  # how fast the window falls towards pixels that were not observed
_LEAST_OBSERVED = 0.25  # share of the window
_LEAST_QUALITY = 0.15
_NOISE_QUALITY = 6.0  # unrelated noise reaches 3 to 6.5 / sqrt(frequencies), measured
_LEAST_ACROSS = 0.01  # texture along its weakest direction, as a share of its strongest
_LEAST_CONTRAST = 1e-5  # of the largest absolute value, root mean square
_AGREE_PX = 1.0  # blocks this near to their median tell the same
_SIGMA = 0.85  # of the median distance, in two dimensions
_ODD_PHASE = 0.5  # radians; a frequency this far off the plane counts half


@dataclass(frozen=True, slots=True)
class BlockShift:
    """Where one block of a date lies against the reference.

    Args:
        row: pixels, positive = the moving date lies further down.
        col: pixels, positive = it lies further right.
        quality: how well the phases agree with that shift, 0..1; 1 for a pure shift.
    """

    row: float
    col: float
    quality: float


@dataclass(frozen=True, slots=True)
class Shift:
    """Where a date lies against the reference, from all its blocks.

    Args:
        row: pixels, positive = the moving date lies further down.
        col: pixels, positive = it lies further right.
        blocks: how many tell of it.
        spread: of those, pixels: their median distance from the shift times 0.85, which is the
            standard deviation of each coordinate where both scatter normally.
    """

    row: float
    col: float
    blocks: int
    spread: float

    @property
    def size(self) -> float:
        """Length of the shift, pixels."""
        return math.hypot(self.row, self.col)

    @property
    def error(self) -> float:
        """Standard error of the shift, pixels: that of a median of as many blocks."""
        return 1.25 * self.spread / math.sqrt(self.blocks)


def block_shift(
    reference: npt.NDArray[np.floating],
    moving: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_],
) -> BlockShift | None:
    """Find the shift between two dates of one block.

    The planes (bands, or probabilities of classes) are weighed by their contrast, so they should
    share one unit. Shifts up to a quarter of the block are found.

    Args:
        reference: (plane, y, x), finite where valid.
        moving: the same planes of the other date.
        valid: boolean (y, x), True = observed at both dates.

    Returns:
        The shift; None where there is too little texture to tell: too few pixels observed, flat
        planes, edges in one direction only, or nothing that both dates share.

    Raises:
        GridError: if the shapes do not fit.
    """
    if reference.ndim != 3 or reference.shape != moving.shape or valid.shape != moving.shape[1:]:
        raise GridError(
            "two dates of a block must be (plane, y, x) with a mask (y, x), got "
            f"{reference.shape}, {moving.shape} and {valid.shape}"
        )
    first = _between(reference, moving, valid, np.zeros(2))
    if first is None:
        return None
    # the window stays where it is while the scene moves, which pulls towards no shift, most where
    # clouds cut holes into it; so a second look takes the window along
    return _between(reference, moving, valid, np.array([first.row, first.col]))


def robust_shift(blocks: Sequence[BlockShift]) -> Shift | None:
    """One shift from those of the blocks: the median of each coordinate, weighted by quality.

    Where a river moved or a cloud was missed, a block tells of that. So the blocks that lie more
    than a pixel from the median are left out and the median is taken again.

    Returns:
        None where there is no block, or fewer than half of them, by quality, tell the same.
    """
    if not blocks:
        return None
    weights = np.array([block.quality for block in blocks], dtype=np.float64)
    shifts = np.array([(block.row, block.col) for block in blocks], dtype=np.float64)
    middle = _weighted_median(shifts, weights)
    agree = np.hypot(*(shifts - middle).T) <= _AGREE_PX
    if weights[agree].sum() < weights.sum() / 2:
        return None
    shifts, weights = shifts[agree], weights[agree]
    middle = _weighted_median(shifts, weights)
    away = _weighted_median(np.hypot(*(shifts - middle).T)[:, None], weights)[0]
    return Shift(float(middle[0]), float(middle[1]), len(shifts), float(away * _SIGMA))


def verdict(shift: Shift, accept: bool) -> Verdict:
    """What becomes of a date that lies off.

    Where the blocks scatter, as where rivers moved between the dates, a shift of two standard
    errors may be none; so it is what is certain, the length less that, which must pass 0.2 pixels.

    Returns:
        "ok" up to 0.2 pixels: compared as it is. "shift" up to 0.5: moved to fit, and flagged.
        "accepted" beyond that, if wanted: compared as it is, and flagged.

    Raises:
        SceneMismatchError: if it lies further off and that is not accepted.
    """
    if shift.size - 2 * shift.error <= IGNORED_PX:
        return "ok"
    if shift.size <= MOVED_PX:
        return "shift"
    if accept:
        return "accepted"
    raise SceneMismatchError(
        f"dates must lie within {MOVED_PX} pixels of the first one, this one lies "
        f"{shift.size:.2f} pixels off ({shift.row:+.2f} rows, {shift.col:+.2f} columns, median of "
        f"{shift.blocks} blocks); register it again, or compare it as it is with "
        "`accept_misregistration`"
    )


def move(quantised: ByteArray, row: float, col: float) -> ByteArray:
    """Move a date back onto the reference.

    Bilinear, on the probabilities, renormalised over the observed ones of the four pixels around.
    No shift leaves the bytes as they are.

    Args:
        quantised: probability, uint8 (class, y, x), see ``probability``, with a margin of one
            pixel; 255 in every class where not observed.
        row: how far the date lies too far down, pixels, -1..1.
        col: how far it lies too far right, likewise.

    Returns:
        uint8 (class, y - 2, x - 2); not observed where the nearest pixel is not.

    Raises:
        GridError: if the shift is more than the margin, or there is no pixel inside it.
    """
    if not (abs(row) <= 1 and abs(col) <= 1):
        raise GridError(f"a date can be moved by up to 1 pixel, got {row} rows, {col} columns")
    if quantised.ndim != 3 or min(quantised.shape[1:]) < 3:
        raise GridError(
            f"a date to move must be (class, y, x) of 3 x 3 pixels or more, got {quantised.shape}"
        )
    rows, cols = quantised.shape[1] - 2, quantised.shape[2] - 2

    def source(down: int, right: int) -> ByteArray:
        return quantised[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + cols]

    nearest = source(math.floor(row + 0.5), math.floor(col + 0.5))
    around = [
        (source(down, right), down_share * right_share)
        for down, down_share in _shares(row)
        for right, right_share in _shares(col)
    ]
    if len(around) == 1:
        return np.ascontiguousarray(nearest)
    moved = np.zeros(nearest.shape, dtype=np.float32)
    for pixels, share in around:
        observed = pixels[0] != NODATA
        moved += shares(pixels) * np.where(observed, np.float32(share), np.float32(0))
    moved /= np.maximum(moved.sum(axis=0), np.float32(1e-6))
    result = quantise(moved)
    result[:, nearest[0] == NODATA] = NODATA
    return result


def _shares(shift: float) -> list[tuple[int, float]]:
    """Pixels beside a place between them, and the share of each."""
    whole = math.floor(shift)
    part = shift - whole
    return [(step, share) for step, share in ((whole, 1 - part), (whole + 1, part)) if share > 0]


def _between(
    reference: npt.NDArray[np.floating],
    moving: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_],
    expected: FloatArray,
) -> BlockShift | None:
    """Shift of a block, seen through a window that is moved by the expected one."""
    window = _window(valid & _moved_mask(valid, -np.rint(expected)))
    if window is None:
        return None
    taken_along = ndimage.shift(window, expected, order=1) if expected.any() else window
    ours = _spectra(reference, window, valid)
    theirs = _spectra(moving, taken_along, valid)
    if ours is None or theirs is None:
        return None
    cross = np.einsum("pyx,pyx->yx", ours, theirs.conj())
    rows, cols = fft.fftfreq(valid.shape[0])[:, None], fft.rfftfreq(valid.shape[1])[None]
    weighted = cross * _weights(rows, cols, valid.shape[1])
    start = _peak(weighted, valid.shape)
    chosen = np.abs(weighted) > 0
    frequency = 2 * np.pi * np.stack([f[chosen] for f in np.broadcast_arrays(rows, cols)])
    return _fit_plane(frequency, weighted[chosen], start, min(valid.shape) / 4)


def _moved_mask(valid: npt.NDArray[np.bool_], by: FloatArray) -> npt.NDArray[np.bool_]:
    """The mask moved by whole pixels, down and right; nothing is observed beyond the block."""
    moved: npt.NDArray[np.bool_] = ndimage.shift(valid, by, order=0, cval=False)
    return moved


def _window(valid: npt.NDArray[np.bool_]) -> FloatArray | None:
    """Weight of each pixel: falls to 0 at the border of the block and of what was observed."""
    whole: FloatArray = np.outer(*(np.hanning(extent + 2)[1:-1] for extent in valid.shape))
    if valid.all():
        return whole
    depth = ndimage.distance_transform_edt(valid)
    window: FloatArray = whole * np.sin(np.pi / 2 * np.clip(depth / _TAPER_PX, 0, 1)) ** 2
    return window if window.sum() >= _LEAST_OBSERVED * whole.sum() else None


def _spectra(
    planes: npt.NDArray[np.floating], window: FloatArray, valid: npt.NDArray[np.bool_]
) -> npt.NDArray[np.complex128] | None:
    """Spectrum of each plane under the window; None where all are flat."""
    filled = np.where(valid, planes, 0).astype(np.float64)
    scale = np.abs(filled).max()
    means = np.einsum("pyx,yx->p", filled, window) / window.sum()
    parts = (filled - means[:, None, None]) * window
    if not np.sqrt(np.square(parts).mean()) > _LEAST_CONTRAST * scale:
        return None
    spectra: npt.NDArray[np.complex128] = fft.rfft2(parts)
    return spectra


def _weights(rows: FloatArray, cols: FloatArray, width: int) -> FloatArray:
    """Weight of each frequency of a half spectrum: gradients, low frequencies."""
    radius = np.hypot(rows, cols)
    fades = np.cos(np.pi / 2 * np.clip(radius / _HIGHEST, 0, 1)) ** 2
    # the half spectrum holds every frequency but those of its first (and last, if even) column once
    twice = np.full(cols.shape, 2.0)
    twice[:, 0] = 1
    if width % 2 == 0:
        twice[:, -1] = 1
    weights: FloatArray = np.where(radius < _HIGHEST, radius**2 * fades * twice, 0.0)
    return weights


def _peak(weighted: npt.NDArray[np.complex128], shape: tuple[int, ...]) -> FloatArray:
    """Whole pixels between the dates: the highest correlation of their gradients."""
    correlation = fft.irfft2(weighted, s=shape)
    found = np.unravel_index(int(correlation.argmax()), shape)
    return -np.array([(k + n // 2) % n - n // 2 for k, n in zip(found, shape, strict=True)], float)


def _fit_plane(
    frequency: FloatArray, cross: npt.NDArray[np.complex128], start: FloatArray, most: float
) -> BlockShift | None:
    """Fit the plane of phases by weighted least squares; odd phases count less with each round.

    Args:
        frequency: radians per pixel, (2, n).
        cross: weighted cross spectrum, (n,).
        start: shift in whole pixels.
        most: largest shift that is believed, pixels.
    """
    shift, strength = start, np.abs(cross)
    for _ in range(30):
        phase = np.angle(cross * np.exp(-1j * (shift @ frequency)))
        weighted = frequency * (strength / (1 + (phase / _ODD_PHASE) ** 2))
        normal = weighted @ frequency.T
        least, largest = np.linalg.eigvalsh(normal)
        if not least > _LEAST_ACROSS * largest:
            return None
        step = np.clip(np.linalg.solve(normal, weighted @ phase), -0.5, 0.5)
        shift = shift + step
        if np.abs(step).max() < 1e-6:
            break
    agreeing = (cross * np.exp(-1j * (shift @ frequency))).real.sum()
    quality = float(np.clip(agreeing / strength.sum(), 0, 1))
    frequencies = strength.sum() ** 2 / np.square(strength).sum()  # that carry the signal
    enough = max(_LEAST_QUALITY, _NOISE_QUALITY / math.sqrt(frequencies))
    if quality < enough or np.abs(shift).max() > most:
        return None
    return BlockShift(float(shift[0]), float(shift[1]), quality)


def _weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Median of each column of (n, column); between two values where they share the weight."""
    medians = []
    for column in values.T:
        order = np.argsort(column, kind="stable")
        below = np.cumsum(weights[order])
        lower, upper = (np.searchsorted(below, below[-1] / 2, side=side) for side in _SIDES)
        chosen = order[[lower, min(upper, len(order) - 1)]]
        medians.append(column[chosen].mean())
    return np.array(medians)
