"""The run directory: whose it is, who holds it, what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.directory import (
    IDENTITY_FILE,
    RUN_FILE,
    STORES,
    RunDirectory,
    differences,
    digest_of,
    read_json,
    write_json,
)
from tilemap.errors import BusyError, OutputError
from tilemap.files import read_sealed, write_sealed

ONE = {"format": 1, "grid": {"core": 512, "halo": 32}, "inputs": [{"name": "a.tif", "size": 4}]}
TWO = {"format": 1, "grid": {"core": 960, "halo": 32}, "inputs": [{"name": "b.tif", "size": 4}]}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("kl", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def _listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def _begun(path: Path, identity: dict[str, Any]) -> RunDirectory:
    """A directory as a run leaves it that was stopped on its way."""
    directory = RunDirectory(path)
    directory.stores.mkdir(parents=True)
    write_json(directory.identity_file, identity)
    return directory


# --- identities --------------------------------------------------------------------------------


@given(st.dictionaries(st.text("kl"), JSON), st.dictionaries(st.text("kl"), JSON))
def test_digests_differ_exactly_if_a_difference_can_be_told(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    """What is refused can be spelled out, and what is the same continues."""
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (digest_of(one) == digest_of(two)) is same
    assert (not differences(one, two)) is same
    assert differences(one, json.loads(json.dumps(one))) == []


def test_differences_are_named_by_their_place() -> None:
    """Nested fields and list entries by path; long values are cut."""
    assert differences(ONE, TWO) == [
        "grid.core was 512, now 960",
        "inputs[0].name was a.tif, now b.tif",
    ]
    (line,) = differences({"crs": "x" * 500}, {"crs": None})
    assert line.startswith("crs was xxx")
    assert line.endswith("..., now None")
    assert len(line) < 100


def test_not_a_number_is_the_same_as_itself(tmp_path: Path) -> None:
    """A scene whose nodata is NaN continues its own run; absent, None and False are told apart."""
    identity = {"bands": [{"name": "red", "nodata": float("nan")}]}
    _begun(tmp_path, identity).check(identity, fresh=False)
    assert differences({}, {"a": None}) == ["a was (absent), now None"]
    assert differences({"a": 0}, {"a": False}) == ["a was 0, now False"]
    assert differences({"a": (1, 2)}, {"a": [1, 2]}) == []


def test_json_is_written_whole(tmp_path: Path) -> None:
    """No partial file is left; what is no JSON reads as none."""
    write_json(tmp_path / "a.json", {"b": [1, 2]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2]}
    assert _listing(tmp_path) == ["a.json"]
    for content in (b"", b"{", b"\xff\xfe\x00"):
        (tmp_path / "a.json").write_bytes(content)
        assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_sealed_file_that_was_cut_or_changed_reads_as_none(tmp_path: Path, cut: int) -> None:
    """No flipped bit is read as something else; a file without a checksum is taken as it is."""
    path = tmp_path / "a.json"
    value = {"day": "2020-06-01", "share": 0.25, "none": float("inf"), "tile": (1, 2)}
    write_sealed(path, value)
    assert read_sealed(path) == {**value, "tile": [1, 2]}
    whole = path.read_bytes()
    for where in range(len(whole)):
        path.write_bytes(whole[:where] + bytes([whole[where] ^ 1 << cut % 8]) + whole[where + 1 :])
        found = read_sealed(path)
        if found is not None and "checksum" in whole[:where].decode():
            continue
        assert found is None or {k: found.get(k) for k in value} == {**value, "tile": [1, 2]}
    path.write_bytes(whole[:cut])
    assert read_sealed(path) is None
    write_json(path, value)
    assert read_sealed(path) == {**value, "tile": [1, 2]}


# --- whose it is -------------------------------------------------------------------------------


def test_a_free_directory_is_taken(tmp_path: Path) -> None:
    """One that is not there, and an empty one; looking leaves nothing behind."""
    RunDirectory(tmp_path / "a" / "b").check(ONE, fresh=False)
    RunDirectory(tmp_path).check(ONE, fresh=False)
    assert _listing(tmp_path) == []


def test_the_same_run_continues_and_another_is_refused(tmp_path: Path) -> None:
    """What differs is named, the grid last, for it mostly follows; with what to do."""
    directory = _begun(tmp_path, ONE)
    directory.check(ONE, fresh=False)
    with pytest.raises(OutputError, match=r"inputs.*; grid\.core was 512, now 960") as caught:
        directory.check(TWO, fresh=False)
    assert "`fresh`" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    directory.check(TWO, fresh=True)
    assert _listing(tmp_path) == [STORES, f"{STORES}/{IDENTITY_FILE}"]


def test_a_finished_run_without_stores_is_known_by_its_record(tmp_path: Path) -> None:
    """After --discard-stores the identity stands in run.json."""
    write_json(tmp_path / RUN_FILE, {"identity": ONE, "status": "ok"})
    (tmp_path / "landcover.tif").write_bytes(b"x")
    RunDirectory(tmp_path).check(ONE, fresh=False)
    with pytest.raises(OutputError, match="belongs to another run"):
        RunDirectory(tmp_path).check(TWO, fresh=False)


@pytest.mark.parametrize(
    ("before", "now", "is_earlier"),
    [
        ({"kind": "change", "format": 2}, {"kind": "change", "format": 3}, True),
        ({"probabilities": True}, {"probabilities": "logarithmic"}, True),
        ({"probabilities": True}, {}, False),
        ({}, {"probabilities": "logarithmic"}, False),
        ({"format": 2}, {"kind": "change", "format": 3}, False),
    ],
)
def test_a_run_of_an_earlier_version_is_called_that(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], is_earlier: bool
) -> None:
    """Numbers stored in another way are not gone on with; other differences are named."""
    directory = _begun(tmp_path, before)
    with pytest.raises(OutputError) as caught:
        directory.check(now, fresh=False)
    assert "belongs to another run" in str(caught.value)
    assert ("of an earlier version" in str(caught.value)) == is_earlier
    assert "`fresh`" in str(caught.value)
    directory.check(now, fresh=True)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    """The message stays short."""
    directory = _begun(tmp_path, {f"k{i}": 0 for i in range(9)})
    with pytest.raises(OutputError, match=r"k3 was 0, now 1 \(and 5 more\)"):
        directory.check({f"k{i}": 1 for i in range(9)}, fresh=False)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    "names", [["notes.txt"], ["landcover.tif"], [RUN_FILE], [STORES], ["stores/data.csv"]]
)
def test_foreign_files_are_never_taken(tmp_path: Path, names: list[str], fresh: bool) -> None:
    """Whatever its name, and with --fresh too: the directory is refused and left as it was."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[1, 2]")
    before = _listing(tmp_path)
    with pytest.raises(OutputError, match="must be empty or hold a run of tilemap"):
        RunDirectory(tmp_path).check(ONE, fresh)
    assert _listing(tmp_path) == before


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["tiles.zarr.partial/zarr.json"],
        ["tiles.zarr/zarr.json", "predictions.zarr.partial/zarr.json"],
        ["tiles.zarr/zarr.json", "predictions.zarr/zarr.json", "map.zarr/zarr.json"],
        ["map.zarr/zarr.json", "identity.json.partial"],
        ["cog-landcover.tif/level-0.tif"],
    ],
)
def test_stores_without_an_identity_are_remains_of_a_run(tmp_path: Path, names: list[str]) -> None:
    """Killed while the stores were being made or removed: the next run starts over."""
    (tmp_path / STORES).mkdir()
    for name in names:
        path = tmp_path / STORES / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    RunDirectory(tmp_path).check(ONE, fresh=False)


