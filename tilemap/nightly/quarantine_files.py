"""Each quarantine as a file, so that a lost ledger can be made anew.

The ledger's row is what counts. A file is written before its row is committed and removed after it
is, so a kill between leaves a file too many, or (an outer transaction undone) one too few: the
next pass makes them agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tilemap.errors import StoreError
from tilemap.files import read_sealed, storing, write_sealed
from tilemap.nightly.facts import CHANGE_ID, Kind, Quarantine
from tilemap.nightly.rows import quarantine_from_json, quarantine_to_json

FOLDER = "quarantine"


def path_of(root: Path, area: str, kind: Kind, key: str) -> Path:
    """File of one quarantine."""
    return root / FOLDER / area / f"{CHANGE_ID if kind == 'change' else key}.json"


def write(root: Path, quarantine: Quarantine) -> None:
    """Write one, whole or not at all."""
    path = path_of(root, quarantine.area, quarantine.kind, quarantine.id)
    with storing(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, quarantine_to_json(quarantine))


def remove(root: Path, area: str, kind: Kind, key: str) -> None:
    """Remove one, if it is there."""
    path_of(root, area, kind, key).unlink(missing_ok=True)


def paths(root: Path) -> Iterator[Path]:
    """All files, in order; not those that were being written."""
    yield from sorted(root.glob(f"{FOLDER}/*/*.json"))


def read(root: Path, path: Path) -> Quarantine:
    """One quarantine.

    Raises:
        StoreError: what lies there is none, or the one of another file.
    """
    value = read_sealed(path)
    if value is None:
        raise StoreError("a quarantine cannot be read: the file is damaged")
    quarantine = quarantine_from_json(value)
    if path_of(root, quarantine.area, quarantine.kind, quarantine.id) != path:
        raise StoreError(f"it is of {quarantine.area}/{quarantine.id}")
    return quarantine


def agree(root: Path, quarantines: Iterable[Quarantine]) -> None:
    """Make the files say what the rows say."""
    known = {path_of(root, q.area, q.kind, q.id): q for q in quarantines}
    for path in paths(root):
        if path not in known:
            path.unlink(missing_ok=True)
    for path, quarantine in known.items():
        if read_sealed(path) != quarantine_to_json(quarantine):
            write(root, quarantine)
