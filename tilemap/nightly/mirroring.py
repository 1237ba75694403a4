"""Products and catalog at a second place, such as a bucket: whole there too, and never ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilemap.nightly.config import NightlyConfig
from tilemap.nightly.places import Places

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger
    from tilemap.nightly.lock import Lock


def mirror(config: NightlyConfig, places: Places, ledger: Ledger, lock: Lock) -> int:
    """Bring what is listed, and then the catalog, to ``config.publish.to``."""
    raise NotImplementedError
