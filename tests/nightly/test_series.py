"""Series of a pass: when they are compared, of which dates, and when anew."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import SceneError, SceneMismatchError, StoreError
from tilemap.nightly.inspection import check
from tilemap.nightly.ledger import Ledger
from tilemap.nightly.lock import acquire
from tilemap.nightly.pardon import forget

from .conftest import Nights
from .test_passing import told, whole


@pytest.fixture
def config(nights: Nights) -> Any:
    """One area with a series."""
    return nights.config(areas=[{"name": "coast", "scenes": ["in/coast"]}])


def test_two_dates_make_a_series(nights: Nights, config: Any) -> None:
    """One alone does not; a third extends it."""
    nights.bring("a_20190101.tif")
    assert told(nights.night(config)) == [("a_20190101", "ok", "new")]
    nights.bring("b_20200101.tif")
    assert told(nights.night(config)) == [("b_20200101", "ok", "new"), ("change", "ok", "new")]
    nights.bring("c_20180101.tif")
    assert told(nights.night(config)) == [
        ("c_20180101", "ok", "new"),
        ("change", "ok", "new date 2018-01-01"),
    ]
    assert nights.compared() == ["c_20180101", "a_20190101", "b_20200101"]
    assert told(nights.night(config)) == []


def test_changed_date_takes_its_series_along(nights: Nights, config: Any) -> None:
    """Changed inputs are mapped anew, and what was made of them."""
    first = nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.night(config)
    first.write_text("other pixels")
    os.utime(first, (1_600_000_100, 1_600_000_100))
    assert told(nights.night(config)) == [
        ("a_20190101", "ok", "inputs changed"),
        ("change", "ok", "dates or options changed"),
    ]
    assert told(nights.night(config)) == []


def test_options_of_change_do_not_map_anew(nights: Nights, config: Any) -> None:
    """Another rate compares anew, and that is all."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.night(config)
    table = [{"name": "coast", "scenes": ["in/coast"], "change": {"rate": 0.02}}]
    assert told(nights.night(nights.config(areas=table))) == [
        ("change", "ok", "dates or options changed")
    ]


def test_failed_date_does_not_keep_the_others(nights: Nights, config: Any) -> None:
    """It is set aside, or tried again by the next pass, which extends the series by it."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    nights.fails["a_20190101"] = StoreError("a disk that hiccups")
    outcome = nights.night(config)
    assert [(d.id, d.status) for d in outcome.done] == [
        ("a_20180101", "ok"), ("a_20190101", "failed"), ("a_20200101", "ok"), ("change", "ok"),
    ]  # fmt: skip
    assert nights.compared() == ["a_20180101", "a_20200101"]
    nights.fails.clear()
    assert told(nights.night(config)) == [
        ("a_20190101", "ok", "tried again"),
        ("change", "ok", "new date 2019-01-01"),
    ]


def test_series_that_cannot_be_is_set_aside_until_it_changes(nights: Nights, config: Any) -> None:
    """A date that lies too far off; one more date is another try."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.fails["change"] = SceneMismatchError("b_20200101 lies 0.7 pixels off")
    outcome = nights.night(config)
    assert outcome.done[-1].status == "quarantined"
    assert outcome.exit_code == 3
    assert told(nights.night(config)) == []
    nights.fails.clear()
    nights.bring("c_20210101.tif")
    assert told(nights.night(config)) == [("c_20210101", "ok", "new"), ("change", "ok", "new")]
    whole(nights)


def test_maps_of_an_older_model_are_in_no_series(nights: Nights, config: Any) -> None:
    """A model is replaced while one scene is broken: its old map stays, outside the series."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    nights.night(config)
    nights.fails["a_20190101"] = SceneError("truncated")
    other = config.model_copy(update={"model": ("tilemap-demo-5class",)})
    nights.night(other)
    assert nights.compared() == ["a_20180101", "a_20200101"]
    assert "a_20190101" in nights.items()


def test_series_waits_for_the_scenes_of_its_area(nights: Nights, config: Any) -> None:
    """A budget that ends between scenes leaves the series as it was."""
    nights.bring("a_20180101.tif")
    nights.bring("a_20190101.tif")
    nights.night(config)
    nights.bring("a_20200101.tif")
    nights.bring("a_20210101.tif")
    nights.fails["a_20200101"] = lambda *_: time.sleep(2.5)
    outcome = nights.night(config, budget_s=2)
    assert told(outcome) == [("a_20200101", "ok", "new")]
    assert nights.compared() == ["a_20180101", "a_20190101"]
    assert [d.id for d in nights.night(config).done] == ["a_20210101", "change"]


def test_series_of_the_newest_dates(nights: Nights, config: Any) -> None:
    """Of those that are kept; the pass after has nothing to do."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    kept = config.model_copy(
        update={"retention": config.retention.model_copy(update={"keep_dates": 2, "grace": 0.0})}
    )
    assert [d.id for d in nights.night(kept).done] == ["a_20190101", "a_20200101", "change"]
    assert told(nights.night(kept)) == []
    nights.bring("a_20210101.tif")
    assert [d.id for d in nights.night(kept).done] == ["a_20210101", "change"]
    assert nights.compared() == ["a_20200101", "a_20210101"]
    assert told(nights.night(kept)) == []
    assert set(nights.items()) == {"a_20200101", "a_20210101", "change"}
    whole(nights)


