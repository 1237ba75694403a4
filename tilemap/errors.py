"""What can go wrong, and the exit code each kind leaves behind.

Exit codes follow ``sysexits.h`` where it has one: 0 ok, 2 usage, 3 partial, 65 bad data,
69 unavailable, 70 bug, 73 cannot create, 74 I/O, 75 try again, 78 configuration.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_PARTIAL = 3
EXIT_BUG = 70


class TilemapError(Exception):
    """Root of every error raised on purpose; its text is meant for a person."""

    exit_code = EXIT_BUG


class UsageError(TilemapError, ValueError):
    """An option that cannot hold."""

    exit_code = 2


class GridError(TilemapError, ValueError):
    """A tile grid that breaks one of its laws."""

    exit_code = 2


class SceneError(TilemapError, ValueError):
    """A scene that cannot be read, or lacks what the model needs."""

    exit_code = 65


class SceneMismatchError(SceneError):
    """Rasters that do not fit together."""


class ModelError(TilemapError, ValueError):
    """A model that cannot be loaded, or that contradicts its card."""

    exit_code = 65


class TrainingError(TilemapError, ArithmeticError):
    """A training that cannot go on: its loss is no number, or a step does not fit into memory."""

    exit_code = 65


class StoreError(TilemapError, OSError):
    """A store that cannot be read or written, or lacks a chunk."""

    exit_code = 74


class DamagedError(StoreError):
    """A finished tile whose chunk is not there any more or fails its checksum.

    Args:
        message: for a person.
        tile: (row, col), to be done again.
    """

    def __init__(self, message: str, tile: tuple[int, int]) -> None:
        super().__init__(message)
        self.tile = tile

    def __reduce__(self) -> tuple[type[DamagedError], tuple[str, tuple[int, int]]]:
        """Keep the tile on the way from a worker."""
        return type(self), (str(self), self.tile)


class DamagedInputError(StoreError):
    """An input whose stored pixels are damaged; what made it mends it."""


class InputChangedError(TilemapError, OSError):
    """An input that did not stay what it was while a run read it; the same command works again."""

    exit_code = 75


class OutputError(TilemapError, OSError):
    """An output directory that cannot be used."""

    exit_code = 73


class DiskFullError(StoreError, OutputError):
    """A disk without room for what is to be written, or a quota that is used up.

    Nothing else can be written there either, so it ends a run and a night.
    """


class BusyError(TilemapError):
    """Somebody else holds what is needed; try again later."""

    exit_code = 75


class UnavailableError(TilemapError):
    """A scheduler, a device or an optional package that is not there."""

    exit_code = 69


class ConfigError(TilemapError, ValueError):
    """A configuration that cannot work, such as a memory limit below one tile."""

    exit_code = 78
