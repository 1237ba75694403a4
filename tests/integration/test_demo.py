"""The first thing a newcomer types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rio_cogeo.cogeo import cog_validate

from tilemap.cli.main import main


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model over the shipped scene, in tiles, with everything a run leaves."""
    out = tmp_path / "demo-out"
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--out", str(out)])
    assert ended.value.code == 0
    assert "water" in capsys.readouterr().out
    record = json.loads((out / "run.json").read_text())
    shares = {row["name"]: row["share"] for row in record["classes"]}
    # As measured: sea, lagoon and marsh creeks; fields and forest.
    assert shares["water"] == pytest.approx(0.42, abs=0.03)
    assert shares["land"] == pytest.approx(0.51, abs=0.03)
    assert record["seam"]["pixels"] > 10_000
    assert record["seam"]["share"] < 0.01
    assert record["memory"]["peak_bytes"] <= record["memory"]["planned_bytes"]
    for name in ("landcover.tif", "confidence.tif"):
        assert cog_validate(str(out / name), strict=True)[0]
    assert (out / "quicklook.png").read_bytes()[1:4] == b"PNG"
    assert "<svg" in (out / "report.html").read_text()
