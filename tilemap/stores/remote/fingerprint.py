"""What a remote file is now, in the shape of a local file's record."""

from __future__ import annotations

import hashlib
from typing import Any

from tilemap.stores.remote.blocks import RemoteFile, RemoteReader

SAMPLED = 64 * 1024
"""Bytes at each end of a file that its fingerprint reads."""


def remote_fingerprint(file: RemoteFile) -> dict[str, Any]:
    """Ask again how a file is, in one or two requests.

    Returns:
        Its name, size in bytes, version (ETag, else when it was modified) and the SHA-256 of its
        first and last 64 KiB. No address, which may hold a secret.

    Raises:
        SceneError: if it is gone.
        StoreError: if it cannot be read.
    """
    now = RemoteReader.find(file.address, file.allow)
    digest = hashlib.sha256(now.read(0, SAMPLED))
    if now.size > SAMPLED:
        digest.update(now.read_many([(max(SAMPLED, now.size - SAMPLED), now.size)])[0])
    return {
        "name": file.address.name,
        "size": now.size,
        "version": now.file.state.version,
        "sha256": digest.hexdigest(),
    }
