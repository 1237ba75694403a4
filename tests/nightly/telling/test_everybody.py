"""All who are told: in order, and none keeps the others from it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tilemap.nightly.config import TellTable
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.places import Places
from tilemap.nightly.telling import PassLog, tell_all
from tilemap.nightly.telling.prometheus import read_metrics


def told(root: Path, outcome: PassOutcome, table: TellTable) -> list[str]:
    """Tell it; the events that were logged."""
    places = Places(root)
    path = root / "logs" / f"{outcome.id}.jsonl"
    console = Console(file=io.StringIO(), soft_wrap=True)
    with PassLog(path, outcome.id, console) as log:
        tell_all(outcome, table, places, log)
    if not path.exists():
        return []
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_two_nights(tmp_path: Path, night: PassOutcome, quiet: PassOutcome) -> None:
    """Each has its page, the root that of the last one with the one before in its chart."""
    seen = tmp_path / "seen"
    table = TellTable(on_failure=("sh", "-c", f'echo "$TILEMAP_SUMMARY" >> {seen}'))
    assert told(tmp_path, night, table) == ["summary", "metrics", "command"]
    later = replace(quiet, id="20261127T021500Z")
    assert told(tmp_path, later, table) == ["summary", "metrics"]
    assert seen.read_text() == f"{tmp_path}/passes/{night.id}/summary.html\n"
    last = (tmp_path / "summary.html").read_text()
    assert "The last 2 passes" in last
    assert "Nothing was new" in last
    assert json.loads((tmp_path / "summary.json").read_text())["pass"] == later.id
    assert (tmp_path / "passes" / night.id / "summary.json").is_file()
    assert read_metrics(tmp_path / "tilemap.prom")["tilemap_scenes_done_total"] == 4


def test_of_a_dry_run_nobody_is_told(tmp_path: Path, night: PassOutcome) -> None:
    """Nothing is written at all."""
    assert told(tmp_path, replace(night, dry=True), TellTable(on_failure=("false",))) == []
    assert list(tmp_path.iterdir()) == []


def test_one_that_fails_does_not_keep_the_others(tmp_path: Path, night: PassOutcome) -> None:
    """No page, no metrics, a command that fails: the webhook's turn comes all the same."""
    (tmp_path / "passes").write_text("a file")
    table = TellTable(
        prometheus=str(tmp_path / "none" / "t.prom"), on_failure=("false",), webhook="ftp://x"
    )
    assert told(tmp_path, night, table) == [
        "telling_failed", "summary", "telling_failed", "command_failed", "webhook_failed",
    ]  # fmt: skip
    assert (tmp_path / "summary.html").is_file()


def test_a_bug_in_telling_is_no_failure_of_the_pass(
    tmp_path: Path, night: PassOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is, it is logged."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tilemap.nightly.telling.everybody.metrics_text", broken)
    assert told(tmp_path, night, TellTable()) == ["summary", "telling_failed"]