def test_probabilities_beside_such_stores_are_remains_too(tmp_path: Path) -> None:
    """Half made or whole; alone, or beside something foreign, they are nobody's."""
    (tmp_path / STORES / "tiles.zarr").mkdir(parents=True)
    for name in ("probabilities.zarr.partial", "probabilities.zarr"):
        (tmp_path / name).mkdir()
        RunDirectory(tmp_path).check(ONE, fresh=False)
    (tmp_path / "probabilities.zarr.txt").write_text("mine")
    with pytest.raises(OutputError, match="must be empty or hold a run"):
        RunDirectory(tmp_path).check(ONE, fresh=True)
    alone = tmp_path / "alone"
    (alone / "probabilities.zarr").mkdir(parents=True)
    with pytest.raises(OutputError, match="must be empty or hold a run"):
        RunDirectory(alone).check(ONE, fresh=True)


def test_a_run_is_cleared_of_its_probabilities(tmp_path: Path) -> None:
    """With all that a run leaves; what is not its own stays."""
    directory = _begun(tmp_path, ONE)
    for name in ("probabilities.zarr", "probabilities.zarr.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("mine")
    directory.clear()
    assert _listing(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1, "checksum": "0"}'])
def test_a_damaged_record_is_no_dead_end(tmp_path: Path, content: str) -> None:
    """Products whose record is damaged are made again by any command that is given the place."""
    for name in ("landcover.tif", "landcover.qml", "confidence.tif", "report.html"):
        (tmp_path / name).write_text("ours")
    (tmp_path / RUN_FILE).write_text(content)
    directory = RunDirectory(tmp_path)
    assert directory.previous() is None
    directory.check(ONE, fresh=False)
    directory.check(ONE, fresh=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="must be empty or hold a run"):
        directory.check(ONE, fresh=True)


def test_a_damaged_identity_leaves_the_record(tmp_path: Path) -> None:
    """One of the two is enough, whichever it is."""
    directory = _begun(tmp_path, ONE)
    write_sealed(directory.run_file, {"identity": ONE})
    directory.identity_file.write_text("{")
    assert directory.previous() == ONE
    with pytest.raises(OutputError, match="belongs to another run"):
        directory.check(TWO, fresh=False)
    directory.begin(ONE, {})
    directory.run_file.write_text("")
    assert directory.previous() == ONE


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Neither is what lies below one."""
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(OutputError, match="must be a directory"):
        RunDirectory(tmp_path / "a.txt").check(ONE, fresh=False)
    with pytest.raises(OutputError, match="cannot create"):
        RunDirectory(tmp_path / "a.txt" / "b").check(ONE, fresh=False)


def test_a_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is done; what is asked about is the nearest parent that exists."""
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(OutputError, match=f"{tmp_path} is not writable"):
        RunDirectory(tmp_path / "a" / "b").check(ONE, fresh=False)


# --- who holds it ------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from tilemap.directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).hold():
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_kept_out_until_the_holder_dies(tmp_path: Path) -> None:
    """The lock goes with the process, however it ends."""
    out = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="held by another run"), RunDirectory(out).hold():
            pass
        assert out.is_dir()  # the one who was kept out removed nothing
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with RunDirectory(out).hold() as made:
        assert not made


