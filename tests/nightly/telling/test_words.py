"""Nothing secret, nothing that steers a terminal, nothing that JSON cannot hold."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.nightly.telling.words import clean, jsonable, printable, stamp, without_secrets

SECRET = "hunter2secret"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"https://me:{SECRET}@host:8443/a/b.tif", "https://host:8443/a/b.tif"),
        (f"s3://bucket/key?X-Amz-Signature={SECRET}&x=1 (403)", "s3://bucket/key?... (403)"),
        (f"two: http://{SECRET}@a/x and http://b/y#{SECRET}", "two: http://a/x and http://b/y?..."),
        (f"https://me:pa/{SECRET}@host/x", "https://host/x"),
        (f"Authorization: Basic {SECRET} sent", "Authorization: ..."),
        (f"sent Bearer {SECRET}.x", "sent Bearer ..."),
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", "AWS_SECRET_ACCESS_KEY=..."),
        (f"{{'password': '{SECRET}', 'b': 1}}", "{'password': '...', 'b': 1}"),
        ("a password must have 8 letters", "a password must have 8 letters"),
        ("no address: a/b?c", "no address: a/b?c"),
    ],
)
def test_secrets_are_left_out(text: str, left: str) -> None:
    """User, password, query and token go; the rest stays as it was."""
    assert without_secrets(text) == left
    assert SECRET not in without_secrets(text)


@given(st.text(st.characters(codec=None)))
def test_any_text_is_writable_and_stays_in_its_line(text: str) -> None:
    """Whatever a file was called, it is UTF-8, and on a terminal one line without controls."""
    clean(text).encode()  # which fails on a lone surrogate
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    "part", ["x", "x-", "a.", " ", "\t", "://", "https://", "@", "secret", "="]
)
def test_a_long_text_takes_no_longer_for_it(part: str) -> None:
    """A megabyte of what the patterns look for; a pattern that tries again would take hours."""
    text = part * (1_000_000 // len(part))
    assert len(printable(without_secrets(text))) <= len(text)


def test_a_name_that_is_no_utf8() -> None:
    """A file name with a lone byte, as the system gives it."""
    assert clean(b"a\xff".decode("utf-8", "surrogateescape")) == "a\\udcff"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_comes_is_json(value: Any) -> None:
    """Strict JSON, to which a second look changes nothing."""
    told = json.dumps(jsonable(value), allow_nan=False)
    assert json.loads(told) == jsonable(json.loads(told))


def test_kinds_of_values() -> None:
    """Times in UTC, days, numbers of numpy, paths, sets; what is no number is None."""
    east = timezone(timedelta(hours=2))
    assert jsonable(
        {
            "time": datetime(2026, 1, 1, 1, 30, tzinfo=east),
            "day": date(2026, 1, 1),
            "numpy": np.float32(0.5),
            "path": Path("/a/b"),
            "set": {3},
            "nan": math.nan,
            "bytes": b"x",
        }
    ) == {
        "time": "2025-12-31T23:30:00Z", "day": "2026-01-01", "numpy": 0.5, "path": "/a/b",
        "set": [3], "nan": None, "bytes": "b'x'",
    }  # fmt: skip
    assert stamp(datetime(2026, 1, 1, 1, 2, 3, 456789, UTC), "milliseconds").endswith("03.456Z")
