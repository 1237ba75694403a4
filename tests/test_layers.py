"""The layering of CONTRIBUTING.md, kept by import-linter."""

from __future__ import annotations

from pathlib import Path

import pytest
from importlinter import cli

ROOT = Path(__file__).parents[1]


def test_imports_point_down_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every import contract in pyproject.toml is kept."""
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename="pyproject.toml", cache_dir=None) == 0
