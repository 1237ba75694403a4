"""What an ONNX file refers to, read from its bytes without the ``onnx`` package.

A tensor of an ONNX file may say that its numbers lie in another file. The digest on the card does
not vouch for that file, and its path may lead anywhere, so such models are refused. The message
types and field numbers are those of ``onnx.proto`` (ONNX 1.16); the wire format is that of Protocol
Buffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from tilemap.errors import ModelError
from tilemap.files import open_file

_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Fields of each message that may hold a tensor, and what they are."""
_EXTERNAL_DATA, _DATA_LOCATION, _NAME = 13, 14, 8
_DEEPEST = 60


def check_self_contained(path: Path) -> None:
    """Every weight of an ONNX file is in the file itself.

    Args:
        path: the ``.onnx`` file.

    Raises:
        ModelError: if a tensor refers to another file, or the file is no ONNX model.
    """
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            name = _external(data, 0, len(data), "model", 0)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{path.name} is not a model: {error}") from None
    if name is not None:
        raise ModelError(
            f"{path.name}: every weight must be in the file itself, {name!r} refers to another "
            "file, for which the card does not vouch; save it in one file"
        )


def _external(data: mmap.mmap, start: int, stop: int, kind: str, depth: int) -> str | None:
    """Name of the first tensor between two offsets whose numbers lie elsewhere."""
    if depth > _DEEPEST:
        raise ValueError("graphs are nested too deep")
    name, elsewhere = "", False
    for field, value, first, last in _fields(data, start, stop):
        if kind == "tensor":
            elsewhere |= field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value != 0)
            if field == _NAME:
                name = data[first:last].decode("utf-8", "replace")
        elif field in _NESTED[kind] and last > first:
            found = _external(data, first, last, _NESTED[kind][field], depth + 1)
            if found is not None:
                return found
    return name if elsewhere else None


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, integer value, first and last offset of the bytes of each field of a message."""
    at = start
    while at < stop:
        key, at = _varint(data, at, stop)
        field, wire = key >> 3, key & 7
        value, first, last = 0, at, at
        if wire == 0:
            value, at = _varint(data, at, stop)
            first = last = at
        elif wire == 2:
            size, first = _varint(data, at, stop)
            at = last = first + size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"no protocol buffer: wire type {wire} at byte {at}")
        if at > stop:
            raise ValueError(f"it is cut off: {at - stop} bytes are missing")
        yield field, value, first, last


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"no protocol buffer: a number at byte {at} is too long")
