"""``summary.html`` and ``summary.json`` of a pass, and those of the passes before it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tilemap.files import read_json
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.telling.record import outcome_record
from tilemap.nightly.telling.rotation import began
from tilemap.nightly.telling.summary_page import HISTORY, render_summary
from tilemap.stores.sidecars import write_text

PAGE, RECORD = "summary.html", "summary.json"
_LARGEST = 64 << 20  # bytes of a record of before; a larger one is none of ours
_SHOWN = {"report": "report.html", "map": "landcover.tif", "change": "change.tif"}


def write_summary(
    folder: Path,
    outcome: PassOutcome,
    history: Sequence[Mapping[str, Any]] = (),
    products: Path | None = None,
) -> Path:
    """Write both, each whole or not at all.

    Args:
        folder: for them; made if it is not there.
        outcome: of the pass.
        history: records of earlier passes, the oldest first.
        products: folder of the products, to which the page links; default that of the root.

    Returns:
        The page.

    Raises:
        OSError: if they cannot be written; a ``StoreError`` is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = outcome_record(outcome)
    lying = Path(outcome.root) / "products" if products is None else products
    links = product_links(outcome, folder, lying)
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    write_text(folder / PAGE, render_summary(record, history, links))
    return folder / PAGE


def product_links(outcome: PassOutcome, folder: Path, products: Path) -> dict[str, dict[str, str]]:
    """What a page in ``folder`` can open of each product: addresses relative to it, quoted."""
    links = {}
    for done in outcome.done:
        if done.folder is None:
            continue
        there = products / done.folder
        found = {
            word: quote(Path(os.path.relpath(there / name, folder)).as_posix())
            for word, name in _SHOWN.items()
            if (there / name).is_file()
        }
        if found:
            links[done.folder] = found
    return links


def read_history(
    folder: Path, before: str | None = None, most: int = HISTORY
) -> list[dict[str, Any]]:
    """Records of earlier passes, the oldest first; what cannot be read is left out.

    Args:
        folder: that holds a folder ``PASS`` with its record for each.
        before: id of a pass that is not among them.
        most: the newest so many.
    """
    try:
        ids = sorted(
            (when, path.name)
            for path in folder.iterdir()
            if path.name != before and (when := began(path.name)) is not None
        )
    except OSError:
        return []
    records = (_read(folder / name / RECORD) for _, name in ids[-most:])
    return [record for record in records if record is not None]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        record = read_json(path)
    except OSError:  # a StoreError is one
        return None
    return record if isinstance(record, dict) else None
