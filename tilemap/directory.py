"""The run directory: whose it is, who holds it, and what lies in it.

::

    OUT/landcover.tif, confidence.tif, entropy.tif, margin.tif, sidecars       the products
    OUT/quicklook.png, report.html                                             to look at
    OUT/run.json                                                               what was run
    OUT/probabilities.zarr                                                     for tilemap change
    OUT/stores/identity.json, tiles.zarr, predictions.zarr, map.zarr           to resume
    OUT/stores/place.json                                                      where those lie on S3
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.errors import BusyError, OutputError
from tilemap.files import decode_json, read_file, read_sealed, remove, storing, write_sealed
from tilemap.stores.remote.address import NOBODY, AllowList
from tilemap.stores.remote.claim import release

if TYPE_CHECKING:
    from tilemap.stores.remote.place import Place

Identity = dict[str, Any]
Versions = dict[str, str]
STORES, RUN_FILE, IDENTITY_FILE = "stores", "run.json", "identity.json"
OURS = (
    "landcover.tif", "landcover.tif.aux.xml", "landcover.qml", "landcover.sld",
    "landcover.tif.vat.dbf", "landcover.tif.vat.cpg", "confidence.tif", "entropy.tif",
    "margin.tif", "quicklook.png", "report.html", RUN_FILE,
)  # fmt: skip
"""Names of what a run leaves, ``.partial`` behind them while it is written; ``--fresh`` removes
nothing else."""
REMAINS = ("tiles.zarr", "predictions.zarr", "map.zarr", "cog-", "place.json", IDENTITY_FILE)
"""How the names in ``stores`` begin while there is no identity: they are being made or removed."""
PROBABILITIES = "probabilities.zarr"
COMPUTED_BY = "computed_by"
"""Key beside an identity: versions of what computes, which are no part of it."""
_ABSENT = "(absent)"


def digest_of(identity: Identity) -> str:
    """Name of a run: the sha256 of its identity as canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    with storing(f"cannot write {path}"):
        with partial.open("w") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def read_json(path: Path) -> Any | None:
    """Read a JSON file's value; None if there is no such file, or it is damaged.

    Raises:
        StoreError: if it may not be read.
    """
    with storing(f"cannot read {path}"):
        if not path.is_file():
            return None
        content = read_file(path)
    try:
        return decode_json(content)
    except ValueError:
        return None


def _is_earlier(previous: Identity, identity: Identity) -> bool:
    """Return True if a run of the same kind was stored in another way."""
    if previous.get("kind") != identity.get("kind"):
        return False
    before, now = previous.get("probabilities"), identity.get("probabilities")
    return previous.get("format") != identity.get("format") or bool(
        before and now != before and now
    )


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two identities, one short line each.

    >>> differences({"grid": {"core": 512}}, {"grid": {"core": 960}})
    ['grid.core was 512, now 960']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [
            line
            for key in keys
            for line in differences(
                before.get(key, _ABSENT), now.get(key, _ABSENT), f"{name}.{key}".lstrip(".")
            )
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            line
            for index, (one, two) in enumerate(zip(before, now, strict=True))
            for line in differences(one, two, f"{name}[{index}]")
        ]
    # As JSON, which is what a digest is made of: NaN is itself there, and 1 is not True.
    if json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True):
        return []
    return [f"{name} was {_short(before)}, now {_short(now)}"]


