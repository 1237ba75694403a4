"""A store from S3 onto this disk, object by object: Zarr's layout is the same on both."""

from __future__ import annotations

import shutil
from pathlib import Path

from tilemap.errors import OutputError, TilemapError
from tilemap.files import system_error
from tilemap.stores.remote.address import Address
from tilemap.stores.remote.place import RemotePlace
from tilemap.stores.remote.pool import pool


def fetch_folder(place: RemotePlace, folder: Path) -> int:
    """Bring everything below a place into a folder, which is there whole or not at all.

    Args:
        folder: replaced if it exists.

    Returns:
        How many objects there were.

    Raises:
        OutputError: if one cannot be read, would lead out of the folder, or does not fit.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    below = f"{place.key}/"
    keys = [key for key, _ in place.list() if key.startswith(below)]

    def bring(key: str) -> None:
        path = partial / key.removeprefix(below)
        if not path.resolve().is_relative_to(partial.resolve()):
            raise OutputError(f"{place} has a key that leads elsewhere: {key}")
        data = RemotePlace(Address("s3", place.address.host, 0, key), place.allow).read()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    try:
        partial.mkdir(parents=True)
        list(pool().threads.map(bring, keys))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException as problem:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(problem, OSError) and not isinstance(problem, TilemapError):
            raise system_error(f"cannot write {folder}", problem, kind=OutputError) from problem
        raise
    return len(keys)
