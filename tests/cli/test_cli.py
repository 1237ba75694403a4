"""The command line: help a newcomer understands; bad input is one or two lines and a code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import rasterio

from tilemap.api import demo_scene
from tilemap.cli.main import main
from tilemap.cluster import settings
from tilemap.errors import EXIT_BUG
from tilemap.models import registry
from tilemap.testing import random_scene, write_geotiff

pytest.importorskip("onnxruntime")
MODEL = "iplunet-cloud-6b"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
COMMANDS = [
    [], ["demo"], ["plan"], ["segment"], ["models"], ["models", "list"], ["models", "show"],
    ["models", "import"], ["models", "probe"], ["models", "export"], ["models", "quantize"],
    ["models", "prune"], ["train"], ["evaluate"], ["change"], ["sample"], ["area"],
]  # fmt: skip


class Ran(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a person works in: a real scene of six bands, 200 x 230 pixels."""
    monkeypatch.chdir(tmp_path)
    with rasterio.open(demo_scene()[0]) as fine, rasterio.open(demo_scene()[1]) as coarse:
        bands = [fine.read(window=((300, 500), (400, 630)))]
        bands.append(coarse.read(window=((150, 250), (200, 315))).repeat(2, 1).repeat(2, 2))
    write_geotiff(tmp_path / "scene.tif", np.concatenate(bands), names=BANDS, scale=1e-4)
    return tmp_path


Run = Callable[..., Ran]


@pytest.fixture
def tilemap(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; sees what its workers print as well."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, out, err)

    return run


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in folder.rglob("*")
        if not p.name.startswith(".coverage")  # of the measurement of the tests themselves
    }


@pytest.fixture
def refused(tilemap: Run, folder: Path) -> Callable[..., str]:
    """Runs a command that must fail: its error, after all that must hold of every error."""

    def run(code: int, *arguments: object) -> str:
        before = _contents(folder)
        ran = tilemap(*arguments)
        assert ran.code == code, ran
        assert _contents(folder) == before
        assert "Traceback" not in ran.err + ran.out
        assert "distributed" not in ran.err
        told, error = ran.err.split("error: ", 1) if "error: " in ran.err else ("", ran.err)
        assert 1 <= len(error.strip().splitlines()) <= 2, ran.err
        # before it at most the plan, never a log
        assert all(re.match(r"[a-z]+ {2,}\S|dashboard ", line) for line in told.splitlines()), told
        return error

    return run


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_tells_what_it_is_for(tilemap: Run, command: list[str]) -> None:
    """Exit 0, a sentence, and a text for every option and argument."""
    ran = tilemap(*command, "--help")
    assert ran.code == 0
    assert ran.err == ""
    lines = [line.strip() for line in ran.out.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: ")
    assert re.search(r"^\s*[A-Z][^\n]{20,}", ran.out.split("Usage:")[1].split("\n", 1)[1], re.M)
    for option in re.findall(r"^ +(--[a-z-]+)([^\n]*(?:\n {12,}[^\n]*)*)", ran.out, re.M):
        text = re.sub(r"\[[^]]*\]|<[^>]*>", "", option[1])  # without default and type
        assert re.search(r"\w{4,}.*\.\s*$", text, re.DOTALL), option
    assert "locals" not in ran.out


def test_the_first_help_names_commands_and_exit_codes(tilemap: Run) -> None:
    """Also without any argument; asking for nothing is no success."""
    for arguments in (["--help"], []):
        ran = tilemap(*arguments)
        shown = ran.out + ran.err
        for word in ("demo", "plan", "segment", "models", "65 bad data", "--version"):
            assert word in shown
    assert tilemap("--version").out.startswith("tilemap ")


def test_it_runs_as_a_command() -> None:
    """Installed, and as a module."""
    for command in (
        [shutil.which("tilemap") or "tilemap"],
        [sys.executable, "-m", "tilemap.cli.main"],
    ):
        with contextlib.suppress(FileNotFoundError):
            ran = subprocess.run(
                [*command, "--version"], capture_output=True, text=True, check=True
            )
            assert ran.stdout.startswith("tilemap ")


# --- usage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["segmant"],
        ["segment"],
        ["segment", "scene.tif"],
        ["segment", "scene.tif", "--model", MODEL],
        ["segment", "scene.tif", "--model", MODEL, "--out", "out", "--core", "many"],
        ["segment", "scene.tif", "--model", MODEL, "--out", "out", "--colour"],
        ["models", "show"],
        ["models", "probe", MODEL, "scene.tif", "--regions", "0"],
    ],
)
def test_wrong_usage_is_told_with_the_usage(
    tilemap: Run, folder: Path, arguments: list[str]
) -> None:
    """Exit 2, and where help is to be had."""
    before = _contents(folder)
    ran = tilemap(*arguments)
    assert ran.code == 2
    assert "Usage: " in ran.err
    assert "Traceback" not in ran.err
    assert _contents(folder) == before


