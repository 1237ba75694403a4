"""Remote files for GDAL, which never sees the network: it asks Python for bytes.

GDAL's own network code would follow redirects to anywhere and look for sidecars by guessing; here
it can open one name and nothing else.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, TypeVar

from rasterio.abc import MultiByteRangeResourceContainer

from tilemap.errors import StoreError, TilemapError
from tilemap.stores.remote.blocks import RemoteReader

T = TypeVar("T")


class Container(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """A folder that holds one remote file, for ``rasterio.open(name, opener=...)``.

    Everything that GDAL does with the file must happen inside ``run``. For rasterio holds its file
    objects in context variables: under another context, as each task of Dask has one, they would
    be freed while GDAL still uses them. And no error may leave a call by GDAL, it would be lost: it
    is kept, and raised by ``run``.
    """

    def __init__(self, reader: RemoteReader) -> None:
        self.reader = reader
        self.name = "remote/" + ("scene.jp2" if _is_jp2(reader) else "scene.tif")
        self.problem: TilemapError | None = None
        self._context = Context()

    def run(self, do: Callable[..., T], *args: Any) -> T:
        """Call something that reads this file through GDAL; one call at a time.

        Raises:
            TilemapError: what went wrong with the network, instead of what GDAL made of it.
        """
        self.problem = None
        try:
            return self._context.run(do, *args)
        finally:
            problem, self.problem = self.problem, None
            if problem is not None:
                raise problem

    def close_after(self, owner: object, dataset: Any) -> weakref.finalize[Any, Any]:
        """Close a dataset of this file when it is told to, or when its owner is gone."""
        return weakref.finalize(owner, _close, self._context, dataset)

    def open(self, path: str, mode: str = "r", **_: Any) -> _Handle:
        """A file object."""
        if path != self.name or mode.rstrip("b") != "r":
            raise FileNotFoundError(path)
        return _Handle(self)

    def isfile(self, path: str) -> bool:
        """Whether there is such a file."""
        return path == self.name

    def isdir(self, path: str) -> bool:
        """There are no folders."""
        return False

    def ls(self, path: str) -> list[str]:
        """Nothing is listed."""
        return []

    def mtime(self, path: str) -> int:
        """Not known."""
        return 0

    def rm(self, path: str) -> None:
        """Nothing is removed."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """In bytes."""
        return self.reader.size


class _Handle:
    """What GDAL reads through; positions are those of one opened file."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._at = 0

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """There is nothing to close."""

    def tell(self) -> int:
        """Position."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        base = (0, self._at, self._container.reader.size)[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Bytes from here on; none where they cannot be had."""
        stop = self._container.reader.size if size < 0 else self._at + size
        data = self._try(lambda reader: reader.read(self._at, stop), b"")
        self._at += len(data)
        return data

    def get_byte_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges at once: the blocks of a window."""
        ranges = [(at, at + size) for at, size in zip(offsets, sizes, strict=True)]
        return self._try(lambda reader: reader.read_many(ranges), [b"" for _ in ranges])

    def _try(self, do: Callable[[RemoteReader], T], instead: T) -> T:
        container = self._container
        if container.problem is not None:
            return instead  # asking on would only take longer
        try:
            return do(container.reader)
        except TilemapError as problem:
            container.problem = problem
        except Exception as problem:
            container.problem = StoreError(
                f"cannot read {container.reader.file.address.shown}: {type(problem).__name__}"
            )
        return instead


def _close(context: Context, dataset: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the process ends while another thread still reads
        context.run(dataset.close)


def _is_jp2(reader: RemoteReader) -> bool:
    return reader.read(0, 8)[4:6] == b"jP" or reader.read(0, 2) == b"\xff\x4f"
