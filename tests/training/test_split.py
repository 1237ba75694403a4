from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import ConfigError
from tilemap.geometry import Window
from tilemap.training.split import Part, Split, assign_blocks, block_counts, part_of_window


@given(st.integers(4, 12), st.integers(4, 12), st.integers(0, 99))
def test_every_labelled_block_is_for_one_part_in_the_wanted_shares(
    rows: int, cols: int, seed: int
) -> None:
    """Shares hold to a block; blocks without labels take no part."""
    counts = np.random.default_rng(seed).integers(0, 5, (rows, cols))
    parts = assign_blocks(counts, Split(64, 0.25, 0.125, seed))
    labelled = int((counts > 0).sum())
    assert ((parts == Part.NONE) == (counts == 0)).all()
    assert (parts == Part.VALIDATION).sum() == max(1, round(0.25 * labelled))
    assert (parts == Part.TEST).sum() == max(1, round(0.125 * labelled))


def test_the_seed_decides() -> None:
    """The same seed gives the same blocks, another one others."""
    counts = np.arange(1, 101).reshape(10, 10)
    first = assign_blocks(counts, Split(seed=3))
    assert (first == assign_blocks(counts, Split(seed=3))).all()
    assert (first != assign_blocks(counts, Split(seed=4))).any()


def test_parts_see_rare_and_plain_blocks_in_proportion() -> None:
    """Of 25 blocks with much and 75 with little, a fifth of each is in the test."""
    counts = np.ones((10, 10), int)
    counts.ravel()[::4] = 1000
    for seed in range(10):
        parts = assign_blocks(counts, Split(64, 0.2, 0.2, seed))
        for part in (Part.VALIDATION, Part.TEST):
            rich = int((counts[parts == part] == 1000).sum())
            assert 4 <= rich <= 6


def test_counts_and_windows_agree_with_a_loop() -> None:
    """Counts by block, and the part of each pixel, with ragged blocks and an overhanging window."""
    random = np.random.default_rng(0)
    counted = random.random((70, 45)) < 0.5
    counts = block_counts(counted, 16)
    assert counts.shape == (5, 3)
    for row in range(5):
        for col in range(3):
            block = counted[16 * row : 16 * row + 16, 16 * col : 16 * col + 16]
            assert counts[row, col] == block.sum()
    parts = assign_blocks(counts, Split(16))
    window = Window(-3, 20, 30, 60)
    seen = part_of_window(parts, 16, window)
    for y, row in enumerate(range(-3, 30)):
        for x, col in enumerate(range(20, 60)):
            inside = row >= 0 and col // 16 < 3
            assert seen[y, x] == (parts[row // 16, col // 16] if inside else Part.NONE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 0}, "at least 1 pixel"),
        ({"test": 1.0}, "from 0 to below 1"),
        ({"validation": 0.5, "test": 0.5}, "leave blocks for training"),
    ],
)
def test_shares_that_cannot_hold(fields: dict[str, float], message: str) -> None:
    """A split that leaves nothing to train on is refused."""
    with pytest.raises(ConfigError, match=message):
        Split(**fields)  # type: ignore[arg-type]


def test_too_few_blocks() -> None:
    """Two labelled blocks cannot make three parts."""
    with pytest.raises(ConfigError, match="at least 3 labelled blocks, got 2"):
        assign_blocks(np.array([[1, 0, 1]]), Split(64))
