"""``tilemap nightly`` as it is run: real passes, and what a person or a timer may do to them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tilemap.api import demo_scene
from tilemap.nightly.ledger import Ledger
from tilemap.testing import write_geotiff

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
CONFIG = """
model = "iplunet-cloud-6b"
[nightly]
root = "out"
[cluster]
workers = 1
[[areas]]
name = "coast"
scenes = ["incoming"]
series = false
"""


@pytest.fixture(scope="module")
def pixels() -> Any:
    """A real scene of six bands, 200 x 230 pixels."""
    with rasterio.open(demo_scene()[0]) as fine, rasterio.open(demo_scene()[1]) as coarse:
        bands = [fine.read(window=((300, 500), (400, 630)))]
        bands.append(coarse.read(window=((150, 250), (200, 315))).repeat(2, 1).repeat(2, 2))
    return np.concatenate(bands)


@pytest.fixture
def site(tmp_path: Path, pixels: Any) -> Path:
    """A folder with a configuration and one scene."""
    (tmp_path / "nightly.toml").write_text(CONFIG)
    bring(tmp_path, pixels, "s_20200101.tif")
    return tmp_path


def bring(folder: Path, pixels: Any, name: str) -> None:
    """A scene arrives, long ago."""
    path = folder / "incoming" / name
    path.parent.mkdir(exist_ok=True)
    write_geotiff(path, pixels, names=BANDS, scale=1e-4)
    os.utime(path, (1_600_000_000, 1_600_000_000))


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """One pass, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tilemap.cli.main", "nightly", str(folder / "nightly.toml"), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def run(folder: Path, *more: str) -> tuple[int, str, str]:
    """One pass: exit code, output, errors."""
    process = start(folder, *more)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_event(folder: Path, name: str) -> None:
    """Until the newest log has an event."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for log in (folder / "out" / "logs").glob("*.jsonl"):
            if any(json.loads(line)["event"] == name for line in log.read_text().splitlines()):
                return
        time.sleep(0.05)
    pytest.fail(f"no event {name!r} came")


def test_a_pass_and_another(site: Path) -> None:
    """The first maps the scene, the second has nothing to do; both tell it in a few lines."""
    code, out, err = run(site)
    assert (code, "Traceback" in err) == (0, False), err
    assert "coast/s_20200101, new" in out
    assert (site / "out" / "products" / "catalog.json").is_file()
    assert (site / "out" / "summary.html").is_file()
    code, out, err = run(site)
    assert code == 0, err
    assert "Nothing was new" in out


def test_a_folder_of_two_days_is_set_aside(site: Path, pixels: Any) -> None:
    """Files of several days are scenes each; a folder of two is one only where that is said."""
    (site / "nightly.toml").write_text(CONFIG.replace('["incoming"]', '["incoming/*"]'))
    (site / "incoming" / "both").mkdir()
    bring(site, pixels, "s_20200301.tif")
    bring(site, pixels, "both/s_20200101.tif")
    bring(site, pixels[:, :190], "both/s_20200301.tif")
    code, out, err = run(site)
    assert code == 3, err
    assert "2 done, 1 failed" in out
    assert "one day: " in out
    with (site / "nightly.toml").open("a") as config:
        config.write("[areas.segment]\nmosaic = true\n")
    code, out, err = run(site)
    assert code == 0, err
    assert "coast/both" in out


def test_dry_run_leaves_nothing(site: Path) -> None:
    """It tells what would be done."""
    before = sorted(site.rglob("*"))
    code, out, err = run(site, "--dry-run")
    assert code == 0, err
    assert "coast/s_20200101: new" in out
    assert sorted(site.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "more", "code", "told"),
    [
        ("[cluster]", "[clutser]", (), 78, "did you mean 'cluster'"),
        ("scenes =", "sceens =", (), 78, "did you mean 'scenes'"),
        ("", "", ("--budget", "soon"), 2, "a duration must look like"),
        ("", "", ("--area", "sea"), 2, "--area must be one of coast, got 'sea'"),
        ('root = "out"', 'root = "nightly.toml/x"', (), 73, "cannot create"),
    ],
)
def test_what_is_wrong_is_told(
    site: Path, old: str, new: str, more: tuple[str, ...], code: int, told: str
) -> None:
    """Exit code, one or two lines, nothing left."""
    config = site / "nightly.toml"
    config.write_text(CONFIG.replace(old, new))
    before = sorted(site.rglob("*"))
    found, _, err = run(site, *more)
    assert found == code, err
    assert told in err
    assert err.count("\n") <= 2
    assert sorted(site.rglob("*")) == before


def test_cron_overlap(site: Path) -> None:
    """A pass that hangs holds the lock; a second one says who, exits 75 and touches nothing."""
    first = start(site)
    try:
        wait_for_event(site, "begin")
        os.kill(first.pid, signal.SIGSTOP)
        code, _, err = run(site)
        assert code == 75, err
        assert f"{first.pid}" in err
        assert err.count("\n") <= 2
        os.kill(first.pid, signal.SIGCONT)
        out, err = first.communicate(timeout=120)
        assert first.returncode == 0, err
        assert "1 done" in out
    finally:
        end(first)


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of a pass behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_unreachable_scheduler(site: Path) -> None:
    """Exit code 69 within the time that is stated, which the error repeats; the scene waits."""
    config = site / "nightly.toml"
    table = '[cluster]\nkind = "address"\nscheduler = "tcp://127.0.0.1:9"\ntimeout_s = 2'
    config.write_text(CONFIG.replace("[cluster]\nworkers = 1", table))
    code, out, err = run(site)
    assert code == 69, err
    assert "127.0.0.1:9 within 2 s" in err
    record = json.loads((site / "out" / "summary.json").read_text())
    assert [one["id"] for one in record["waiting"]] == ["s_20200101"]
    config.write_text(CONFIG)
    code, out, err = run(site)
    assert code == 0, err
    assert "1 done" in out


def test_certificates_that_are_not_there(site: Path) -> None:
    """The configuration is at fault, not the scene, which waits: exit code 78."""
    table = """[cluster]
