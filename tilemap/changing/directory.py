"""The directory of a series: like that of a run, but one that may grow by dates.

::

    OUT/change.tif, p_change.tif, date.tif, labels_DATE.tif, ..., sidecars     the products
    OUT/changes.gpkg, transitions.csv, transitions_wide.csv, areas.csv         tables, polygons
    OUT/report.html, item.json, run.json                                       to read
    OUT/dates/DATE                                                             scenes, segmented
    OUT/stores/dates/DATE-KEY.zarr, change.zarr, final.zarr                    to resume and extend
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tilemap.directory import RUN_FILE, STORES, Identity, RunDirectory, Versions, digest_of
from tilemap.files import read_sealed

KIND = "change"
DATES = "dates"
_MADE = re.compile(
    r"(change|p_change|date|n_valid|n_changes|qa|labels_\d{4}-\d\d-\d\d)"
    r"\.(tif|qml|sld|tif\.aux\.xml|tif\.vat\.dbf|tif\.vat\.cpg)(\.partial)?"
    rf"|(changes\.gpkg|transitions\.csv|transitions_wide\.csv|areas\.csv)(\.partial)?"
    rf"|(report\.html|item\.json|{re.escape(RUN_FILE)})(\.partial)?"
)
"""Names of what a series leaves."""


class ChangeDirectory(RunDirectory):
    """One output directory of ``tilemap change``.

    A series that lies there may be continued by more dates, as long as all of its own come with
    them. Dates that were mended and masks that were corrected are gathered again.

    Args:
        path: the directory.
        identity: of the run that is to come; None before it is known.
    """

    def __init__(self, path: Path, identity: Identity | None = None) -> None:
        super().__init__(path)
        self._now = identity

    MADE = ("change.tif", "p_change.tif")

    def before(self) -> Identity | None:
        """Identity of the series that lies here as it is; None if there is none."""
        return super().previous()

    def previous(self) -> Identity | None:
        """The same; its dates count as those of now if now has them all."""
        found = super().previous()
        if found is None or self._now is None or found.get("kind") != KIND:
            return found
        if is_continued(found, self._now):
            return {**found, "dates": self._now["dates"]}
        return found

    def check_versions(self, versions: Versions, allow_others: bool) -> list[str]:
        """See ``RunDirectory``; a series that is finished may be extended by later versions."""
        before, record = self.before(), read_sealed(self.run_file)
        if before is not None and record is not None and record.get("status") == "ok":
            digest = digest_of(before)
            if record.get("digest") == digest != digest_of(self._now or before):
                return []
        return super().check_versions(versions, allow_others)

    def _only_remains(self) -> bool:
        known = ("dates", "regions", "change.zarr", "final.zarr", "cog-", "identity.json")
        return self.stores.is_dir() and all(
            entry.name.startswith(known) for entry in self.stores.iterdir()
        )

    def _is_ours(self, name: str) -> bool:
        return name == DATES or _MADE.fullmatch(name) is not None

    def _check_digest(self, identity: Identity, fresh: bool) -> None:
        """Each store of a series has its own digest, by which it is found or made again."""

    def clear(self) -> None:
        """Remove what a series left here, as its record lists it; anything else stays."""
        record: Any = read_sealed(self.run_file) or {}
        names = {*record.get("files", []), *record.get("products", {}), "report.html"}
        if self.before() is not None:
            shutil.rmtree(self.path / DATES, ignore_errors=True)
        self.remove_stores()
        for name in sorted(names):
            for path in (self.path / name, self.path / f"{name}.partial"):
                if path.is_file() and path.parent == self.path:
                    path.unlink()
        self.run_file.unlink(missing_ok=True)


def is_continued(before: Identity, now: Identity) -> bool:
    """Return True if all dates of before are among those of now, whatever their masks hold.

    A mask that was corrected and a date that was mended do not make another series: its results
    are made again.

    >>> is_continued({"dates": [{"day": "1990"}]}, {"dates": [{"day": "1990"}, {"day": "2000"}]})
    True
    """
    both = [identity.get("dates") for identity in (before, now)]
    if not all(isinstance(dates, list) for dates in both):
        return False
    old, new = ([_map_of(date) for date in dates or ()] for dates in both)
    return all(date in new for date in old)


def _map_of(date: Any) -> tuple[Any, ...]:
    """The map of a date; what it lacks and what hides it may change."""
    if not isinstance(date, dict):
        return (date,)
    return tuple(date.get(key) for key in ("day", "digest", "hard"))


__all__ = ["DATES", "KIND", "STORES", "ChangeDirectory", "is_continued"]