def _short(value: Any) -> str:
    text = str(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."


def store_digest(path: Place) -> str | None:
    """Digest of the run that a store belongs to; None if it is not there or is damaged.

    Raises:
        StoreError: if it cannot be asked.
    """
    from tilemap.stores.chunks import DamagedStoreError, open_group

    try:
        return str(open_group(path).attrs.get("tilemap:digest"))
    except DamagedStoreError:
        return None


class RunDirectory:
    """One output directory.

    Args:
        path: the directory.
        allow: what may be asked, where stores lie on S3.
    """

    MADE: tuple[str, ...] = ("landcover.tif", "confidence.tif")
    """Products that every run leaves."""

    def __init__(self, path: Path, allow: AllowList = NOBODY) -> None:
        self.path, self.allow = path, allow
        self.stores = path / STORES
        self.run_file = path / RUN_FILE
        self.identity_file = self.stores / IDENTITY_FILE

    def previous(self) -> Identity | None:
        """Identity of the run that lies here, finished or not.

        None if there is none, or if what says so is damaged.
        """
        identity = read_sealed(self.identity_file)
        if identity is None:
            record = read_sealed(self.run_file)
            identity = None if record is None else record.get("identity")
        if not isinstance(identity, dict):
            return None
        return {key: value for key, value in identity.items() if key != COMPUTED_BY}

    def begin(self, identity: Identity, versions: Versions) -> None:
        """Write down whose the stores are, and by which versions they are begun."""
        write_sealed(self.identity_file, {**identity, COMPUTED_BY: versions})

    def versions(self) -> Versions:
        """Versions by which the stores were begun; empty if they do not say."""
        begun = read_sealed(self.identity_file)
        found = None if begun is None else begun.get(COMPUTED_BY)
        return found if isinstance(found, dict) else {}

    def check_versions(self, versions: Versions, allow_others: bool) -> list[str]:
        """An unfinished run goes on under the versions that began it.

        Args:
            versions: of what computes now.
            allow_others: go on all the same.

        Returns:
            What differs, a line each.

        Raises:
            OutputError: if something differs and is not allowed.
        """
        before = self.versions()
        lines = differences(before, versions) if before else []
        if lines and not allow_others:
            raise OutputError(
                f"{self.path} was begun by other versions: {'; '.join(lines)}; one map must not be "
                "of both.\nGo on with the earlier ones, start it afresh, or allow other versions"
            )
        return lines

    def check(self, identity: Identity, fresh: bool) -> None:
        """The directory is free, or belongs to this very run, or may be started anew.

        Raises:
            OutputError: saying whose it is and what differs. Nothing is touched.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"the output must be a directory, {self.path} is a file")
        for record in (self.run_file, self.identity_file):
            if record.is_dir():
                raise OutputError(f"{record} must be a file, it is a folder; remove it")
        parent = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"cannot create {self.path}: {parent} is not writable")
        entries = sorted(p.name for p in self.path.iterdir()) if self.path.exists() else []
        # made together with the stores, which may have been removed at the end
        if STORES in entries or store_digest(self.path / PROBABILITIES) is not None:
            entries = [e for e in entries if e not in (PROBABILITIES, f"{PROBABILITIES}.partial")]
        previous = self.previous()
        if previous is None:
            if self._is_damaged(entries):
                self._check_digest(identity, fresh)
            elif entries and not (entries == [STORES] and self._only_remains()):
                raise OutputError(
                    f"{self.path} must be empty or hold a run of tilemap, it holds "
                    f"{', '.join(entries[:3])}; give another `out`"
                )
            return
        lines = differences(previous, identity)
        lines.sort(key=lambda line: line.startswith("grid."))  # it mostly follows from the rest
        if lines and not fresh:
            whose = ", of an earlier version of tilemap" if _is_earlier(previous, identity) else ""
            more = f" (and {len(lines) - 4} more)" if len(lines) > 4 else ""
            raise OutputError(
                f"{self.path} belongs to another run{whose}: {'; '.join(lines[:4])}{more}\n"
                "give another `out`, or `fresh` to begin this one again"
            )

    def _is_damaged(self, entries: list[str]) -> bool:
        """Return True if a run lies here, and nothing else, whose records cannot be read."""
        if not all(name == STORES or self._is_ours(name) for name in entries):
            return False
        if self.identity_file.exists():
            return self._only_remains()
        # A file of one such name could be anybody's; together they are ours.
        return {RUN_FILE, *self.MADE} <= set(entries)

    def _is_ours(self, name: str) -> bool:
        """Return True if a run may leave a file of this name, whole or half written."""
        return name.removesuffix(".partial") in OURS

    def _check_digest(self, identity: Identity, fresh: bool) -> None:
        """The stores of a run whose records are damaged tell which run it is.

        Raises:
            OutputError: if it is another one.
        """
        digest = store_digest(self.stores / "map.zarr") or store_digest(self.path / PROBABILITIES)
        if digest is not None and digest != digest_of(identity) and not fresh:
            raise OutputError(
                f"{self.path} belongs to another run, whose {IDENTITY_FILE} is damaged\n"
                "give another `out`, or `fresh` to begin this one again"
            )

    def _only_remains(self) -> bool:
        """Whether the stores are what a run leaves that is killed before or after it has them."""
        return self.stores.is_dir() and all(
            entry.name.startswith(REMAINS) for entry in self.stores.iterdir()
        )

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Keep others out while the run lasts; yields whether the directory was made here.

        The lock dies with the process that holds it.

        Raises:
            BusyError: if another process holds it.
            OutputError: if the directory cannot be made, or is removed or replaced meanwhile.
        """
        made = next((p for p in reversed([self.path, *self.path.parents]) if not p.exists()), None)
        with storing(f"cannot create {self.path}", kind=OutputError):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BusyError(
                f"{self.path} is held by another run of tilemap; wait for it or give another `out`"
            ) from error
        try:
            yield made is not None
        except Exception as error:
            if self._is_at(handle):
                raise
            raise OutputError(
                f"{self.path} must stay where it is during the run, it was removed or replaced; "
                "the same command begins again"
            ) from error
        finally:
            there = self._is_at(handle)
            os.close(handle)
            if made is not None and there and not any(self.path.iterdir()):
                self._remove_empty(made)

    def _is_at(self, handle: int) -> bool:
        """Return True if the path still leads to an opened directory."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(handle))
        except OSError:
            return False

    def _remove_empty(self, made: Path) -> None:
        path = self.path
        while True:
            path.rmdir()
            if path == made or any(path.parent.iterdir()):
                return
            path = path.parent

    def clear(self) -> None:
        """Remove what a run left here; anything else stays."""
        self.remove_probabilities()
        self.remove_stores()
        names = {*OURS, *(f"{name}.partial" for name in OURS)}
        ours = [p for p in self.path.iterdir() if p.name in names and not p.is_dir()]
        # The record last: until then it says whose the rest is.
        for entry in sorted(ours, key=lambda path: path == self.run_file):
            entry.unlink()

    def remove_probabilities(self) -> None:
        """Remove the store of probabilities; before the stores, which tell whose it is."""
        for name in (PROBABILITIES, f"{PROBABILITIES}.partial"):
            remove(self.path / name)

    def remove_stores(self) -> None:
        """Remove what only a resumed run needs; what lies on S3 first, for the rest says where.

        Raises:
            OutputError: if something that lies on S3 cannot be removed.
        """
        release(self.stores, self.allow)
        shutil.rmtree(self.stores, ignore_errors=True)
