"""Words that may stand in a log, a page, a mail: plain, for people, without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from typing import Any

from tilemap.report.drawing import amount

# each looks a bounded way ahead from where it starts: a log may have to take a text of megabytes
_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^\s'\"<>]+)")
_HEADER = re.compile(r"(?i)\b(authorization['\"]?\s?[:=]\s?)[^\r\n]+")
_BEARER = re.compile(r"(?i)\b(bearer\s)[\w.~+/=-]{8,}")
_KEYED = re.compile(
    r"(?i)((?:password|passwd|secret|token|signature|api[_-]?key|access[_-]?key)[\w-]{0,40}"
    r"['\"]?\s?[:=]\s?['\"]?)[^\s'\",;&]+"
)


def without_secrets(text: str) -> str:
    """A text whose addresses have no user, password or query, and that tells no token.

    >>> without_secrets("GET https://me:pw@host/a.tif?sig=abc failed")
    'GET https://host/a.tif?... failed'
    >>> without_secrets("AWS_SECRET_ACCESS_KEY=abc")
    'AWS_SECRET_ACCESS_KEY=...'
    """
    text = _ADDRESS.sub(_plain_address, text)
    for pattern in (_HEADER, _BEARER, _KEYED):
        text = pattern.sub(r"\1...", text)
    return text


def _plain_address(found: re.Match[str]) -> str:
    rest = re.split(r"[?#]", found[2], maxsplit=1)
    where = rest[0].rpartition("@")[2]
    return f"{found[1]}{where}{'?...' if len(rest) > 1 else ''}"


def clean(text: str) -> str:
    """Without secrets, and such that it can be written as UTF-8, whatever a file was called."""
    return without_secrets(text).encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    r"""One line for a terminal; what would steer it becomes a question mark.

    >>> printable("a\x1b[2Jb\nc")
    'a?[2Jb c'
    """
    line = re.sub(r"[\r\n\t]+", " ", text.strip())
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def jsonable(value: Any) -> Any:
    """The same as JSON can hold it: texts clean, times in UTC, what is no number None."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date):
        return stamp(value) if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, Mapping):
        return {clean(str(key)): jsonable(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray):
        return [jsonable(item) for item in value]
    return _other(value)


def _other(value: Any) -> Any:
    """A number of numpy as that number, anything else as its text."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return jsonable(value.item())
    return clean(str(value))


def stamp(moment: datetime, timespec: str = "seconds") -> str:
    """A time in UTC; one without a zone is taken for UTC.

    >>> stamp(datetime(2026, 11, 26, 2, 15))
    '2026-11-26T02:15:00Z'
    """
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def money(value: float, currency: str) -> str:
    """A sum for people.

    >>> money(1234.5, "EUR"), money(0.00421, "USD"), money(0, "USD")
    ('1,234.50 EUR', '0.00421 USD', '0.00 USD')
    """
    told = f"{value:,.2f}" if value == 0 or abs(value) >= 0.1 else amount(value)
    return f"{told} {currency}"
