"""The public face in Python: what its options take."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilemap
from tilemap import api
from tilemap.errors import UsageError


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """Of any width; the plan is that of Python's own."""
    numbers: dict[str, Any] = {"core": np.int64(256), "halo": np.uint8(32), "workers": np.int16(1)}
    scales: dict[str, Any] = {"scale": np.float64(1e-4), "offset": np.int64(0)}
    found = tilemap.plan(api.demo_scene(), model=api.DEMO_MODEL, **numbers, **scales)
    plain = {key: value.item() for key, value in {**numbers, **scales}.items()}
    want = tilemap.plan(api.demo_scene(), model=api.DEMO_MODEL, **plain)
    assert found.digest == want.digest
    assert found.identity == want.identity


def test_none_is_the_default() -> None:
    """Of every option, so that a caller may hand its own on."""
    nothing = dict.fromkeys(api.ChangeOptions.__annotations__)
    assert api.change_settings(["a", "b"], None, nothing) == api.change_settings(
        ["a", "b"], None, {}
    )


def test_days_may_be_days() -> None:
    """Of ``datetime``, with an hour or without."""
    days = [datetime.date(2019, 1, 2), datetime.datetime(2020, 3, 4, 5)]
    settings = api.change_settings(["a", "b"], None, {"dates": days})
    assert settings.dates == ("2019-01-02", "2020-03-04")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"core": "256"}, "core must be a whole number, got '256'"),
        ({"core": 25.5}, "core must be a whole number, got 25.5"),
        ({"halo": np.float32(2)}, "halo must be a whole number, got 2.0"),
        ({"scale": "0.1"}, "scale must be a number, got '0.1'"),
        ({"scale": "fit"}, "scale must be a number, got 'fit'"),
        ({"offset": True}, "offset must be a number, got True"),
        ({"nodata": [0]}, r"nodata must be a number, got \[0\]"),
        ({"device": 3}, "device must be a word, got 3"),
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, Any], says: str) -> None:
    """In a line, before anything is opened."""
    with pytest.raises(UsageError, match=says):
        tilemap.plan("scene.tif", model="model", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate": "0.02"}, "rate must be a number, got '0.02'"),
        ({"threshold": "fit"}, "threshold must be a number, got 'fit'"),
        ({"tau": [1]}, r"tau must be a number, got \[1\]"),
        ({"method": 1}, "method must be a word, got 1"),
    ],
)
def test_options_of_change_likewise(options: dict[str, Any], says: str) -> None:
    """Words that stand for a number stay words."""
    with pytest.raises(UsageError, match=says):
        tilemap.change(["a", "b"], out="out", **options)
    api.change_settings(["a", "b"], None, {"rate": "fit", "threshold": "otsu"})
