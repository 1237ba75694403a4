"""``tilemap models export|quantize|prune``: a real scene, the demo model, every bad input."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tilemap.api import demo_scene
from tilemap.cli.main import main
from tilemap.models import registry
from tilemap.scene import SceneRequest
from tilemap.stores.geotiff import open_scene
from tilemap.testing import write_geotiff

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
DEMO = "tilemap-demo-5class"
SCENE = [str(path) for path in demo_scene()]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``tilemap models`` in an empty folder, on crops of a fourth of the pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tilemap.models.probe.PATCH", 256)
    monkeypatch.setattr("tilemap.cluster.usable_cores", lambda: 1)

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["models", *map(str, arguments)])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call


def test_export_tells_what_was_compared(run: Run, tmp_path: Path) -> None:
    """One line for each engine, then where the model is; no label of the real scene changes."""
    code, out, err = run("export", DEMO, *SCENE, "--out", "onnx", "--regions", "2")
    assert (code, err) == (0, "")
    told = dict(re.findall(r"^(\w+) +([\d.]+)% of 131,072 labels differ", out, re.MULTILINE))
    assert set(told) >= {"onnxruntime"}
    assert all(float(share) <= 0.01 for share in told.values())
    assert out.endswith("exported tilemap-demo-5class-onnx into onnx\n")
    code, out, _ = run("show", "onnx")
    assert code == 0
    assert "parity_onnxruntime" in out


def test_quantize_prints_size_speed_and_labels(run: Run, tmp_path: Path) -> None:
    """Beside those of the original, in every engine, and against reference labels."""
    grid = open_scene(SceneRequest(tuple(SCENE))).scene
    labels = np.random.default_rng(1).choice([0, 1, 3], grid.shape)[None].astype(np.uint8)
    affine, crs = grid.geobox.affine, str(grid.geobox.crs)
    write_geotiff(tmp_path / "l.tif", labels, names=("label",), transform=affine, crs=crs)
    made = ["--out", "int8", "--reference", "l.tif", "--regions", "2"]
    code, out, err = run("quantize", DEMO, *SCENE, *made)
    assert (code, err) == (0, "")
    rows = re.findall(
        r"^(tilemap-demo-5class\S*) (\w+) +([\d,]+) +([\d.]+) +([\d.]+)% +([\d.]+) +([\d.]+)$",
        out,
        re.MULTILINE,
    )
    assert [row[:2] for row in rows[:2]] == [(DEMO, "torch"), (f"{DEMO}-int8", "onnxruntime")]
    size = [int(row[2].replace(",", "")) for row in rows]
    assert size[1] < 0.35 * size[0]
    assert size[1] == (tmp_path / "int8" / "model.onnx").stat().st_size
    assert (rows[0][4], rows[0][5]) == ("0.000", "1.0000")
    assert 0 < float(rows[1][4]) < 2
    assert 0.9 < float(rows[1][5]) < 1
    assert all(0 < float(row[6]) < 0.5 for row in rows)  # drawn by lot


def test_prune_with_and_without_a_scene(run: Run, tmp_path: Path) -> None:
    """Widths and bytes; with a scene, speed and labels as well."""
    code, out, err = run("prune", DEMO, "--out", "one")
    assert (code, err) == (0, "")
    assert re.search(r"^down\.2\.0\.0 +40 channels left$", out, re.MULTILINE)
    assert re.search(r"^bytes 1,5\d\d,\d{3} -> 1,2\d\d,\d{3}$", out, re.MULTILINE)
    scene = [part for path in SCENE for part in ("--scene", path)]
    code, out, _ = run("prune", DEMO, "--out", "two", "--share", "0.5", "--regions", "1", *scene)
    assert code == 0
    assert re.search(r"^tilemap-demo-5class-pruned torch .*% +0\.\d+$", out, re.MULTILINE)
    assert registry.resolve("two").card.architecture["pruned"] is True


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ["export", DEMO, *SCENE, "--out", "new", "--to", "tflite"], "exported to onnx"),
        (2, ["export", "iplunet-cloud-6b", *SCENE, "--out", "new"], "is an ONNX file already"),
        (65, ["export", "nonesuch", *SCENE, "--out", "new"], "no model 'nonesuch'"),
        (65, ["export", DEMO, "none.tif", "--out", "new"], "none.tif"),
        (73, ["export", DEMO, *SCENE, "--out", "."], "must not be there yet"),
        (2, ["quantize", DEMO, *SCENE, "--out", "new", "--allow", "0"], "allow must lie between"),
        (
            65,
            ["quantize", DEMO, *SCENE, "--out", "new", "--allow", "1e-6", "--regions", "1"],
            "nothing is kept",
        ),
        (65, ["quantize", DEMO, *SCENE, "--out", "new", "--reference", "l.tif"], "differ in"),
        (2, ["prune", DEMO, "--out", "new", "--share", "1"], "share must lie between 0 and 1"),
        (2, ["prune", DEMO, "--out", "new", "--criterion", "luck"], "criterion must be one of"),
        (2, ["prune", DEMO, "--out", "new", "--reference", "l.tif"], "needs the --scene"),
        (65, ["prune", DEMO, "--out", "new", "--scene", "none.tif"], "none.tif"),
        (2, ["prune", "iplunet-cloud-6b", "--out", "new"], "only torch models"),
    ],
)
def test_bad_input_is_a_line_and_a_code(
    run: Run, tmp_path: Path, code: int, arguments: list[str], message: str
) -> None:
    """And leaves nothing."""
    write_geotiff(tmp_path / "l.tif", np.ones((1, 50, 60), np.uint8), names=("label",))
    got, _, err = run(*arguments)
    assert got == code, err
    assert message in err
    assert 1 <= len(err.split("error: ")[1].strip().splitlines()) <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.tif"]
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("command", ["export", "quantize", "prune"])
def test_help_tells_what_it_is_for(run: Run, command: str) -> None:
    """Every option has a text."""
    code, out, _ = run(command, "--help")
    assert code == 0
    for option, text in re.findall(r"^ +(--[a-z-]+)([^\n]*(?:\n {12,}[^\n]*)*)", out, re.MULTILINE):
        assert len(re.sub(r"\[[^]]*\]|<[^>]*>|[A-Z]{3,}", "", text).strip()) > 8, option
