"""``tilemap ledger``: what it prints, what it changes, and every way to ask wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tilemap.cli.main import main
from tilemap.nightly.facts import Found, Product, Quarantine, State
from tilemap.nightly.ledger import LEDGER_FILE, Ledger, product_to_json
from tilemap.nightly.lock import acquire

NOW = datetime(2026, 11, 26, 2, 15, tzinfo=UTC)
Run = Callable[..., tuple[int, str, str]]


def _product(key: str, version: str, **changes: Any) -> Product:
    values: dict[str, Any] = {
        "area": "pucallpa", "kind": "map", "id": key, "version": version, "digest": version * 16,
        "result": "r", "day": date(1985, 8, 1), "status": "ok",
        "folder": f"pucallpa/{key}/{version}",
        "run": f"work/pucallpa/{key}", "item": {"id": key, "assets": {}}, "published": NOW,
        "pixels": 12_340_000, "km2": 1234.5, "seconds": 61.25,
    }  # fmt: skip
    return Product(**{**values, **changes})


def _publish(root: Path, ledger: Ledger, lock: Any, product: Product) -> None:
    folder = root / "products" / product.folder
    folder.mkdir(parents=True)
    (folder / "item.json").write_text(json.dumps(product.item))
    (folder / "work.json").write_text(json.dumps(product_to_json(product)))
    with ledger.publishing(lock) as publication:
        publication.add(product)
    named = [{"rel": "item", "href": f"./{p.id}/{p.version}/item.json"} for p in ledger.products()]
    (root / "products/pucallpa/collection.json").write_text(json.dumps({"links": named}))
    child = {"rel": "child", "href": "./pucallpa/collection.json"}
    (root / "products/catalog.json").write_text(json.dumps({"links": [child]}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One scene mapped twice, one set aside after two failures, one that is being copied."""
    with Ledger.open(tmp_path / LEDGER_FILE) as ledger, acquire(ledger, command="a test") as lock:
        ledger.begin_pass("20261126T021500Z", lock.holder, NOW)
        states: dict[str, State] = {"1985": "ready", "1990": "ready", "2000": "copying"}
        for key, state in states.items():
            scene = Found(
                "pucallpa", key, date(int(key), 8, 1), (f"/in/{key}.tif",), ({"name": key},),
                state=state, reason="it still grows" if state == "copying" else "",
            )  # fmt: skip
            ledger.see(scene, NOW)
        for version in ("v1", "v2"):
            number = ledger.start("20261126T021500Z", "pucallpa", "map", "1985", version, NOW)
            _publish(tmp_path, ledger, lock, _product("1985", version))
            ledger.finish(number, "ok", NOW, seconds=61.25, steps={"tile": 1.5, "segment": 50.0})
        for hour in range(2):
            now = NOW + timedelta(hours=hour)
            number = ledger.start("20261126T021500Z", "pucallpa", "map", "1990", "d", now)
            ledger.finish(number, "failed", now, "is no\nraster", 65, 0.5)
        ledger.quarantine(Quarantine("pucallpa", "map", "1990", "d", NOW, "is no\nraster", 65, 2))
        ledger.end_pass("20261126T021500Z", "partial", 3, NOW + timedelta(hours=1), {"new": 2})
    return tmp_path


