"""The directory of a series: like that of a run, but one that may grow by dates.

::

    OUT/change.tif, p_change.tif, date.tif, labels_DATE.tif, ..., sidecars     the products
    OUT/changes.gpkg, transitions.csv, transitions_wide.csv, areas.csv         tables, polygons
    OUT/report.html, item.json, run.json                                       to read
    OUT/dates/DATE                                                             scenes, segmented
    OUT/stores/dates/DATE-KEY.zarr, change.zarr, final.zarr                    to resume and extend
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tilemap.directory import STORES, Identity, RunDirectory, read_json

KIND = "change"
DATES = "dates"


class ChangeDirectory(RunDirectory):
    """One output directory of ``tilemap change``.

    A series that lies there may be continued by more dates, as long as all of its own come with
    them.

    Args:
        path: the directory.
        identity: of the run that is to come; None before it is known.
    """

    def __init__(self, path: Path, identity: Identity | None = None) -> None:
        super().__init__(path)
        self._now = identity

    def before(self) -> Identity | None:
        """Identity of the series that lies here as it is; None if there is none."""
        return super().previous()

    def previous(self) -> Identity | None:
        """The same; its dates count as those of now if now has them all and more."""
        found = super().previous()
        if found is None or self._now is None or found.get("kind") != KIND:
            return found
        if is_extended(found, self._now):
            return {**found, "dates": self._now["dates"]}
        return found

    def _only_remains(self) -> bool:
        known = ("dates", "regions", "change.zarr", "final.zarr", "cog-", "identity.json")
        return self.stores.is_dir() and all(
            entry.name.startswith(known) for entry in self.stores.iterdir()
        )

    def clear(self) -> None:
        """Remove what a series left here, as its record lists it; anything else stays."""
        record: Any = read_json(self.run_file) or {}
        names = {*record.get("files", []), *record.get("products", {}), "report.html"}
        if self.before() is not None:
            shutil.rmtree(self.path / DATES, ignore_errors=True)
        self.remove_stores()
        for name in sorted(names):
            for path in (self.path / name, self.path / f"{name}.partial"):
                if path.is_file() and path.parent == self.path:
                    path.unlink()
        self.run_file.unlink(missing_ok=True)


def is_extended(before: Identity, now: Identity) -> bool:
    """Whether the dates of now are those of before and others.

    >>> is_extended({"dates": [{"day": "1990"}]}, {"dates": [{"day": "1990"}, {"day": "2000"}]})
    True
    """
    old, new = before.get("dates"), now.get("dates")
    if not isinstance(old, list) or not isinstance(new, list):
        return False
    return len(old) < len(new) and all(date in new for date in old)


__all__ = ["DATES", "KIND", "STORES", "ChangeDirectory", "is_extended"]
