"""What charts are drawn with: words, frames, numbers for people."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from html import escape

from tilemap.report.charts import FONT

MINUS = "\N{MINUS SIGN}"


def amount(value: float) -> str:
    """An area for people: three or more digits, no exponent.

    >>> amount(171_344.2), amount(12.345), amount(0.4), amount(0.00123), amount(0)
    ('171,344', '12.3', '0.4', '0.00123', '0')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1e-4:
        return format(Decimal(f"{value:.3g}"), "f")
    return "0" if value == 0 else "< 0.0001"


def signed(value: float) -> str:
    """The same with its sign.

    >>> signed(12.3), signed(-1234.5), signed(0.0)
    ('+12.3', '−1,234', '0')
    """
    if value == 0:
        return "0"
    return f"{'+' if value > 0 else MINUS}{amount(abs(value))}"


def relative(share: float) -> str:
    """A growth in percent.

    >>> relative(-0.123), relative(0.0), relative(4.2)
    ('−12 %', '0 %', '+420 %')
    """
    value = 100 * share
    if -100 < value < -99.9:
        return f"< {MINUS}99.9 %"
    digits = 0 if abs(value) >= 9.95 else 1
    told = f"{abs(value):.{digits}f}"
    return "0 %" if float(told) == 0 else f"{'+' if value > 0 else MINUS}{told} %"


def short(name: str, most: int) -> str:
    """At most so many letters.

    >>> short("water", 6), short("built-up", 6)
    ('water', 'built…')
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def apart(wanted: Sequence[float], least: float, top: float) -> list[float]:
    """Ascending places moved as little as it takes to stand ``least`` apart, below ``top``.

    >>> apart([10, 12, 50], 6, 0)
    [8.0, 14.0, 50.0]
    """
    placed: list[list[float]] = []  # groups that touch: [centre sum, count]
    for y in wanted:
        placed.append([max(y, top), 1])
        while len(placed) > 1:
            (y0, n0), (y1, n1) = placed[-2:]
            if _begin(y1, n1, least, top) >= _begin(y0, n0, least, top) + least * n0:
                break
            placed[-2:] = [[y0 + y1, n0 + n1]]
    result: list[float] = []
    for total, count in placed:
        begin = _begin(total, count, least, top)
        result += [begin + least * i for i in range(int(count))]
    return result


def _begin(total: float, count: float, least: float, top: float) -> float:
    return max(total / count - least * (count - 1) / 2, top)


def text(
    x: float, y: float, text: str, color: str, anchor: str = "middle", *, size: int = 13,
    weight: int = 400,
) -> str:  # fmt: skip
    """One line of text; y is its base line."""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{bold} {FONT} '
        f'fill="{color}">{escape(text)}</text>'
    )


def svg(width: float, height: float, label: str, parts: Sequence[str], widest: float = 0) -> str:
    """A drawing that fills its column, or is at most ``widest`` CSS pixels wide."""
    room = f' style="max-width:{widest:g}px"' if widest else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}"{room} role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
