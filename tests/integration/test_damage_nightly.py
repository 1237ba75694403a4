"""Nothing damaged below a nightly root is believed: flip or cut any file, then run a night.

``TILEMAP_FLIPS`` says how many files are damaged in each case, one after another (default 8).
"""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from rich.console import Console

from tests.integration.test_damage import BANDS, damage, make_toy
from tilemap.directory import read_json
from tilemap.errors import TilemapError
from tilemap.nightly.config import load_config
from tilemap.nightly.doing import PassCluster
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.inspection import check
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import Holder
from tilemap.nightly.passing import run_pass
from tilemap.nightly.rebuild import rebuild
from tilemap.nightly.request import PassRequest
from tilemap.testing import write_geotiff

FLIPS = int(os.environ.get("TILEMAP_FLIPS", "8"))
DAYS = ("20200601", "20210601", "20220601")
LONG_AGO = 1_600_000_000
SHAPE = (75, 101)
TIMED = ("report.html", "run.json", "item.json", "work.json")
"""Files of a product that hold the time of a run or of its publishing."""
CONFIG = """
model = "toy"
[nightly]
root = "out"
[segment]
core = 48
halo = 4
blend = 4
[change]
core = 48
mmu_ha = 0.05
[[areas]]
name = "coast"
scenes = ["in"]
"""


@dataclass
class Roots:
    """Roots after a night, to be copied and damaged; ``client`` does their tasks.

    Args:
        folder: of all; ``two`` is a root of two dates and a scene that is set aside, ``begun`` the
            same with the ledger's log, as a kill leaves it, ``three`` has one date more.
    """

    folder: Path
    client: Client

    def bring(self, place: Path, number: int) -> None:
        """One more date arrives, long ago."""
        name = f"scene_{DAYS[number]}.tif"
        shutil.copy(self.folder / name, place / "in" / name)
        os.utime(place / "in" / name, (LONG_AGO, LONG_AGO))

    def copy(self, of: str, place: Path) -> Path:
        """A root of its own; links between files of products and runs stay links."""
        shutil.copytree(self.folder / of, place, copy_function=_Copier())
        return place


class _Copier:
    """Copies files; names of one file become names of one file."""

    def __init__(self) -> None:
        self.made: dict[int, str] = {}

    def __call__(self, source: str, target: str) -> None:
        known = self.made.setdefault(Path(source).stat().st_ino, target)
        if known is target:
            shutil.copy2(source, target)
        else:
            os.link(known, target)


def night(place: Path) -> PassOutcome:
    """One nightly run."""
    console = Console(file=io.StringIO())
    return run_pass(
        PassRequest(load_config(place / "nightly.toml"), "nightly.toml", console=console)
    )