def test_series_that_is_wished_later(nights: Nights, config: Any) -> None:
    """Maps that were made without probabilities are made with them."""
    nights.bring("a_20190101.tif")
    nights.bring("b_20200101.tif")
    nights.night()
    assert [(d.id, d.why) for d in nights.night(config).done] == [
        ("a_20190101", "model or options changed"),
        ("b_20200101", "model or options changed"),
        ("change", "new"),
    ]


def test_masks_that_change_compare_anew(nights: Nights) -> None:
    """The clouds of a date are drawn anew: the series is compared again, nothing mapped."""
    for year in (2019, 2020):
        nights.bring(f"a_{year}0101.tif")
        mask = nights.folder / "clouds" / f"a_{year}0101.tif"
        mask.parent.mkdir(exist_ok=True)
        mask.write_text("clouds")
    change = {"mask": "clouds/{scene}.tif", "mask_rule": "scl"}
    config = nights.config(areas=[{"name": "coast", "scenes": ["in/coast"], "change": change}])
    assert len(nights.night(config).done) == 3
    assert told(nights.night(config)) == []
    (nights.folder / "clouds" / "a_20190101.tif").write_text("more clouds")
    assert told(nights.night(config)) == [("change", "ok", "dates or options changed")]


# --- runs of dates that are gone or damaged ----------------------------------------------------


def _remove(run: Path) -> None:
    shutil.rmtree(run)


def _no_record(run: Path) -> None:
    (run / "run.json").unlink()


def _cut_record(run: Path) -> None:
    content = (run / "run.json").read_bytes()
    (run / "run.json").write_bytes(content[: len(content) // 2])


def _other_labels(run: Path) -> None:
    path = run / "landcover.tif"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def _two_dates(nights: Nights, config: Any) -> Path:
    nights.bring("a_20180101.tif")
    nights.bring("a_20190101.tif")
    nights.night(config)
    (run,) = (nights.root / "work" / "coast" / "a_20180101").iterdir()
    return run


@pytest.mark.parametrize("harm", [_remove, _no_record, _cut_record, _other_labels])
def test_a_date_whose_run_is_damaged_is_mapped_again(
    nights: Nights, config: Any, harm: Callable[[Path], None]
) -> None:
    """No date is left out of its series without a word, and its product stays as it is."""
    run = _two_dates(nights, config)
    before = nights.items()
    harm(run)
    nights.fails["a_20180101"] = lambda *_: shutil.rmtree(run, ignore_errors=True)
    nights.bring("a_20200101.tif")
    outcome = nights.night(config)
    assert ("a_20180101", "ok", "its run is gone or damaged") in told(outcome)
    assert outcome.exit_code == 0
    assert nights.compared() == ["a_20180101", "a_20190101", "a_20200101"]
    assert {key: nights.items()[key] for key in before if key != "change"} == {
        key: folder for key, folder in before.items() if key != "change"
    }
    assert told(nights.night(config)) == []
    with Ledger.peek(nights.root / "ledger.sqlite") as ledger:
        assert check(ledger, nights.root) == []


def test_a_date_whose_run_and_scene_are_gone_holds_its_series(nights: Nights, config: Any) -> None:
    """The night says so and leaves the series as it is; ``forget`` leaves the date out."""
    run = _two_dates(nights, config)
    shutil.rmtree(run)
    (nights.folder / "in" / "coast" / "a_20180101.tif").unlink()
    nights.bring("a_20200101.tif")
    outcome = nights.night(config)
    assert outcome.exit_code == 3
    (text,) = [problem.text for problem in outcome.problems]
    assert "`tilemap ledger forget coast/a_20180101`" in text
    assert nights.compared() == ["a_20180101", "a_20190101"]
    with Ledger.open(nights.root / "ledger.sqlite") as ledger, acquire(ledger):
        forget(ledger, "coast", "a_20180101")
    assert nights.night(config).exit_code == 0
    assert nights.compared() == ["a_20190101", "a_20200101"]
