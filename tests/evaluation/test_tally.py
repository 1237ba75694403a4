"""Counts that add up and travel in few bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilemap.evaluation.boundary import Tolerance
from tilemap.evaluation.metrics import IGNORE, confusion
from tilemap.evaluation.tally import Tally, count_tile


def random_tally(seed: int, classes: int, regions: int = 0) -> Tally:
    """Counts of any size."""
    rng = np.random.default_rng(seed)

    def counts(*shape: int) -> np.typing.NDArray[np.int64]:
        return rng.integers(0, 1 << rng.integers(1, 40), shape)

    numbers = rng.choice(1000, regions, replace=False).tolist()
    return Tally(
        counts(classes, classes), counts(classes, 4), counts(101, 2), int(rng.integers(0, 1 << 50)),
        {number: counts(classes, classes) for number in numbers}, counts(2),
    )  # fmt: skip


def same(one: Tally, two: Tally) -> bool:
    """Whether every count is equal."""
    return (
        all(
            np.array_equal(getattr(one, name), getattr(two, name))
            for name in ("matrix", "boundary", "confidence", "reference", "seen")
        )
        and one.regions.keys() == two.regions.keys()
        and all(np.array_equal(one.regions[n], two.regions[n]) for n in one.regions)
    )


@given(st.integers(0, 999), st.integers(1, 9), st.integers(0, 5))
def test_what_is_sent_is_what_comes(seed: int, classes: int, regions: int) -> None:
    """Bytes give back every count."""
    tally = random_tally(seed, classes, regions)
    assert same(Tally.from_bytes(tally.to_bytes(), classes), tally)


@given(st.permutations(range(5)))
def test_parts_add_up_in_any_order(order: list[int]) -> None:
    """The sum is the same whichever part comes first; parts stay as they are."""
    parts = [random_tally(seed, 4, 3) for seed in range(5)]
    forward, other = Tally.empty(4), Tally.empty(4)
    for part in parts:
        forward.add(part)
    for index in order:
        other.add(parts[index])
    assert same(forward, other)
    assert same(parts[0], random_tally(0, 4, 3))


def test_a_tile_of_eight_classes_travels_in_less_than_a_kilobyte() -> None:
    """All four million pixels of a default tile, spread evenly over every count: the worst case."""
    pixels = 2048 * 2048
    tally = Tally(
        np.full((8, 8), pixels // 64),
        np.full((8, 4), pixels // 16),
        np.full((101, 2), pixels // 202),
        pixels,
    )
    assert len(tally.to_bytes()) < 1000


def test_regions_hold_the_pixels_of_their_numbers() -> None:
    """Each region's matrix is that of its own pixels; -1 is in none."""
    rng = np.random.default_rng(5)
    reference, predicted = rng.choice([0, 1, 2, IGNORE], (2, 30, 41)).astype(np.uint8)
    regions = rng.choice([-1, 3, 700], (30, 41)).astype(np.int32)
    whole = np.s_[0:30, 0:41]
    tally = count_tile((reference, predicted), whole, 3, Tolerance(1), None, regions)
    assert sorted(tally.regions) == [3, 700]
    for number, matrix in tally.regions.items():
        inside = regions == number
        np.testing.assert_array_equal(matrix, confusion(reference[inside], predicted[inside], 3))
