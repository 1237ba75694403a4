"""A folder of files whose times are set, and a pass over it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tilemap.nightly.config import parse_config
from tilemap.nightly.discovery import discover
from tilemap.nightly.facts import Found, Problem

NOW = 1_700_000_000.0
Known = Callable[[str, tuple[Mapping[str, Any], ...]], bool]


def nothing_known(_id: str, _fingerprint: tuple[Mapping[str, Any], ...]) -> bool:
    """As in a first pass."""
    return False


@dataclass
class Site:
    """A folder with incoming scenes, and passes over it."""

    root: Path
    problems: tuple[Problem, ...] = field(default=())

    def put(self, name: str, content: bytes = b"content", age: float = 3600.0) -> Path:
        """A file that was modified so many seconds ago."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (NOW - age, NOW - age))
        return path

    def discover(
        self, *scenes: str, known: Known = nothing_known, now: float = NOW, **area: Any
    ) -> dict[str, Found]:
        """One look at one area; scenes by id, each of which must be there once."""
        top = {key: area.pop(key) for key in ("nightly", "remote", "publish") if key in area}
        table = {
            "model": "m",
            "nightly": {"root": "out", **top.pop("nightly", {})},
            "areas": [{"name": "coast", "scenes": list(scenes), **area}],
            **top,
        }
        config = parse_config(table, self.root)
        found, self.problems = discover(config.areas[0], config, now, known)
        by_id = {scene.id: scene for scene in found}
        assert len(by_id) == len(found), [scene.id for scene in found]
        return by_id

    @property
    def told(self) -> str:
        """The problems of the last look."""
        return "\n".join(problem.text for problem in self.problems)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty one."""
    return Site(tmp_path)
