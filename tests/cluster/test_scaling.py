"""The model of a night: it obeys what bounds it, and the page shows what it says."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> Any:
    """The script, as a module."""
    path = ROOT / "tests" / "benchmarks" / "model_scaling.py"
    spec = spec_from_file_location("model_scaling", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["model_scaling"] = module
    spec.loader.exec_module(module)
    return module


def test_nothing_is_quicker_than_its_bounds(model: Any) -> None:
    """Of scheduler, workers, bytes and files, whichever is the tightest."""
    costs, pixels = model.Costs(), 2e8
    tiles = (round(pixels**0.5 / model.CORE)) ** 2
    free = model.Site(cpus=10_000, forward_s=0.0, store_bytes_s=1e18, store_ops_s=1e18)
    none = replace(costs, read_s=0.0, stitch_s=0.0, driver_s=0.0)
    bounds = {
        "scheduler": (free, none, 2 * tiles * costs.scheduler_s),
        "workers": (replace(free, cpus=4, forward_s=1.0), none, tiles * 1.0 / 4),
        "bytes": (
            replace(free, store_bytes_s=1e7), none, tiles * model.CORE**2 * 8 / 1e7,
        ),
        "files": (replace(free, store_ops_s=100), none, tiles * costs.store_files / 100),
    }  # fmt: skip
    for name, (site, prices, least) in bounds.items():
        scene = model.map_scene(pixels, site, prices)
        assert scene.map_s >= 0.9 * least, name
        assert scene.tightest == name
        assert scene.busy[name] > 0.3


def test_twice_the_workers_take_half_the_time(model: Any) -> None:
    """As long as nothing else is tight."""
    site = model.Site(cpus=8, forward_s=5.0, store_bytes_s=1e18, store_ops_s=1e18)
    one = model.map_scene(3e8, site, model.Costs())
    two = model.map_scene(3e8, replace(site, cpus=16), model.Costs())
    assert 1.7 < one.map_s / two.map_s < 2.1


def test_gpus_are_kept_busy_by_those_that_read(model: Any) -> None:
    """Patches lie ready for them, and no more than a few for each."""
    site = model.Site(cpus=40, gpus=4, forward_s=0.2, keep_tiles=True)
    free = replace(site, store_bytes_s=1e18, store_ops_s=1e18)
    scene = model.map_scene(4e8, free, model.Costs())
    tiles = scene.pixels / model.CORE**2
    overhead = ((model.CORE + 2 * model.HALO) / model.CORE) ** 2
    least = tiles * 0.2 * model.CORE**2 / 1e6 * overhead / 4
    assert scene.map_s < 1.35 * least


def test_the_page_shows_what_the_model_says(model: Any) -> None:
    """Rows of docs/scaling.md, made again."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith("| 1.2e+08")]
    assert len(shown) == 9
    found = model.night(1.2e8, 10, model.Site(), model.Costs())
    scene = found.scene
    row = (
        f"| {scene.map_s:.0f}, {scene.export_s:.0f}, {scene.serial_s:.0f} | {found.hours:.1f} "
        f"| {scene.tightest} {scene.busy[scene.tightest]:.0%} |"
    )
    assert shown[1].endswith(row)
