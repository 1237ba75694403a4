"""Nothing is lost: kill anything at any moment, run the same command again, get the same bytes.

``TILEMAP_KILLS`` says how many moments are tried (default 4; 20 takes about five minutes).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tilemap.api import demo_scene
from tilemap.cluster import THREADS_PER_WORKER

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TILEMAP_KILLS", "4"))
WORKERS = 2
PRODUCTS = ("landcover.tif", "confidence.tif", "landcover.tif.aux.xml", "landcover.qml")


def _command(out: Path) -> list[str]:
    scenes = [str(path) for path in demo_scene()]
    return [
        sys.executable, "-m", "tilemap.cli.main", "segment", *scenes, "--model",
        "iplunet-cloud-6b", "--core", "96", "--workers", str(WORKERS), "--out", str(out),
    ]  # fmt: skip


def _start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(out: Path) -> dict[str, object]:
    done = subprocess.run(_command(out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record: dict[str, object] = json.loads((out / "run.json").read_text())
    return record


def _products(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in PRODUCTS}


def _marked(out: Path) -> dict[Path, int]:
    """Chunks of the tiles marked done in the prediction store, with the time they were written."""
    store = out / "stores" / "predictions.zarr"
    marks = (store / "done" / "c").glob("*/*")
    chunks = [store / "label" / "c" / mark.parent.name / mark.name for mark in marks]
    return {chunk: chunk.stat().st_mtime_ns for chunk in chunks}


def _unmarked(out: Path) -> int:
    """Tiles of which something was written but which are not marked done."""
    store = out / "stores" / "predictions.zarr"
    marks = {(m.parent.name, m.name) for m in (store / "done" / "c").glob("*/*")}
    begun = {(c.parent.name, c.name) for c in (store / "label" / "c").glob("*/*")}
    return len({b for b in begun if "." not in b[1]} - marks)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, bytes], float]:
    """Products of a run that nobody disturbs, and the seconds it takes."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    _finish(out)  # measures the model, which only the first run does
    start = time.monotonic()
    subprocess.run([*_command(out), "--fresh"], check=True, capture_output=True)
    return _products(out), time.monotonic() - start


@pytest.mark.parametrize("moment", range(KILLS))
def test_killed_at_a_random_moment(
    moment: int, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """SIGKILL to the whole process group; what was marked done is not done again."""
    want, seconds = undisturbed
    # One moment in each of KILLS equal parts of the run, so that all of it is covered.
    share = (moment + random.Random(moment).random()) / KILLS
    out = tmp_path / "run"
    process = _start(out)
    time.sleep(share * seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.3)  # let the last write of a dying process land
    marked, begun = _marked(out), _unmarked(out)
    record = _finish(out)
    assert _products(out) == want
    assert begun <= WORKERS * THREADS_PER_WORKER
    after = _marked(out)
    assert {chunk: after[chunk] for chunk in marked} == marked
    tasks = record["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["done"] + tasks["resumed"] == tasks["total"]


def test_a_killed_worker_is_replaced(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """A worker process killed in the middle: the run goes on and ends ok, with the same bytes."""
    out = tmp_path / "run"
    process = _start(out)
    deadline = time.monotonic() + 120
    while len(list((out / "stores" / "predictions.zarr" / "done" / "c").glob("*/*"))) < 8:
        assert process.poll() is None, "the run ended before a worker could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [c for c in children if "spawn_main" in " ".join(c.cmdline())]
    assert workers
    workers[-1].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert _products(out) == undisturbed[0]


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_chunks_are_made_again(
    undisturbed: tuple[dict[str, bytes], float], tmp_path: Path
) -> None:
    """A flipped bit and a lost chunk, found when the run continues: the same bytes in the end."""
    out = tmp_path / "run"
    _finish(out)
    stores = out / "stores"
    (out / "run.json").unlink()
    shutil.rmtree(stores / "map.zarr" / "done" / "c")
    predictions = stores / "predictions.zarr"
    _flip_a_bit(predictions / "label" / "c" / "0" / "1")
    _flip_a_bit(predictions / "right" / "c" / "3" / "3" / "0" / "0" / "0")
    (predictions / "bottom" / "c" / "5" / "2" / "0" / "0" / "0").unlink()
    _flip_a_bit(stores / "tiles.zarr" / "image" / "c" / "3" / "3" / "0" / "0" / "0")
    record = _finish(out)
    assert _products(out) == undisturbed[0]
    tasks = record["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["retried"] >= 2
