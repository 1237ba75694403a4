from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from tilemap.comparison.outcome import NO_DATE, Outcome, describe
from tilemap.comparison.qa import Qa
from tilemap.errors import ConfigError

DAYS = np.array([-3000, -10, 0, 365, 18_500], dtype=np.int64)


def one(labels: list[int], observed: str, days: npt.NDArray[np.int64] = DAYS) -> tuple[int, ...]:
    """Code, date, gap, n_valid, n_changes, qa of one pixel; 'x' = observed; 3 classes."""
    seen = np.array([[mark == "x"] for mark in observed])
    found = describe(np.array(labels, np.uint8)[:, None], seen, days, 3)
    return values(found, 0)


def values(found: Outcome, i: int) -> tuple[int, ...]:
    """All numbers of one pixel."""
    names = ("code", "date", "gap", "n_valid", "n_changes", "qa")
    return tuple(int(getattr(found, name)[i]) for name in names)


def oracle(labels: list[int], observed: list[bool], days: list[int], classes: int) -> list[int]:
    """The rules in the order in which they are written down."""
    dates = range(len(days))
    seen = [t for t in dates if observed[t]]
    told = [t for t in dates if labels[t] != 255]
    qa = (0 if observed[0] else Qa.FIRST) | (0 if observed[-1] else Qa.LAST)
    if len(seen) < 2 or not told:
        return [0, NO_DATE, NO_DATE, len(seen), 0, int(qa | Qa.FEW)]
    code = 1 + classes * labels[told[0]] + labels[told[-1]]
    steps = [b for a, b in itertools.pairwise(told) if labels[a] != labels[b]]
    date = gap = NO_DATE
    if steps:
        shown = next((t for t in seen if t >= steps[-1]), steps[-1])
        date = days[shown]
        before = [t for t in seen if t < steps[-1]]
        gap = date - days[before[-1]] if before else NO_DATE
        if labels[told[0]] != labels[told[-1]] and shown >= seen[-1]:
            qa |= Qa.PROVISIONAL
    return [code, date, gap, len(seen), len(steps), int(qa)]


@pytest.mark.parametrize("smoothed", [True, False])
@pytest.mark.parametrize("dates", [1, 2, 3, 6])
def test_against_plain_python(dates: int, smoothed: bool) -> None:
    """Every number of 4,001 random pixels, with labels at every date or at the observed only."""
    rng = np.random.default_rng(dates)
    labels = rng.integers(0, 4, (dates, 4001)).astype(np.uint8)
    labels = np.where(rng.random(labels.shape) < 0.6, labels[:1], labels)
    observed = rng.random(labels.shape) < 0.7
    if not smoothed:
        labels[~observed] = 255
    else:
        labels[:, ::50] = 255
    days = np.cumsum(rng.integers(1, 900, dates)) - 1000
    found = describe(labels, observed, days, 4)
    assert found.code.dtype == found.qa.dtype == found.n_valid.dtype == np.uint8
    assert found.date.dtype == found.gap.dtype == np.int32
    for i in range(labels.shape[1]):
        expected = oracle(labels[:, i].tolist(), observed[:, i].tolist(), days.tolist(), 4)
        assert list(values(found, i)) == expected, (labels[:, i], observed[:, i])


def test_a_change_confirmed_by_later_dates() -> None:
    """Class 0 to 2 at the third date; nothing to note."""
    assert one([0, 0, 2, 2, 2], "xxxxx") == (3, 0, 10, 5, 1, 0)


def test_a_change_seen_last_is_provisional() -> None:
    """The last observed date alone shows it, be it the series' last or not."""
    assert one([0, 0, 0, 0, 2], "xxxxx") == (3, 18_500, 18_135, 5, 1, Qa.PROVISIONAL)
    late = (3, 365, 365, 4, 1, Qa.PROVISIONAL | Qa.LAST)
    assert one([0, 0, 0, 2, 2], "xxxx.") == late


def test_the_change_shows_at_the_next_look() -> None:
    """The path steps while nothing is seen: the date is the next look, the gap that between."""
    assert one([1, 1, 2, 2, 2], "xx.xx") == (6, 365, 375, 4, 1, 0)


def test_a_change_after_the_last_look() -> None:
    """A path may step by its model alone: the date is the step's, and provisional."""
    found = one([1, 1, 1, 2, 2], "xxx..")
    assert found == (6, 365, 365, 3, 1, Qa.LAST | Qa.PROVISIONAL)


def test_a_change_before_the_first_look() -> None:
    """Nothing was seen before it: there is a date, and no gap."""
    assert one([1, 2, 2, 2, 2], ".xxxx") == (6, -10, NO_DATE, 4, 1, Qa.FIRST)


def test_there_and_back() -> None:
    """No change from first to last, two on the way; the date of the last is told, not flagged."""
    assert one([1, 0, 0, 0, 1], "xxxxx") == (5, 18_500, 18_135, 5, 2, 0)


def test_not_observed_is_not_no_change() -> None:
    """Fewer than two looks: code 0, whatever the labels say."""
    assert one([1, 1, 2, 2, 2], "..x..") == (
        0, NO_DATE, NO_DATE, 1, 0, Qa.FEW | Qa.FIRST | Qa.LAST,
    )  # fmt: skip
    assert one([255] * 5, ".....")[0] == 0
    assert one([1, 1, 1, 1, 1], "xx...") == (5, NO_DATE, NO_DATE, 2, 0, Qa.LAST)


def test_more_dates_than_a_byte_counts() -> None:
    """Counts go on in 16 bits; up to 254 dates a byte holds them."""
    for dates, dtype in ((254, np.uint8), (255, np.uint16), (300, np.uint16)):
        labels = (np.arange(dates) % 2).astype(np.uint8)[:, None]
        found = describe(labels, np.ones((dates, 1), bool), np.arange(dates), 2)
        assert (found.n_valid[0], found.n_changes[0]) == (dates, dates - 1)
        assert found.n_valid.dtype == found.n_changes.dtype == dtype


def test_more_dates_than_two_bytes_count() -> None:
    """A series whose counts would mean "not known" is refused."""
    labels = np.zeros((65535, 1), np.uint8)
    with pytest.raises(ConfigError, match="fewer than 65535 dates"):
        describe(labels, labels == 0, np.arange(65535), 2)


def test_the_largest_code() -> None:
    """15 classes fill a byte: 1 + 15 * 14 + 14 = 225."""
    labels = np.array([[14], [14]], dtype=np.uint8)
    assert describe(labels, np.ones((2, 1), bool), np.array([0, 1]), 15).code[0] == 225


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"classes": 16}, r"1\.\.15 classes, got 16"),
        ({"classes": 2}, "below 2, or 255 for none, got 2"),
        ({"days": np.array([0, 0])}, "in order, each once"),
        ({"days": np.array([5, 3])}, "in order, each once"),
        ({"days": np.array([0, 2**31])}, "within 2147483647 days"),
        ({"days": np.array([1])}, "a day for each date"),
        ({"observed": np.ones((2, 2), bool)}, "a day for each date"),
        (
            {"labels": np.zeros((0, 1), np.uint8), "observed": np.ones((0, 1), bool),
             "days": np.array([], np.int64)},
            "in order",
        ),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, object], match: str) -> None:
    """Each says what must hold and what came."""
    arguments: dict[str, object] = {
        "labels": np.array([[2], [0]], np.uint8), "observed": np.ones((2, 1), bool),
        "days": np.array([3, 7]), "classes": 3,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=match):
        describe(**(arguments | change))  # type: ignore[arg-type]
