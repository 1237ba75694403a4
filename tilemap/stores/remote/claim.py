"""Which folder of a bucket belongs to which run: known before anything is made there.

A run makes a folder of its own below the one that the user names, and writes down which, in its
local directory. So what it removes was its own, whatever else lies beside it.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from tilemap.errors import OutputError
from tilemap.files import read_sealed, write_sealed
from tilemap.stores.remote.address import AllowList
from tilemap.stores.remote.place import RemotePlace

FILE = "place.json"


def claim(stores: Path, wanted: RemotePlace, digest: str) -> RemotePlace:
    """A new folder for the stores of a run.

    Args:
        stores: the run's local folder, where this is written down.
        wanted: what the user named.
        digest: of the run.

    Returns:
        The folder; nothing lies in it yet.
    """
    place = wanted / f"run-{digest[:12]}-{uuid4().hex[:12]}"
    write_sealed(stores / FILE, {"stores": str(wanted), "place": str(place)})
    return place


def claimed(stores: Path, allow: AllowList) -> tuple[RemotePlace, str] | None:
    """The folder of a run and what the user named; None if its stores are local.

    None as well if what was written down is damaged, see ``is_damaged``.

    Raises:
        OutputError: if the folder may not be asked.
    """
    found = read_sealed(stores / FILE)
    if found is None or not {"place", "stores"} <= found.keys():
        return None
    return RemotePlace.parse(str(found["place"]), allow), str(found["stores"])


def is_damaged(stores: Path) -> bool:
    """Return True if a folder was claimed, but what was written down cannot be read any more."""
    found = read_sealed(stores / FILE)
    return (stores / FILE).exists() and (found is None or not {"place", "stores"} <= found.keys())


def check_claim(stores: Path, wanted: RemotePlace | None, allow: AllowList) -> None:
    """Stores of a run that is continued lie where the user says.

    Raises:
        OutputError: if they do not.
    """
    found = claimed(stores, allow)
    lies = None if found is None else found[1]
    asked = None if wanted is None else str(wanted)
    if lies != asked:
        lies, asked = lies or str(stores), asked or str(stores)
        raise OutputError(
            f"the stores of this run lie in {lies}, not in {asked}; leave that to the run, or "
            "start it anew with `fresh`"
        )


def release(stores: Path, allow: AllowList) -> None:
    """Remove the folder of a run from its bucket, if it has one there.

    Raises:
        OutputError: if it cannot be removed; what says where it lies is still there then.
    """
    found = claimed(stores, allow)
    if found is not None:
        found[0].delete()
    (stores / FILE).unlink(missing_ok=True)
