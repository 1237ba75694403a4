"""Change of one core: the cut leaves no trace, moves and slivers look around the core."""

from __future__ import annotations

import numpy as np
import pytest

from tilemap.comparison.emission import emission_table
from tilemap.comparison.outcome import NO_DATE
from tilemap.comparison.qa import Qa
from tilemap.comparison.smoothed import METHODS, MethodName
from tilemap.comparison.transition import from_rate, steps
from tilemap.geometry import Window
from tilemap.probability import quantise
from tilemap.stages.change import (
    MARGIN,
    Method,
    change_core,
    grown,
    layer_specs,
    nothing_known,
)

K = 3
DAYS = np.array([0, 400, 1100, 1500], dtype=np.int64)
SHAPE = (23, 31)


def _method(name: MethodName) -> Method:
    prior = np.full(K, 1 / K)
    matrices = steps(from_rate(0.02, K), DAYS)
    return Method(name, DAYS, K, prior, matrices, emission_table(prior, 1.0), 0.4)


def _dates(seed: int = 3) -> np.ndarray:
    """Quantised probability of a whole map, uint8 (date, class, y, x), with clouds."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(K, 0.4), (len(DAYS), *SHAPE))
    stored = quantise(p).transpose(0, 3, 1, 2).copy()
    stored[1, :, 3:9, 5:20] = 255
    stored[:, :, 15, 7] = 255
    stored[1:, :, 16, 7] = 255
    return stored


def _cut(dates: np.ndarray, window: Window) -> list[np.ndarray]:
    padded = np.pad(dates, ((0, 0), (0, 0), (MARGIN,) * 2, (MARGIN,) * 2), constant_values=255)
    part = grown(window)
    rows = slice(part.top + MARGIN, part.bottom + MARGIN)
    cols = slice(part.left + MARGIN, part.right + MARGIN)
    return list(padded[..., rows, cols])


@pytest.mark.parametrize("name", METHODS)
def test_the_cut_leaves_no_trace(name: MethodName) -> None:
    """Four cores are the quarters of one, with a date that is moved."""
    dates, moves = _dates(), [None, (0.3, -0.25), None, None]
    whole = change_core(_cut(dates, Window(0, 0, *SHAPE)), moves, _method(name), Qa.HARD)
    for window in (Window(0, 0, 11, 17), Window(0, 17, 11, 31), Window(11, 0, 23, 31)):
        part = change_core(_cut(dates, window), moves, _method(name), Qa.HARD)
        for layer, values in part.layers.items():
            assert np.array_equal(values, whole.layers[layer][..., *window.slices()]), layer
    assert set(whole.layers) == set(layer_specs(len(DAYS)))
    for layer, spec in layer_specs(len(DAYS)).items():
        assert whole.layers[layer].dtype == spec.dtype
    assert (whole.qa & Qa.HARD).all()


def test_what_was_seen_once_or_never() -> None:
    """No code, no percent, no date; its bits say why."""
    core = change_core(_cut(_dates(), Window(0, 0, *SHAPE)), [None] * 4, _method("hmm"))
    for row, seen in ((15, 0), (16, 1)):
        assert core.code[row, 7] == 0
        assert core.p_change[row, 7] == 255
        assert core.date[row, 7] == core.gap[row, 7] == NO_DATE
        assert core.n_valid[row, 7] == seen
        assert core.qa[row, 7] & Qa.FEW
    assert (core.labels[:, 15, 7] == 255).all()
    assert (core.labels[:, 16, 7] != 255).all()


def test_slivers_look_one_pixel_beyond_the_core() -> None:
    """An edge that moves by a pixel right at the border of the core; a blob that appears."""
    labels = np.zeros((2, *SHAPE), dtype=np.uint8)
    labels[0, :, 15:] = labels[1, :, 16:] = 1
    labels[1, 5:9, 4:8] = 2
    stored = np.where(labels[:, None] == np.arange(K)[None, :, None, None], 250, 2)
    method = Method("pcc", DAYS[:2], K, np.ones(K) / K, np.zeros((1, K, K)), np.ones((K, 256)))
    window = Window(0, 15, 23, 31)  # the moved edge is its first column
    core = change_core(_cut(stored.astype(np.uint8), window), [None, None], method)
    assert (core.qa[:, 0] & Qa.SLIVER).all()
    assert not (core.qa[:, 1:] & Qa.SLIVER).any()
    left = change_core(_cut(stored.astype(np.uint8), Window(0, 0, 23, 15)), [None, None], method)
    assert (left.code[5:9, 4:8] == 1 + 2).all()
    assert not (left.qa & Qa.SLIVER).any()


def test_a_moved_date_fits_again() -> None:
    """One date lies a pixel to the right: moved back it shows no change."""
    first = _dates(5)[0]
    first[first == 255] = 80
    second = np.roll(first, 1, axis=2)
    pair = np.stack([first, second])
    method = Method("pcc", DAYS[:2], K, np.ones(K) / K, np.zeros((1, K, K)), np.ones((K, 256)))
    cut = _cut(pair, Window(0, 0, *SHAPE))
    apart = change_core(cut, [None, None], method)
    together = change_core(cut, [None, (0.0, 1.0)], method, Qa.SHIFTED)
    inner = np.s_[:, 1:-1]
    assert (apart.n_changes[inner] > 0).mean() > 0.4
    assert not together.n_changes[inner].any()
    assert (together.qa & Qa.SHIFTED).all()


def test_a_core_that_is_lost() -> None:
    """Every layer says nothing, in its own way."""
    core = nothing_known((5, 7), 4)
    assert not core.code.any()
    assert (core.p_change == 255).all()
    assert core.labels.shape == (4, 5, 7)
    assert (core.date == NO_DATE).all()
    assert (core.qa & Qa.FEW).all()
    assert set(core.layers) == set(layer_specs(4))


def test_a_sliver_is_judged_by_the_last_date_that_was_observed() -> None:
    """An edge that moves by one pixel is a sliver, though clouds hide the date after it."""
    labels = np.zeros((4, 9, 9), dtype=np.uint8)
    labels[0, :, 5:] = labels[1, :, 5:] = 1
    labels[2:, :, 4:] = 1
    dates = np.where(np.arange(K)[None, :, None, None] == labels[:, None], 254, 0).astype(np.uint8)
    dates[3] = 255
    core = change_core(list(dates), [None] * 4, _method("pcc"))
    moved = core.code == 1 + K * 0 + 1
    assert moved.sum() == 5
    assert moved[:, 2].all()  # column 4 of what was read
    assert ((core.qa & Qa.SLIVER) > 0).tolist() == moved.tolist()
