"""Metrics: the format, the counters over nights, and files that are damaged."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import StoreError
from tilemap.nightly.facts import PassOutcome, Problem
from tilemap.nightly.telling.prometheus import (
    LAST_SUCCESS,
    metrics_text,
    parse_metrics,
    read_metrics,
    write_metrics,
)

Make = Callable[..., PassOutcome]
ENDED = 1795659691.5  # 2026-11-26T02:21:31.5Z
SAMPLE = re.compile(
    r'[a-z_0-9]+(\{[a-z]+="(\\[\\n"]|[^\\\n"])*"(,[a-z]+="(\\[\\n"]|[^\\\n"])*")*\})? [0-9.e+-]+'
)


def test_figures_of_a_night(night: PassOutcome) -> None:
    """Of the pass, by area and status, and what waits."""
    found = parse_metrics(metrics_text(night))
    for key, value in {
        LAST_SUCCESS: 0.0,
        "tilemap_last_pass_timestamp_seconds": ENDED,
        "tilemap_last_pass_exit_code": 3,
        "tilemap_pass_seconds": 391.5,
        "tilemap_queue": 1,
        "tilemap_copying": 1,
        "tilemap_skipped": 212,
        "tilemap_problems": 1,
        "tilemap_pixels_total": 482_240_000,
        'tilemap_scenes{area="ucayali",status="ok"}': 2,
        'tilemap_scenes{area="paraguay",status="quarantined"}': 1,
        'tilemap_scenes{area="virginia",status="ok"}': 0,
        'tilemap_changes{area="ucayali",status="ok"}': 1,
        'tilemap_quarantined{area="virginia"}': 1,
        'tilemap_quarantined{area="ucayali"}': 0,
        'tilemap_failures_total{area="paraguay"}': 2,
        'tilemap_failures_total{area="ucayali"}': 0,
        "tilemap_scenes_done_total": 4,
        'tilemap_passes_total{status="partial"}': 1,
        'tilemap_build_info{version="0.1.0"}': 1,
    }.items():
        assert found[key] == value, key
    assert found["tilemap_mpx_per_second"] == pytest.approx(1.6191, abs=1e-3)
    assert found["tilemap_km2_total"] == pytest.approx(38_574.8)
    assert found['tilemap_cost_total{currency="USD"}'] == pytest.approx(0.348)


def test_counters_go_on_and_success_is_kept(night: PassOutcome, quiet: PassOutcome) -> None:
    """Good, bad, bad, good: counters add up, the last success is that of the good ones."""
    first = parse_metrics(metrics_text(quiet))
    second = parse_metrics(metrics_text(night, first))
    third = parse_metrics(metrics_text(night, second))
    fourth = parse_metrics(metrics_text(quiet, third))
    success = [found[LAST_SUCCESS] for found in (first, second, third, fourth)]
    assert success == [quiet.ended.timestamp()] * 4
    failures = [f.get('tilemap_failures_total{area="virginia"}') for f in (first, second, third)]
    assert failures == [None, 1, 2]
    assert fourth['tilemap_failures_total{area="virginia"}'] == 2
    assert fourth['tilemap_scenes{area="virginia",status="failed"}'] == 0
    assert fourth["tilemap_scenes_done_total"] == 8
    assert fourth['tilemap_passes_total{status="partial"}'] == 2
    assert fourth['tilemap_passes_total{status="ok"}'] == 2
    assert fourth['tilemap_cost_total{currency="USD"}'] == pytest.approx(
        2 * night.cost + 2 * quiet.cost  # type: ignore[operator]
    )


def test_a_price_that_came_or_went(night: PassOutcome) -> None:
    """A night without a price adds nothing; another currency counts apart."""
    first = parse_metrics(metrics_text(night))
    second = parse_metrics(metrics_text(replace(night, price_per_hour=None), first))
    third = parse_metrics(metrics_text(replace(night, currency="EUR"), second))
    usd, eur = 'tilemap_cost_total{currency="USD"}', 'tilemap_cost_total{currency="EUR"}'
    assert second[usd] == third[usd] == first[usd] == third[eur]


def test_a_dry_run_counts_nothing(night: PassOutcome) -> None:
    """Neither a success nor a failure."""
    before = parse_metrics(metrics_text(night))
    after = parse_metrics(metrics_text(replace(night, dry=True, exit_code=0), before))
    assert after[LAST_SUCCESS] == 0
    assert all(after[key] == before[key] for key in before if "_total" in key)


def test_it_is_valid_by_an_independent_parser(night: PassOutcome, make: Make) -> None:
    """Every sample is read back with its labels, every family has help and a type."""
    parser = pytest.importorskip("prometheus_client.parser")
    evil = 'a"b\\c\nd{}, x="y"'
    outcome = make(problems=(Problem(evil, "s", "t"),))
    text = metrics_text(outcome, parse_metrics(metrics_text(night)))
    families = list(parser.text_string_to_metric_families(text))
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples
    }
    ours = parse_metrics(text)
    assert len(samples) == len(ours)
    assert all(f.documentation and f.type in ("gauge", "counter") for f in families)
    assert samples["tilemap_failures_total", (("area", evil),)] == 0
    assert samples["tilemap_failures_total", (("area", "paraguay"),)] == 4
    assert sorted(samples.values()) == sorted(ours.values())


def test_every_line_has_the_form(night: PassOutcome) -> None:
    """Comment or sample; help and type stand once before their samples; no sample twice."""
    lines = metrics_text(night).split("\n")[:-1]
    samples = [line for line in lines if not line.startswith("#")]
    assert all(SAMPLE.fullmatch(line) for line in samples)
    assert len({line.rsplit(" ", 1)[0] for line in samples}) == len(samples)
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(named)) == len(named)
    assert {re.split(r"[ {]", line)[0] for line in samples} <= set(named)


@given(area=st.text(st.characters(codec=None), max_size=20))
def test_any_area_is_counted_on(make: Make, area: str) -> None:
    """Whatever an area is called, its counter is found again in the file of before."""
    night = make()
    night = make(done=tuple(replace(done, area=area) for done in night.done))
    first = metrics_text(night)
    second = metrics_text(night, parse_metrics(first))
    assert sorted(parse_metrics(first)) == sorted(parse_metrics(second))
    counted = [v for k, v in parse_metrics(second).items() if k.startswith("tilemap_failures")]
    assert sorted(counted)[-1] == 6
    assert sum(counted) == 6


@given(place=st.integers(0, 4000), byte=st.integers(0, 255))
def test_a_damaged_file_of_before(make: Make, place: int, byte: int) -> None:
    """Cut off or overwritten at any place, what is left is read, and a pass is counted on it."""
    night = make()
    whole = metrics_text(night).encode()
    place %= len(whole)
    for damaged in (whole[:place], whole[:place] + bytes([byte]) + whole[place + 1 :]):
        found = parse_metrics(damaged.decode(errors="replace"))
        assert all(value >= 0 for value in found.values())
        text = metrics_text(night, found)
        assert parse_metrics(text)["tilemap_scenes_done_total"] >= 4
        assert all(SAMPLE.fullmatch(x) for x in text.split("\n")[:-1] if not x.startswith("#"))


def test_files(tmp_path: Path, night: PassOutcome) -> None:
    """Written whole; none before is no error, no folder is one."""
    path = tmp_path / "tilemap.prom"
    assert read_metrics(path) == {}
    text = metrics_text(night, read_metrics(path))
    write_metrics(path, text)
    assert path.read_text() == text
    assert read_metrics(path) == parse_metrics(text)
    assert [p.name for p in tmp_path.iterdir()] == ["tilemap.prom"]
    with pytest.raises(StoreError, match="cannot write"):
        write_metrics(tmp_path / "none" / "tilemap.prom", text)


def test_the_page_tells_of_every_metric(night: PassOutcome) -> None:
    """docs/telling.md has each metric with its labels and type, and no other."""
    page = (Path(__file__).parents[3] / "docs" / "telling.md").read_text()
    told = {}
    for names, kind in re.findall(r"^\| (`tilemap_.+?) \| (gauge|counter) \|", page, re.MULTILINE):
        for name, labels in re.findall(r"`(tilemap_\w+)(?:\{([\w,]+)\})?`", names):
            told[name] = (labels, kind)
    text = metrics_text(night)
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels = {
        name: ",".join(re.findall(r'(\w+)="', more))
        for name, more in re.findall(r"^(\w+)(\{.*\})? ", text, re.MULTILINE)
    }
    assert told == {name: (labels[name], kind) for name, kind in kinds.items()}