def published(place: Path) -> dict[str, bytes]:
    """What the catalog names, by the id of its product and the name of the file."""
    area = place / "out" / "products" / "coast"
    found = {}
    for link in (read_json(area / "collection.json") or {"links": []})["links"]:
        if link["rel"] == "item":
            item = area / link["href"]
            for path in item.parent.iterdir():
                content = b"" if path.name in TIMED else path.read_bytes()
                found[f"{item.parent.parent.name}/{path.name}"] = content
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roots]:
    """Roots that are whole."""
    folder = tmp_path_factory.mktemp("roots")
    draw = np.random.default_rng(7)
    smooth = draw.random((3, 8, 11)).repeat(10, axis=1).repeat(10, axis=2)
    smooth = smooth[:, : SHAPE[0], : SHAPE[1]]
    for number, day in enumerate(DAYS):
        changed = smooth.copy()
        changed[:, 20:40, 30:60] = np.roll(changed[:, 20:40, 30:60], number, axis=0)
        pixels = (changed * 3000 + draw.random((3, *SHAPE)) * 300 + 500).astype(np.uint16)
        write_geotiff(folder / f"scene_{day}.tif", pixels, names=BANDS, scale=1e-4)
    two = folder / "two"
    (two / "in").mkdir(parents=True)
    (two / "nightly.toml").write_text(CONFIG)
    make_toy(two / "toy")
    with (
        Client(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(PassCluster, "client", lambda self: client)
        made = Roots(folder, client)
        made.bring(two, 0)
        made.bring(two, 1)
        bad = two / "in" / "bad_20190101.tif"
        bad.write_bytes((two / "in" / f"scene_{DAYS[0]}.tif").read_bytes()[:5000])
        os.utime(bad, (LONG_AGO, LONG_AGO))
        assert night(two).exit_code == 3  # of the bad scene
        assert night(two).exit_code == 0
        begun = made.copy("two", folder / "open")
        ended = subprocess.Popen(["true"])
        ended.wait()
        me = replace(Holder.here(), pid=ended.pid, started=1)
        with (
            closing(sqlite3.connect(begun / "out" / "ledger.sqlite")) as reader,
            pytest.MonkeyPatch.context() as other,
        ):
            other.setattr(Holder, "here", lambda command=None: me)  # a process that is gone
            reader.execute("SELECT count(*) FROM product").fetchall()
            made.bring(begun, 2)
            night(begun)
            made.copy("open", folder / "begun")
        three = made.copy("two", folder / "three")
        made.bring(three, 2)
        night(three)
        yield made


def verdict(roots: Roots, place: Path, want: dict[str, bytes]) -> str:
    """What becomes of a damaged root: mended, refused, or what is wrong."""
    refused = ""
    try:
        outcome = night(place)
        refused = outcome.error or ""
    except TilemapError as error:
        refused = str(error)
    except Exception as error:
        return f"bug: {type(error).__name__}: {error}"
    if refused:
        if "ledger rebuild" not in refused:
            return f"dead end: {refused}"
        try:
            if "move it away" in refused:
                (place / "out" / "ledger.sqlite").unlink()
            rebuild(place / "out", datetime.now(UTC))
            outcome = night(place)
        except Exception as error:
            return f"dead end: {type(error).__name__} {error} after {refused}"
    errors = [d.error for d in outcome.done if d.error] + ([outcome.error] if outcome.error else [])
    if any("a bug in tilemap" in text for text in errors):
        return f"bug: {errors}"
    again = night(place)
    found = published(place)
    other = sorted(n for n in want.keys() | found.keys() if want.get(n) != found.get(n))
    if other:
        return f"silent: {outcome.status} {errors} {[p.text for p in outcome.problems]}: {other}"
    with Ledger.peek(place / "out" / "ledger.sqlite") as ledger:
        replaced = {product.folder for product in ledger.products(listed=False)}
        lines = [
            line
            for line in check(ledger, place / "out")
            if line.partition(":")[0] not in replaced  # it is damaged, and nobody is led to it
        ]
    if lines:
        return f"silent: {outcome.status}, {errors} but {lines}"
    if again.exit_code or again.done:
        return f"dead end: {again.exit_code} {[(d.id, d.why, d.error) for d in again.done]}"
    return f"refused: {refused}" if refused else "mended"


CASES = {
    "same": ("two", "two", "*"),
    "date": ("two", "three", "*"),
    "ledger": ("two", "two", "ledger.sqlite"),
    "log": ("begun", "three", "ledger.sqlite*"),
}
"""Root that is damaged, root that is wanted afterwards, names of the files that are damaged."""


def damaged(roots: Roots, case: str, seed: int, place: Path) -> tuple[str, str]:
    """Damage one file of a root and run a night: what was done, and what became of it."""
    of, to, names = CASES[case]
    roots.copy(of, place)
    in_place = random.Random(seed).random() < 0.5
    done = damage(place / "out", seed, in_place, names)
    if case == "date":
        roots.bring(place, 2)
    return done, verdict(roots, place, published(roots.folder / to))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FLIPS))
@pytest.mark.parametrize("case", list(CASES))
def test_a_night_mends_or_refuses_what_is_damaged(
    roots: Roots, tmp_path: Path, case: str, seed: int
) -> None:
    """One damaged file anywhere below the root: a night publishes the same, or says the way out."""
    done, found = damaged(roots, case, seed, tmp_path / "place")
    assert found.startswith(("mended", "refused")), f"{done}: {found}"