kind = "address"
scheduler = "tls://127.0.0.1:9"
tls = {ca = "ca.pem", cert = "cert.pem", key = "key.pem"}
"""
    (site / "nightly.toml").write_text(CONFIG.replace("[cluster]\nworkers = 1\n", table))
    code, _, err = run(site)
    assert code == 78, err
    assert "ca.pem" in err
    record = json.loads((site / "out" / "summary.json").read_text())
    assert [one["id"] for one in record["waiting"]] == ["s_20200101"]
    assert record["quarantined"] == []


def test_ledger_of_a_newer_version(site: Path) -> None:
    """Exit code 78, both versions, the ledger as it was."""
    ledger = site / "out" / "ledger.sqlite"
    ledger.parent.mkdir()
    Ledger.open(ledger).close()
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = ledger.read_bytes()
    code, _, err = run(site)
    assert code == 78, err
    assert "999" in err
    assert ledger.read_bytes() == before


def test_stopped_by_its_service_manager(site: Path) -> None:
    """SIGTERM in the middle: the workers go, the lock is free, the next pass does the rest."""
    process = start(site)
    try:
        wait_for_event(site, "begin")
        time.sleep(1.0)
        process.terminate()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert "the same command continues" in err
        assert "Traceback" not in err
    finally:
        end(process)
    code, out, err = run(site)
    assert code == 0, err
    assert "1 done" in out or "Nothing was new" in out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 3 MiB; where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(site: Path, small_disk: Path) -> None:
    """Products that find no room have no name and no half; there is room: they are published."""
    code, _, err = run(site)
    assert code == 0, err
    products = site / "out" / "products"
    shutil.rmtree(products)
    products.symlink_to(small_disk)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = shutil.disk_usage(small_disk).free
        file.write(bytes(free - 48 * 1024))
    code, _, err = run(site)
    assert code == 74, err
    assert "No space left on device" in err
    left = [path for path in small_disk.rglob("*") if path.is_file() and path != ballast]
    assert [path for path in left if "collection" not in path.name and path.name[0] != "c"] == []
    ballast.unlink()
    code, out, err = run(site)
    assert code == 0, err
    assert "1 done" in out
    assert list(small_disk.glob("coast/s_20200101/*/landcover.tif"))
