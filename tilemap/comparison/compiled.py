"""Kernels compiled once, and kept compiled where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(kernel: Callable[..., Any]) -> Any:
    """Compile a kernel at its first call, for one thread that does not hold the interpreter.

    What was compiled is kept beside the source, or else in the user's cache directory; an
    installation where neither can be written compiles anew in each process.

    Args:
        kernel: over arrays and numbers, calls compiled kernels only.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # numba finds no place to keep it
        return numba.njit(**options)(kernel)
