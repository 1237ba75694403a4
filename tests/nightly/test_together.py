"""Several scenes at a time: together where memory allows it, told and published one by one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tilemap.errors import OutputError, SceneError
from tilemap.nightly.hands import Hands
from tilemap.nightly.works import Work

from .conftest import Nights
from .test_passing import told, whole

MANY = {"root": "out", "together": 3}


@pytest.fixture
def config(nights: Nights) -> Any:
    """Three at a time, and a series."""
    return nights.config(nightly=MANY, areas=[{"name": "coast", "scenes": ["in/coast"]}])


def work(name: str) -> Work:
    """A scene to map."""
    return Work("coast", "map", name, "digest", None, "new")


def test_one_pair_of_hands_works_where_it_waits() -> None:
    """In the calling thread, so that a person's Ctrl-C reaches it."""
    threads = []
    with Hands(1, lambda _: threads.append(threading.current_thread())) as hands:  # type: ignore[arg-type]
        hands.begin(work("a"))
        assert not hands.free
        assert threads == []
        hands.wait()
    assert threads == [threading.main_thread()]


def test_more_hands_work_at_once() -> None:
    """All have begun before one ends; who ends first is told first."""
    barrier, release = threading.Barrier(3), {name: threading.Event() for name in "abc"}

    def do(one: Work) -> Any:
        barrier.wait(10)
        release[one.id].wait(10)
        if one.id == "c":
            raise ValueError("c")
        return one.id

    with Hands(3, do) as hands:
        for name in "abc":
            hands.begin(work(name))
        assert [one.id for one in hands.busy] == ["a", "b", "c"]
        assert not hands.free
        for name in "cba":
            release[name].set()
            ended = hands.wait()
            assert ended.work.id == name
            assert str(ended.error or ended.made) == name
        assert hands.busy == ()


def test_scenes_of_one_model_are_mapped_together(nights: Nights, config: Any) -> None:
    """Three wait for each other; the series comes when all have ended."""
    barrier = threading.Barrier(3)
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
        nights.fails[f"a_{year}0101"] = lambda *_: barrier.wait(10)
    alone: list[int] = []
    nights.fails["change"] = lambda *_: alone.append(barrier.n_waiting)
    outcome = nights.night(config)
    assert (outcome.status, outcome.exit_code) == ("ok", 0)
    assert {d.id for d in outcome.done[:3]} == {f"a_{y}0101" for y in (2018, 2019, 2020)}
    assert [d.id for d in outcome.done[3:]] == ["change"]
    assert alone == [0]
    whole(nights)
    assert told(nights.night(config)) == []


def test_other_models_wait(nights: Nights) -> None:
    """What a worker holds was planned for one model."""
    at_once, most = [0], [0]

    def count(*_: Any) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.2)
        at_once[0] -= 1

    areas = []
    for name, model in (("one", "iplunet-cloud-6b"), ("two", "tilemap-demo-5class")):
        nights.bring(f"{name}_20200101.tif", name)
        nights.fails[f"{name}_20200101"] = count
        areas.append({"name": name, "scenes": [f"in/{name}"], "series": False, "model": model})
    outcome = nights.night(nights.config(nightly=MANY, areas=areas))
    assert len(outcome.done) == 2
    assert most == [1]


def test_one_that_fails_leaves_the_others(nights: Nights, config: Any) -> None:
    """It is set aside; those beside it are published."""
    for year in (2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
    nights.fails["a_20190101"] = SceneError("truncated")
    outcome = nights.night(config)
    assert outcome.exit_code == 3
    found = {d.id: d.status for d in outcome.done}
    assert found.pop("a_20190101") == "quarantined"
    assert set(found.values()) == {"ok"}
    assert nights.compared() == ["a_20180101", "a_20200101"]
    whole(nights)


def test_one_that_ends_the_pass_leaves_the_others_to_the_next(nights: Nights, config: Any) -> None:
    """No room: what ran beside it is told as interrupted, waits, and is continued."""
    slow = threading.Event()
    nights.bring("a_20180101.tif")
    nights.bring("a_20190101.tif")
    nights.fails["a_20180101"] = lambda *_: slow.wait(10)
    nights.fails["a_20190101"] = OutputError("the run may need up to 3 GB")
    outcome = nights.night(config)
    slow.set()
    assert (outcome.status, outcome.exit_code) == ("failed", 73)
    assert {(d.id, d.status) for d in outcome.done} == {
        ("a_20180101", "interrupted"), ("a_20190101", "interrupted"),
    }  # fmt: skip
    assert {w.id for w in outcome.waiting} == {"a_20180101", "a_20190101"}
    nights.fails.clear()
    time.sleep(0.3)
    assert {d.status for d in nights.night(config).done} == {"ok"}
    whole(nights)


def test_budget_waits_for_what_was_begun(nights: Nights, config: Any) -> None:
    """What runs when it is over ends and is published; the rest waits."""
    for year in (2017, 2018, 2019, 2020):
        nights.bring(f"a_{year}0101.tif")
        nights.fails[f"a_{year}0101"] = lambda *_: time.sleep(0.4)
    outcome = nights.night(config, budget_s=0.2)
    assert outcome.status == "over"
    assert {d.id for d in outcome.done} == {"a_20170101", "a_20180101", "a_20190101"}
    assert [w.id for w in outcome.waiting] == ["a_20200101"]
    whole(nights)
