"""Scenes, stores and products that are not on this disk, through the whole pipeline."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tilemap import api
from tilemap.api import demo_scene
from tilemap.cli.main import main

pytestmark = pytest.mark.slow

pytest.importorskip("onnxruntime")
MODEL = "iplunet-cloud-6b"
OPTIONS: dict[str, Any] = {"model": MODEL, "core": 320, "workers": 2}


def _load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "stores" / "remote" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"remote_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


hosts = _load("server")


def _run(*arguments: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


@pytest.fixture
def served() -> Iterator[Any]:
    """A host that has the scene that ships."""
    with hosts.RangeServer() as server:
        for path in demo_scene():
            server.files[path.name] = path.read_bytes()
        yield server


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scene mapped from this disk."""
    out = tmp_path_factory.mktemp("remote") / "local"
    api.segment(demo_scene(), out=out, **OPTIONS)
    return out


def test_a_remote_scene_becomes_the_same_map(served: Any, local: Path, tmp_path: Path):
    """Byte for byte, with failures on the way; requests are few, connections fewer."""
    served.faults.extend([hosts.Fault(503), hosts.Fault(503), None, hosts.Fault(cut=9)] * 3)
    scenes = [served.url(f"{path.name}?sig=hunter2") for path in demo_scene()]
    out = tmp_path / "out"
    result = api.segment(scenes, out=out, allow_hosts=[served.host], **OPTIONS)
    assert result.status == "ok"
    for name in ("landcover.tif", "confidence.tif"):
        assert (out / name).read_bytes() == (local / name).read_bytes(), name
    assert served.busiest <= 3 * 8  # the driver and two workers
    assert len(served.log) < 150
    assert all(asked.range for asked in served.log)
    for path in out.rglob("*"):
        if path.suffix in (".json", ".html"):
            assert "hunter2" not in path.read_text()
    inputs = json.loads((out / "run.json").read_text())["identity"]["inputs"]
    assert [one["name"] for one in inputs] == [path.name for path in demo_scene()]
    again = api.segment(scenes, out=out, allow_hosts=[served.host], **OPTIONS)
    assert again.resumed == again.record["tasks"]["total"]


def test_the_command_asks_no_host_that_is_not_listed(
    served: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """One line that names host and option, exit code of bad data, nothing made, nothing asked."""
    out = tmp_path / "out"
    command = ["segment", served.url(demo_scene()[0].name), "-m", MODEL, "-o", str(out)]
    assert _run(*command) == 65
    told = capsys.readouterr().err
    assert f"--allow-host {served.host}" in told
    assert len(told.splitlines()) == 1
    assert _run(*command, "--allow-host", "https://*") == 2
    assert served.log == []
    assert not out.exists()
    address = served.url("missing.tif")
    assert _run("plan", address, "-m", MODEL, "--allow-host", served.host) == 65
    assert "no such file" in capsys.readouterr().err