# --- the scene ---------------------------------------------------------------------------------


def _segment(scene: object = "scene.tif", **options: object) -> list[object]:
    named = {"model": MODEL, "out": "out", "workers": 1, **options}
    flags = [(f"--{key.replace('_', '-')}", value) for key, value in named.items()]
    return ["segment", scene, *(part for flag in flags for part in flag if part is not True)]


def test_a_missing_file(refused: Callable[..., str]) -> None:
    """Named as it was given."""
    assert "gone.tif" in refused(65, *_segment("gone.tif"))
    assert "gone.tif" in refused(65, "plan", "gone.tif", "--model", MODEL)
    assert "like.tif" in refused(65, *_segment(like="like.tif"))


def test_files_of_two_days(refused: Callable[..., str], tilemap: Run, folder: Path) -> None:
    """Refused by plan and segment, with both days and the flag that allows it."""
    (folder / "days").mkdir()
    for name, rows in (("S_20190601.tif", 60), ("S_20200601.tif", 70)):
        image = random_scene((rows, 80), 6)
        write_geotiff(folder / "days" / name, image, names=BANDS, scale=1e-4)
    for command in (_segment("days"), ["plan", "days", "--model", MODEL]):
        told = refused(65, *command)
        assert "S_20190601.tif is of 2019-06-01" in told
        assert "S_20200601.tif of 2020-06-01" in told
        assert "--mosaic" in told
    ran = tilemap("plan", "days", "--model", MODEL, "--mosaic", "--workers", 1)
    assert ran.code == 0, ran.err
    assert "files of several days are one scene" in ran.out + ran.err


def test_not_a_raster(refused: Callable[..., str], folder: Path) -> None:
    """Whatever its name says."""
    (folder / "notes.tif").write_text("Dear diary")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("notes.tif", "empty.tif", "picture.png"):
        assert name in refused(65, *_segment(name))
    (folder / "nothing").mkdir()
    assert "nothing" in refused(65, *_segment("nothing"))


@pytest.mark.parametrize("layout", ["tiled", "stripped", "cog"])
def test_a_truncated_geotiff(refused: Callable[..., str], folder: Path, layout: str) -> None:
    """Wherever it was cut, it is found when it is opened, not in the middle of the night."""
    image = random_scene((200, 230), bands=6)
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64} if layout == "tiled" else {}
    path = folder / "whole.tif"
    write_geotiff(path, image, names=BANDS, scale=1e-4, compress="deflate", **options)
    if layout == "cog":
        import rasterio.shutil

        rasterio.shutil.copy(path, folder / "cog.tif", driver="COG")
        (folder / "cog.tif").replace(path)
    whole = path.read_bytes()
    cut = folder / "cut.tif"
    for kept in (
        3,
        8,
        100,
        len(whole) // 10,
        len(whole) // 2,
        len(whole) * 9 // 10,
        len(whole) - 9,
    ):
        cut.write_bytes(whole[:kept])
        assert "cut.tif" in refused(65, *_segment("cut.tif")), kept


def test_a_missing_band_names_both_lists(refused: Callable[..., str], folder: Path) -> None:
    """What the model needs, what there is, and how to say otherwise."""
    write_geotiff(folder / "rgb.tif", random_scene(), names=("red", "green", "blue"), scale=1e-4)
    error = refused(65, *_segment("rgb.tif"))
    for band in BANDS:
        assert band in error
    assert "red, green, blue" in error


def test_integers_without_a_scale(refused: Callable[..., str], folder: Path) -> None:
    """The error says what is to be given, and no number that may be another product's."""
    write_geotiff(folder / "dn.tif", random_scene(bands=6), names=BANDS)
    error = refused(65, *_segment("dn.tif"))
    assert "give the scale, the offset and the nodata" in error
    assert "0.0001" not in error


# --- the model ---------------------------------------------------------------------------------


def test_an_unknown_model(refused: Callable[..., str]) -> None:
    """With those there are."""
    assert MODEL in refused(65, *_segment(model="unet"))
    assert MODEL in refused(65, "models", "show", "unet")