@pytest.fixture
def run(root: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``tilemap ledger ... --root ROOT``."""

    def call(*arguments: object, at: object = root) -> tuple[int, str, str]:
        capfd.readouterr()
        where = [] if at is None else ["--root", str(at)]
        with pytest.raises(SystemExit) as ended:
            main(["ledger", *map(str, arguments), *where])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call


def test_scenes_and_what_became_of_them(run: Run) -> None:
    """One line each, columns aligned."""
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "pucallpa/1985  1985-08-01  ready    ok",
        "pucallpa/1990  1990-08-01  ready    quarantine",
        "pucallpa/2000  2000-08-01  copying              it still grows",
    ]
    assert run("list", "--area", "ucayali")[1] == ""


@pytest.mark.parametrize(
    ("what", "lines"),
    [
        ("passes", ["20261126T021500Z  2026-11-26 02:15:00  2026-11-26 03:15:00  partial  3  "]),
        (
            "attempts",
            [
                "pucallpa/1990  map  2026-11-26 03:15:00  failed  0.5 s   is no raster",
                "pucallpa/1990  map  2026-11-26 02:15:00  failed  0.5 s   is no raster",
                "pucallpa/1985  map  2026-11-26 02:15:00  ok      61.2 s",
                "pucallpa/1985  map  2026-11-26 02:15:00  ok      61.2 s",
            ],
        ),
        (
            "products",
            [
                "pucallpa/1985/v1  map  1985-08-01  ok  2026-11-26 02:15:00  until 2026-11-26",
                "pucallpa/1985/v2  map  1985-08-01  ok  2026-11-26 02:15:00  listed",
            ],
        ),
        ("quarantine", ["pucallpa/1990  map  2026-11-26 02:15:00  65  is no raster"]),
    ],
)
def test_other_lists(run: Run, what: str, lines: list[str]) -> None:
    """Each kind of row; what is newest first is the newest first."""
    code, out, _ = run("list", "--what", what)
    assert code == 0
    told = out.splitlines()
    assert len(told) == len(lines)
    for line, expected in zip(told, lines, strict=True):
        assert line.startswith(expected)
    if what == "attempts":
        (line,) = run("list", "--what", what, "--last", 1)[1].splitlines()
        assert line.split() == told[0].split()


@pytest.mark.parametrize("what", ["scenes", "passes", "attempts", "products", "quarantine"])
def test_lists_for_programs(run: Run, what: str) -> None:
    """As JSON with every field but the STAC item."""
    code, out, _ = run("list", "--what", what, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"scenes": 3, "passes": 1, "attempts": 4, "products": 2, "quarantine": 1}[what] == len(
        rows
    )
    told = {
        "scenes": ("first_seen", NOW.isoformat()),
        "passes": ("summary", {"new": 2}),
        "attempts": ("began", (NOW + timedelta(hours=1)).isoformat()),
        "products": ("unlisted", NOW.isoformat()),
        "quarantine": ("reason", "is no\nraster"),
    }
    name, value = told[what]
    assert rows[0][name] == value
    assert "item" not in rows[0]


def test_everything_about_a_scene(run: Run) -> None:
    """Where it comes from, its products, its attempts with their seconds."""
    code, out, _ = run("show", "pucallpa/1985")
    assert code == 0
    assert out.splitlines() == [
        "scene       pucallpa/1985",
        "day         1985-08-01",
        "state       ready",
        "seen        first 2026-11-26 02:15:00, last 2026-11-26 02:15:00",
        "source      /in/1985.tif",
        "product     pucallpa/1985/v1, map, ok, listed until 2026-11-26 02:15:00",
        "            published 2026-11-26 02:15:00, 12.34 Mpx, 1,234.5 km2, 61.2 s, work "
        "v1v1v1v1v1v1",
        "product     pucallpa/1985/v2, map, ok, listed",
        "            published 2026-11-26 02:15:00, 12.34 Mpx, 1,234.5 km2, 61.2 s, work "
        "v2v2v2v2v2v2",
        "attempt     map  2026-11-26 02:15:00  ok  61.2 s",
        "            seconds: segment 50.0, tile 1.5",
        "attempt     map  2026-11-26 02:15:00  ok  61.2 s",
        "            seconds: segment 50.0, tile 1.5",
    ]
    code, out, _ = run("show", "pucallpa/1990")
    assert "quarantine  since 2026-11-26 02:15:00, 2 attempts, code 65: is no raster" in out
    assert "state       copying: it still grows" in run("show", "pucallpa/2000")[1]


def test_an_area(run: Run) -> None:
    """Its scenes, its series if there is one, what is set aside."""
    code, out, _ = run("show", "pucallpa")
    assert code == 0
    assert len(out.splitlines()) == 4
    assert out.splitlines()[-1].startswith("in quarantine: pucallpa/1990")


def test_retry_frees_what_is_set_aside(run: Run, root: Path) -> None:
    """One scene, an area or all; said once, there is nothing more to forgive."""
    free = "pucallpa/1990 (map) is tried again by the next pass\n"
    assert run("retry", "pucallpa/1985")[:2] == (
        0,
        "nothing is in quarantine, and nothing has failed\n",
    )
    assert run("retry", "pucallpa/1990")[:2] == (0, free)
    with Ledger.peek(root / LEDGER_FILE) as ledger:
        assert ledger.quarantines() == []
        assert ledger.failures("pucallpa", "map", "1990", "d") == 0
        assert len(ledger.attempts()) == 4
    assert run("retry", "--all")[1].startswith("nothing is in quarantine")
    with Ledger.open(root / LEDGER_FILE) as ledger:
        ledger.quarantine(Quarantine("pucallpa", "map", "1990", "d", NOW, "x", 65))
    assert run("retry", "--all")[:2] == (0, free)


def test_forget_makes_a_scene_new(run: Run, root: Path) -> None:
    """Nothing is known of it but what is published, which is the work of nobody."""
    code, out, _ = run("forget", "pucallpa/1985")
    assert (code, out) == (0, "pucallpa/1985 is forgotten; the next pass does it anew\n")
    with Ledger.peek(root / LEDGER_FILE) as ledger:
        product = ledger.product("pucallpa", "map", "1985")
        assert product is not None
        assert product.digest == ""
        assert [row.found.id for row in ledger.scenes()] == ["1990", "2000"]
    assert "work forgotten" in run("show", "pucallpa/1985")[1]
    assert run("check") == (0, "ledger and disk agree\n", "")


def test_check_tells_where_they_disagree(run: Run, root: Path) -> None:
    """Exit code 3, and a line for each."""
    assert run("check", "--quick") == (0, "ledger and disk agree\n", "")
    (root / "products/pucallpa/1985/v1/item.json").unlink()
    code, out, _ = run("check")
    assert (code, out) == (3, "pucallpa/1985/v1: its item.json is gone or is no item\n")


def test_rebuild_tells_what_it_found(run: Run, root: Path) -> None:
    """How much, whether the history is kept, where the old one lies."""
    code, out, _ = run("rebuild")
    assert code == 0
    assert out.splitlines() == [
        "2 products, 1 of them listed, 1 in quarantine; the history of passes and attempts is kept",
        f"the ledger before is {root / LEDGER_FILE}.before-1",
    ]
    (root / LEDGER_FILE).unlink()
    code, out, err = run("list")
    assert (code, out) == (74, "")
    assert err == (
        f"error: {root} holds products, but no ledger.sqlite; run `tilemap ledger rebuild`\n"
    )
    code, out, _ = run("rebuild")
    assert code == 0
    assert out.splitlines() == [
        "2 products, 1 of them listed, 1 in quarantine; the history of passes and attempts is lost"
    ]
    assert run("check")[0] == 0


def test_writers_wait_for_no_pass_and_readers_do_not_mind(run: Run, root: Path) -> None:
    """75 and who holds the lock; lists and checks as ever."""
    with Ledger.open(root / LEDGER_FILE) as ledger, acquire(ledger, command="tilemap nightly"):
        for command in (("retry", "--all"), ("forget", "pucallpa/1985"), ("rebuild",)):
            code, out, err = run(*command)
            assert (code, out) == (75, "")
            assert "tilemap nightly" in err
            assert len(err.splitlines()) == 1
        for command in (("list",), ("show", "pucallpa"), ("check",)):
            assert run(*command)[0] == 0


def test_the_root_is_that_of_a_configuration(run: Run, root: Path, tmp_path: Path) -> None:
    """Instead of --root."""
    config = tmp_path / "areas.toml"
    config.write_text(
        '[nightly]\nroot = "."\n[[areas]]\nname = "pucallpa"\nscenes = ["in"]\nmodel = "demo"\n'
    )
    code, out, _ = run("list", "--config", config, at=None)
    assert (code, len(out.splitlines())) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--config", "x.toml"), "either --root or --config must be given"),
        (("show", "nowhere"), "the ledger knows no nowhere; see `tilemap ledger list`"),
        (("show", "pucallpa/1800"), "the ledger knows no pucallpa/1800"),
        (("retry", "pucallpa/1800"), "the ledger knows no pucallpa/1800"),
        (("forget", "pucallpa/1800"), "the ledger knows no pucallpa/1800"),
        (("forget", "pucallpa"), "forget needs AREA/ID, got 'pucallpa'"),
        (("retry",), "either AREA[/ID] or --all must be given"),
        (("retry", "pucallpa", "--all"), "either AREA[/ID] or --all must be given"),
    ],
)
def test_a_wrong_question(run: Run, arguments: tuple[str, ...], told: str) -> None:
    """Exit code 2 and one line; nothing changes."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_no_root_at_all(run: Run, tmp_path: Path) -> None:
    """And a root without a ledger, for readers and for writers."""
    assert run("list", at=None)[0] == 2
    for command in (("list",), ("check",), ("retry", "--all"), ("forget", "a/b")):
        code, _, err = run(*command, at=tmp_path / "none")
        assert code == 74
        assert "there is no ledger" in err
    assert run("rebuild", at=tmp_path / "none")[0] == 74
    assert not (tmp_path / "none").exists()
