"""A night that brings nothing is quick: nothing heavy is imported to find that out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from types import SimpleNamespace as Table
from tilemap.nightly.discovery.folders import look_in_folders
from tilemap.nightly.discovery.looking import Moment
area = Table(name="a", scenes=(sys.argv[1],), scene_pattern=None, since=None, until=None)
found, problems = look_in_folders(area, Moment(9e9, 1.0, lambda *_: False), frozenset())
assert [one.id for one in found] == ["a"], (found, problems)
heavy = ("torch", "dask", "rasterio", "numpy", "pystac", "pystac_client", "requests", "urllib3")
print([name for name in heavy if name in sys.modules])
"""


def test_folders_are_looked_through_without_anything_heavy(tmp_path: Path) -> None:
    """In a fresh interpreter."""
    (tmp_path / "a.tif").write_bytes(b"x")
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"