def _model_folder(folder: Path, **changes: object) -> Path:
    shipped = registry.resolve(MODEL)
    shutil.copytree(shipped.path.parent, folder / "model")
    fields = {**shipped.card.model_dump(mode="json"), **changes}
    (folder / "model" / "model.json").write_text(json.dumps(fields))
    return folder / "model"


def test_a_model_that_is_not_the_one_of_its_card(refused: Callable[..., str], folder: Path) -> None:
    """Another digest."""
    model = _model_folder(folder)
    with (model / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert "sha256" in refused(65, *_segment(model="model"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bands": ["red", "green", "blue"]}, "input"),
        ({"layout": "NHWC"}, "input"),
        (
            {
                "classes": [
                    {"value": value, "name": f"class {value}", "color": "#000000"}
                    for value in range(3)
                ]
            },
            "output",
        ),
        ({"stride": 0}, "stride"),
    ],
)
def test_a_card_that_contradicts_its_file(
    refused: Callable[..., str], folder: Path, changes: dict[str, object], says: str
) -> None:
    """Bands, layout, classes: found before anything is done."""
    _model_folder(folder, **changes)
    assert says in refused(65, *_segment(model="model"))


def test_models_that_do_not_fit_together(refused: Callable[..., str], folder: Path) -> None:
    """Both are named, with what they have."""
    classes = [{"value": v, "name": f"class {v}", "color": "#000000"} for v in range(2)]
    _model_folder(folder, name="mine", classes=classes)
    error = refused(65, *_segment(), "--model", "model")
    assert "the same classes: iplunet-cloud-6b has 0 clear, 1 cloud; mine has 0 class 0" in error


def test_several_forwards_are_told_before_they_are_paid_for(tilemap: Run, folder: Path) -> None:
    """The models, what each does to a patch, and how it compares with one."""
    _model_folder(folder, name="mine", mean=[0.01] * 6)
    ran = tilemap(
        "plan", "scene.tif", "--model", MODEL, "-m", "model", "--tta", "flips", "--workers", 1,
        "--uncertainty", "margin, entropy", "--core", 64,
    )  # fmt: skip
    assert ran.code == 0, ran
    forwards = r"^cost     8 forwards for each patch \(2 models x 4 flips\): \d+\.\d times one$"
    assert re.search(forwards, ran.out, re.M)
    assert re.search(
        rf"^model    {MODEL}-and-mine: clear, cloud; float32 on cpu, onnxr", ran.out, re.M
    )
    tiles, exports = 4 * 4, 4
    assert re.search(rf"^tasks    {2 * tiles + exports} for 1 workers$", ran.out, re.M)


def test_a_file_that_may_run_code(refused: Callable[..., str], folder: Path) -> None:
    """A pickle is not even opened."""
    (folder / "model.pth").write_bytes(b"\x80\x04")
    assert "pickle" in refused(65, *_segment(model="model.pth"))


# --- the output --------------------------------------------------------------------------------


def test_a_directory_with_other_things_in_it(refused: Callable[..., str], folder: Path) -> None:
    """Also with --fresh: nothing of a person is taken for ours."""
    (folder / "out").mkdir()
    (folder / "out" / "landcover.tif").write_text("mine")
    assert "must be empty or hold a run" in refused(73, *_segment())
    assert "must be empty or hold a run" in refused(73, *_segment(fresh=True))
    assert "scene.tif is a file" in refused(73, *_segment(out="scene.tif"))


def test_a_directory_of_another_run(refused: Callable[..., str], folder: Path) -> None:
    """The difference is spelled out."""
    (folder / "out" / "stores").mkdir(parents=True)
    identity = {"format": 1, "model": {"name": "other-model"}}
    (folder / "out" / "stores" / "identity.json").write_text(json.dumps(identity))
    error = refused(73, *_segment())
    assert "belongs to another run" in error
    assert "backend was (absent)" in error
    assert "--fresh" in error


def test_too_little_room(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before the run, with both figures."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    error = refused(73, *_segment("scene.tif", out="deep/er/out"))
    assert "0.00 GB free" in error


@pytest.fixture
def tiny_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 700 kB; only root can make one."""
    place = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up(
    refused: Callable[..., str], tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real, while tiles are written: another program took the room meanwhile."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    error = refused(74, *_segment(out=tiny_disk / "out", core=64))
    assert "No space left on device" in error


# --- where it runs -----------------------------------------------------------------------------


def test_a_memory_limit_below_one_tile(
    refused: Callable[..., str], tilemap: Run, folder: Path
) -> None:
    """It says the smallest limit that works, and that one works."""
    error = refused(78, *_segment(memory_limit="100MB"))
    (limit,) = re.findall(r"--memory-limit (\S+)", error)
    ran = tilemap("plan", "scene.tif", "--model", MODEL, "--memory-limit", limit, "--workers", 1)
    assert ran.code == 0
    (planned,) = re.findall(r"at most (\d+) MiB in each worker", ran.out)
    assert int(planned) <= int(limit.removesuffix("MiB"))
    assert "a memory limit must look like" in refused(2, *_segment(memory_limit="lots"))


@pytest.mark.parametrize(
    ("code", "options", "says"),
    [
        (2, {"core": 30}, "core must be a positive multiple of stride=4"),
        (2, {"halo": 33}, "halo must be 0 or a multiple of stride=4"),
        (2, {"blend": 90, "halo": 32}, "blend must lie between 0 and halo=32"),
        (2, {"precision": "float64"}, "precision must be"),
        (2, {"device": "tpu"}, "device must be"),
        (2, {"engine": "guess"}, "engine must be one of auto, torch"),
        (2, {"engine": "torch"}, "is an ONNX file: engine onnxruntime or openvino"),
        (2, {"tta": "mirror"}, "tta must be one of none, flips, rotations, got 'mirror'"),
        (2, {"uncertainty": "doubt"}, "uncertainty must be among entropy, margin, got 'doubt'"),
        (2, {"uncertainty": ""}, "uncertainty must be among entropy, margin, got ''"),
        (65, {"scale": 0}, "scale must be"),
        (65, {"resolution": -3}, "resolution must be"),
        (65, {"bands": "red,green"}, "--bands must name"),
        (78, {"workers": 0}, "--workers must be at least 1"),
        (78, {"scheduler": "tcp://127.0.0.1:9"}, "--workers sizes the embedded cluster"),
    ],
)
def test_options_that_cannot_hold(
    refused: Callable[..., str], code: int, options: dict[str, object], says: str
) -> None:
    """Each says what must hold and what came."""
    assert says in refused(code, *_segment(**options))


def test_a_scheduler_that_does_not_answer(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output directory is taken away again, and Dask's own words are not heard."""
    monkeypatch.setattr(settings, "CONNECT_TIMEOUT_S", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for code, address in (
        (69, f"tcp://127.0.0.1:{port}"),
        (69, "tls://no.such.host.invalid:8786"),
        (78, "tcp://no.such.host.invalid:8786"),
        (78, "nonsense"),
    ):
        arguments = [
            "segment", "scene.tif", "--model", MODEL, "--out", "a/b", "--scheduler", address
        ]  # fmt: skip
        assert address in refused(code, *arguments)


def test_an_interrupt_and_a_bug(
    tilemap: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control-C says how to go on; a bug says so, and where its traceback is."""
    for error, code, says in (
        (KeyboardInterrupt(), 130, "the same command continues"),
        (ZeroDivisionError("division by zero"), EXIT_BUG, "a bug in tilemap: ZeroDivisionError"),
    ):
        monkeypatch.setattr(
            registry, "resolve", lambda _, error=error: (_ for _ in ()).throw(error)
        )
        ran = tilemap("plan", "scene.tif", "--model", MODEL)
        assert ran.code == code
        assert says in ran.err
        assert "Traceback" not in ran.err
    assert "Traceback" in tilemap("--debug", "plan", "scene.tif", "--model", MODEL).err


# --- models ------------------------------------------------------------------------------------


def test_models_are_listed_and_shown(tilemap: Run) -> None:
    """The real ones, each with its bands and classes."""
    listed = tilemap("models", "list")
    assert listed.code == 0
    assert MODEL in listed.out
    shown = tilemap("models", "show", MODEL)
    assert shown.code == 0
    for text in (*BANDS, "clear", "cloud", "MIT"):
        assert text in shown.out


def test_plan_changes_nothing(tilemap: Run, folder: Path) -> None:
    """Grid, tasks, disk, memory, time, for a person."""
    before = _contents(folder)
    ran = tilemap("plan", "scene.tif", "--model", MODEL, "--workers", 2)
    assert ran.code == 0
    for word in ("scene", "model", "grid", "tasks", "disk", "memory", "time"):
        assert re.search(rf"^{word} ", ran.out, re.M)
    assert _contents(folder) == before


def test_probabilities_are_kept_where_they_are_asked_for(tilemap: Run, folder: Path) -> None:
    """Beside the map, also where the other stores are discarded."""
    ran = tilemap(*_segment(core=64, probabilities=True, discard_stores=True))
    assert ran.code == 0, ran
    assert (folder / "out" / "probabilities.zarr" / "zarr.json").is_file()
    assert not (folder / "out" / "stores").exists()
