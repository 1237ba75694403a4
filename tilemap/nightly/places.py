"""Where everything of the nightly passes lies, below one root.

::

    ROOT/ledger.sqlite                            what was found, tried, made
    ROOT/work/AREA/ID/DIGEST                      run of one scene, kept for its series
    ROOT/work/AREA/change/DIGEST                  the series
    ROOT/products/catalog.json                    STAC
    ROOT/products/AREA/collection.json
    ROOT/products/AREA/ID/VERSION/item.json, landcover.tif, ...
    ROOT/quarantine/AREA/ID.json                  what is set aside, and why
    ROOT/logs/PASS.jsonl                          one event a line
    ROOT/passes/PASS/summary.html, summary.json
    ROOT/summary.html, summary.json, tilemap.prom of the last pass
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tilemap.nightly.facts import Kind

SHORT = 12
"""Characters of a digest that name a folder."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders and files below one root.

    Args:
        root: absolute.
    """

    root: Path

    @property
    def ledger(self) -> Path:
        """The ledger's database."""
        return self.root / "ledger.sqlite"

    @property
    def products(self) -> Path:
        """The catalog and all it names."""
        return self.root / "products"

    @property
    def work(self) -> Path:
        """Directories of runs."""
        return self.root / "work"

    @property
    def logs(self) -> Path:
        """Logs, a file for each pass."""
        return self.root / "logs"

    @property
    def passes(self) -> Path:
        """Summaries, a folder for each pass."""
        return self.root / "passes"

    @property
    def metrics(self) -> Path:
        """Prometheus text file, where the configuration names no other."""
        return self.root / "tilemap.prom"

    def run(self, area: str, key: str, digest: str) -> Path:
        """Directory of one run; a resumed one is found again by its digest."""
        return self.work / area / key / digest[:SHORT]

    def product(self, area: str, key: str, digest: str) -> Path:
        """Folder for a product that is not there yet; names count on where one is taken."""
        folder = self.products / area / key
        taken, number = folder / digest[:SHORT], 1
        while taken.exists():
            number += 1
            taken = folder / f"{digest[:SHORT]}-{number}"
        return taken


def title_of(kind: Kind, area: str, key: str) -> str:
    """What a person calls a piece of work: ``pucallpa/1985`` or ``pucallpa, change``."""
    return f"{area}/{key}" if kind == "map" else f"{area}, change"


def stamp(moment: datetime) -> str:
    """A moment as the id of a pass has it."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


def free_id(places: Places, started: datetime) -> str:
    """The time it began; with a number if a clock that jumped back has brought it before."""
    first, number = stamp(started), 1
    found = first
    while (places.logs / f"{found}.jsonl").exists():
        number += 1
        found = f"{first}-{number}"
    return found
