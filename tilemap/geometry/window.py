"""Half-open rectangles in scene pixels."""

from __future__ import annotations

from dataclasses import dataclass

from tilemap.errors import GridError


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open rectangle ``[top, bottom) x [left, right)`` in scene pixels.

    It may overhang the scene on any side (a patch does); it may be empty, never inverted.

    Raises:
        GridError: if bottom < top or right < left.
    """

    top: int
    left: int
    bottom: int
    right: int

    def __post_init__(self) -> None:
        if self.bottom < self.top or self.right < self.left:
            raise GridError(
                "a window must have bottom >= top and right >= left, got "
                f"top={self.top}, left={self.left}, bottom={self.bottom}, right={self.right}"
            )

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def slices(self, origin: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
        """Index of this window in an array whose first pixel is ``origin`` (row, col).

        Raises:
            GridError: if the window begins before that origin.
        """
        top, left = self.top - origin[0], self.left - origin[1]
        if top < 0 or left < 0:
            raise GridError(f"{self} begins before the array at (row, col) {origin}")
        return slice(top, top + self.height), slice(left, left + self.width)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Index of this window in an array that covers ``outer``."""
        return self.slices((outer.top, outer.left))

    def intersect(self, other: Window) -> Window:
        """What both cover; an empty window at a border of ``self`` if they do not meet."""
        top = min(max(self.top, other.top), self.bottom)
        left = min(max(self.left, other.left), self.right)
        return Window(
            top,
            left,
            max(top, min(self.bottom, other.bottom)),
            max(left, min(self.right, other.right)),
        )

    def grow(self, rows: int, cols: int | None = None) -> Window:
        """Moved outwards by ``rows`` above and below, ``cols`` (default: the same) at the sides."""
        cols = rows if cols is None else cols
        return Window(self.top - rows, self.left - cols, self.bottom + rows, self.right + cols)

    def contains(self, other: Window) -> bool:
        """Whether every pixel of ``other`` lies inside."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )
