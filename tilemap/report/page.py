"""What every page is made of: its shell, and words for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("report.css")


def page(title: str, body: str, *, style: str = "", kind: str = "") -> str:
    """A whole page that loads nothing and runs nothing.

    Args:
        title: of the window.
        body: markup.
        style: CSS besides that of all pages.
        kind: class of the body.
    """
    of_kind = f' class="{kind}"' if kind else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}{style}</style></head>"
        f"<body{of_kind}><main>{body}</main></body></html>\n"
    )


def small_print(text: str) -> str:
    """A line of small print; nothing without a text."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def listed(items: Sequence[str], most: int = 20, rest: str = "see run.json") -> str:
    """Items as a list, at most so many; ``rest`` says where the others are."""
    shown = [f"<li>{escape(item)}</li>" for item in items[:most]]
    if len(items) > most:
        shown.append(f"<li>and {len(items) - most:,} more, {escape(rest)}</li>")
    return f"<ul>{''.join(shown)}</ul>"


def many(count: int, what: str) -> str:
    """A count and its word.

    >>> many(1, "tile"), many(1234, "tile")
    ('1 tile', '1,234 tiles')
    """
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(3.21), duration(75), duration(7384)
    ('3.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def fact_table(title: str, facts: Mapping[str, object]) -> str:
    """Names and values under a small heading; nothing without any."""
    if not facts:
        return ""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(plain(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<section><h3>{escape(title)}</h3><table>{lines}</table></section>"


def plain(value: object) -> str:
    """A value for people."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
