"""The script that compares dates, on runs made by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_compares_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings on top are all that is changed; the second time nothing is left to do."""
    made = _module(ROOT / "tests" / "changing" / "conftest.py")
    labels = np.kron(np.random.default_rng(1).integers(0, 4, (6, 9)), np.ones((10, 10), int))
    labels = labels.astype(np.uint8)
    later = labels.copy()
    later[20:40, 30:60] = 2
    runs = [
        str(made.make_run(tmp_path / f"y{year}", made.soften(one, 4, 0.99), None))
        for year, one in ((2000, labels), (2010, later), (2020, later))
    ]
    script = _module(ROOT / "workflows" / "change.py")
    for name, value in (
        ("INPUTS", runs), ("DATES", None), ("MODEL", None), ("OUT", tmp_path / "out"),
    ):  # fmt: skip
        monkeypatch.setattr(script, name, value)
    assert script.main() == 0
    said = capsys.readouterr()
    assert " to town: " in said.out
    assert f"wrote {tmp_path / 'out' / 'change.tif'}" in said.out
    assert script.main() == 0
    assert "nothing to do" in capsys.readouterr().err