def test_within_one_process_too(tmp_path: Path) -> None:
    """Two threads of one script are kept apart as well; the next one may come after."""
    with (
        RunDirectory(tmp_path).hold(),
        pytest.raises(BusyError),
        RunDirectory(tmp_path).hold(),
    ):
        pass
    with RunDirectory(tmp_path).hold():
        pass


# --- what is left ------------------------------------------------------------------------------


def test_directories_made_for_nothing_are_removed(tmp_path: Path) -> None:
    """All that were made, and no other, if the run left nothing, even when it fails."""
    (tmp_path / "a").mkdir()
    with contextlib.suppress(KeyError), RunDirectory(tmp_path / "a/b/c").hold() as made:
        assert made
        assert (tmp_path / "a/b/c").is_dir()
        raise KeyError
    assert _listing(tmp_path) == ["a"]


def test_directories_with_something_in_them_stay(tmp_path: Path) -> None:
    """What the run left, what another put beside it, and an empty one that was there before."""
    with RunDirectory(tmp_path / "a/b").hold():
        (tmp_path / "a/b/landcover.tif").write_text("x")
    with RunDirectory(tmp_path / "c/d").hold():
        (tmp_path / "c/e").write_text("x")
    (tmp_path / "f").mkdir()
    with RunDirectory(tmp_path / "f").hold() as made:
        assert not made
    assert _listing(tmp_path) == ["a", "a/b", "a/b/landcover.tif", "c", "c/e", "f"]


def test_a_relative_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command line passes it on."""
    monkeypatch.chdir(tmp_path)
    with RunDirectory(Path("a/b")).hold():
        assert (tmp_path / "a/b").is_dir()
    assert _listing(tmp_path) == []


def test_clearing_removes_only_what_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products, sidecars, records and stores go; a person's files beside them stay."""
    ours = [
        "landcover.tif", "landcover.tif.aux.xml", "landcover.qml", "landcover.tif.partial",
        "confidence.tif", "quicklook.png", "report.html", RUN_FILE,
    ]  # fmt: skip
    theirs = ["notes.txt", "my-landcover.tif", "old/landcover.tif"]
    directory = _begun(tmp_path, ONE)
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    removed = []
    plain = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        plain(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    directory.clear()
    assert removed[-1] == RUN_FILE  # killed before that, the directory still says whose it is
    assert _listing(tmp_path) == ["my-landcover.tif", "notes.txt", "old", "old/landcover.tif"]
