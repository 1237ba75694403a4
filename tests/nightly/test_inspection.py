"""Where ledger and disk disagree, and what a kill between the two leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tilemap.files import read_sealed, write_sealed
from tilemap.nightly.inspection import strays
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import acquire
from tilemap.nightly.pardon import forget

from .roots import Root, published_root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A folder of passes in which all is well."""
    return published_root(tmp_path)


def _remove_folder(root: Root) -> None:
    shutil.rmtree(root.products / "pucallpa/2000/w1")


def _remove_file(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/landcover.tif").unlink()


def _other_bytes(root: Root) -> None:
    path = root.products / "pucallpa/2000/w1/landcover.tif"
    path.write_bytes(path.read_bytes()[::-1])


def _other_size(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/landcover.tif").write_bytes(b"abc")


def _no_item(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/item.json").write_text("[1]")


def _other_work(root: Root) -> None:
    path = root.products / "pucallpa/2000/w1/work.json"
    write_sealed(path, {**read_sealed(path), "pixels": 13})


def _no_work(root: Root) -> None:
    (root.products / "pucallpa/2000/w1/work.json").unlink()


def _stray(root: Root) -> None:
    root.stage("2010", "s1")


def _half(root: Root) -> None:
    root.stage("2010", "s1")
    (root.products / "pucallpa/2010/s1/landcover.tif").unlink()


def _not_named(root: Root) -> None:
    listed = [one for one in root.known()["products"] if one.listed and one.id != "2000"]
    root.catalogue(listed)


def _named_too(root: Root) -> None:
    root.catalogue([one for one in root.known()["products"] if one.version != "v2"])


def _no_collection(root: Root) -> None:
    (root.products / "pucallpa/collection.json").unlink()


def _catalog_does_not_name(root: Root) -> None:
    path = root.products / "catalog.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "links": value["links"][:1]}))


def _quarantine_row_only(root: Root) -> None:
    (root.path / "quarantine/pucallpa/1990.json").unlink()


def _quarantine_file_only(root: Root) -> None:
    folder = root.path / "quarantine/pucallpa"
    value = json.loads((folder / "1990.json").read_text())
    (folder / "2000.json").write_text(json.dumps({**value, "id": "2000"}))


def _quarantine_differs(root: Root) -> None:
    path = root.path / "quarantine/pucallpa/1990.json"
    write_sealed(path, {**read_sealed(path), "attempts": 9})


def _quarantine_of_another(root: Root) -> None:
    path = root.path / "quarantine/pucallpa/1990.json"
    write_sealed(path, {**read_sealed(path), "id": "other"})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_remove_folder, ["pucallpa/2000/w1: its folder is gone"]),
        (_remove_file, ["pucallpa/2000/w1: landcover.tif is gone"]),
        (_other_bytes, ["pucallpa/2000/w1: landcover.tif has other bytes than were published"]),
        (_other_size, ["pucallpa/2000/w1: landcover.tif must have 700 bytes, it has 3"]),
        (_no_item, ["pucallpa/2000/w1: its item.json is gone or is no item"]),
        (_other_work, ["pucallpa/2000/w1: pixels differs between ledger and work.json"]),
        (_no_work, ["pucallpa/2000/w1: its work.json is gone or damaged"]),
        (_stray, ["pucallpa/2010/s1: not in the ledger; the next pass takes it in"]),
        (_half, ["pucallpa/2010/s1: not in the ledger; landcover.tif is gone"]),
        (_not_named, ["pucallpa/2000/w1: listed, but the catalog does not name it"]),
        (
            _named_too,
            [
                "pucallpa/1985/v1: the catalog names it, but it is not listed",
                "pucallpa/1985/v2: listed, but the catalog does not name it",
            ],
        ),
        (_no_collection, ["pucallpa: its collection.json is gone or is no collection"]),
        (_catalog_does_not_name, ["ucayali: catalog.json does not name it"]),
        (
            _quarantine_row_only,
            ["quarantine/pucallpa/1990.json: in the ledger, but the file is gone"],
        ),
        (_quarantine_file_only, ["quarantine/pucallpa/2000.json: not in the ledger"]),
        (_quarantine_differs, ["quarantine/pucallpa/1990.json: differs from the ledger"]),
        (_quarantine_of_another, ["quarantine/pucallpa/1990.json: it is of pucallpa/other"]),
    ],
)
def test_each_disagreement_is_told(
    root: Root, harm: Callable[[Root], None], told: list[str]
) -> None:
    """In a line that names the place; by sizes alone all but other bytes of the same size."""
    assert root.disagreements() == []
    harm(root)
    assert root.disagreements() == told
    assert root.disagreements(contents=False) == ([] if harm is _other_bytes else told)


def test_a_product_between_its_name_and_its_commit_is_a_stray(root: Root) -> None:
    """Whole ones that no row knows, the older first, to be taken in; what is half is not."""
    late, early = root.stage("2011", "s1", 9), root.stage("2010", "s1", 8)
    root.stage("2012", "s1")
    (root.products / "pucallpa/2012/s1/landcover.tif").unlink()
    root.stage("2013", "s1")
    shutil.move(root.products / "pucallpa/2013/s1", root.products / "pucallpa/2013/s2")
    shutil.copytree(root.products / "pucallpa/2010/s1", root.products / "pucallpa/2010/.staged-s2")
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        found = strays(ledger, root.path)
        assert found == [early, late]
        with ledger.publishing(lock) as publication:
            for one in found:
                publication.add(one)
        assert strays(ledger, root.path) == []


def test_a_product_that_is_removed_here_only_is_no_stray(root: Root) -> None:
    """It is known until it is gone from where it was mirrored to."""
    with Ledger.open(root.ledger_file) as ledger, acquire(ledger) as lock:
        (one,) = ledger.products(listed=False)
        with ledger.publishing(lock) as publication:
            publication.mirrored(one)
            publication.removed(one)
        assert strays(ledger, root.path) == []
        assert root.disagreements() == [f"{one.folder}: removed in the ledger, but still there"]
        shutil.rmtree(root.products / one.folder)
        assert root.disagreements() == []


def test_a_forgotten_product_does_not_differ(root: Root) -> None:
    """The ledger withholds its digest, the disk has it."""
    with Ledger.open(root.ledger_file) as ledger:
        forget(ledger, "pucallpa", "2000")
    assert root.disagreements() == []
