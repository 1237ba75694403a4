"""What is the input's or the system's fault never ends as a bug, whatever came instead."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilemap.cli.main import main
from tilemap.cluster import table as cluster_table
from tilemap.errors import EXIT_BUG, TilemapError
from tilemap.models.registry import resolve
from tilemap.nightly import config as nightly_config
from tilemap.testing import random_scene, write_geotiff
from tilemap.training import config as training_config

pytest.importorskip("onnxruntime")
MODEL = "iplunet-cloud-6b"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
STRANGE = st.sampled_from(
    [
        None, True, 0, -1, 3.5, 1e400, float("nan"), 10**400, "", "x" * 5000, "1e400", "http://[",
        "\ud800", "\0", [], {}, [[]], [["data"]], [{}], {"a": 1}, [None], "2020-13-45",
    ]
)  # fmt: skip
"""Values of other types and out of every range; each may come in place of any other."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a person works in, with a scene of six bands."""
    monkeypatch.chdir(tmp_path)
    scene = random_scene((96, 110), 6)
    write_geotiff(tmp_path / "scene.tif", scene, names=BANDS, scale=1e-4)
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    """Run a command in this process: its exit code and what it says of an error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(argument) for argument in arguments])
    text, code = err.getvalue(), ended.value.code
    assert "Traceback" not in text
    assert isinstance(code, int)
    return code, text[:2000]


def item() -> dict[str, Any]:
    """A STAC item of the scene, with what publishers write into theirs."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_33UVP",
        "geometry": None,
        "properties": {
            "datetime": "2023-06-01T10:00:00Z",
            "platform": "sentinel-2a",
            "instruments": ["msi"],
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
        },
        "links": [{"rel": "self", "href": "./item.json"}],
        "assets": {
            "all": {
                "href": "./scene.tif",
                "type": "image/tiff; application=geotiff",
                "roles": ["data"],
                "eo:bands": [{"name": name, "common_name": name} for name in BANDS],
                "raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": 0} for _ in BANDS],
            },
            "thumb": {"href": "./thumb.png", "roles": ["thumbnail"]},
        },
    }


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The address of every value within another, itself included."""
    yield here
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*here, key))


def changed(value: Any, place: tuple[Any, ...], strange: Any) -> Any:
    """A copy with another value at one address."""
    if not place:
        return strange
    value = inner = copy.deepcopy(value)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = strange
    return value


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """The value with one or two of its places changed."""
    once = st.tuples(st.sampled_from(sorted(places(value), key=repr)), STRANGE)
    return once.map(lambda change: changed(value, *change))


SEARCH = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SEARCH
@given(content=mutated(item()))
def test_no_item_is_a_bug(folder: Path, content: Any) -> None:
    """Any value of any type anywhere in a STAC item: read, or refused in a line."""
    (folder / "item.json").write_text(json.dumps(content))
    code, error = run("plan", "item.json", "--model", MODEL)
    assert code in (0, 2, 65, 78), error


@SEARCH
@given(content=mutated(json.loads(resolve(MODEL).card_path.read_text())))
def test_no_card_is_a_bug(folder: Path, content: Any) -> None:
    """Any value of any type anywhere in a model's card: shown, or refused in a line."""
    if not (folder / "model").exists():
        shutil.copytree(resolve(MODEL).card_path.parent, folder / "model")
    (folder / "model" / "model.json").write_text(json.dumps(content))
    code, error = run("models", "show", folder / "model")
    assert code in (0, 65, 74), error


@pytest.mark.parametrize(
    ("where", "strange"),
    [
        (("assets", "all", "href"), "http://["),
        (("assets", "thumb", "href"), "http://["),
        (("assets", "all", "roles"), [["data"]]),
        (("assets", "all", "roles"), True),
        (("assets", "all", "raster:bands", 0, "scale"), 10**400),
        (("links", 0), "self"),
    ],
)
def test_items_that_are_wrong_are_refused(
    folder: Path, where: tuple[Any, ...], strange: object
) -> None:
    """In one line that names the item."""
    (folder / "item.json").write_text(json.dumps(changed(item(), where, strange)))
    code, error = run("plan", "item.json", "--model", MODEL)
    assert (code, error.count("\n")) == (65, 1)
    assert "STAC item" in error


def twice(text: str, key: str, value: object) -> str:
    """JSON in which the first place of a key has another value as well."""
    return text.replace(f'"{key}":', f'"{key}": {json.dumps(value)}, "{key}":', 1)


@pytest.mark.parametrize("key", ["href", "scale", "datetime"])
def test_an_item_that_says_two_things(folder: Path, key: str) -> None:
    """Nobody knows which of two values holds; the same value twice is one."""
    text = json.dumps(item())
    (folder / "item.json").write_text(twice(text, key, "./other.tif"))
    code, error = run("plan", "item.json", "--model", MODEL)
    assert (code, error.count("\n")) == (65, 1)
    assert f"the key '{key}' is there twice" in error
    (folder / "item.json").write_text(twice(text, "stac_version", "1.0.0"))
    assert run("plan", "item.json", "--model", MODEL) == (0, "")


def test_a_card_that_says_two_things(folder: Path) -> None:
    """It is refused before anything is taken from it."""
    model = resolve(MODEL)
    shutil.copytree(model.card_path.parent, folder / "model")
    text = model.card_path.read_text()
    (folder / "model" / "model.json").write_text(twice(text, "id", "another"))
    code, error = run("models", "show", "model")
    assert (code, error.count("\n")) == (65, 1)
    assert "the key 'id' is there twice" in error


def test_labels_that_say_two_things(folder: Path) -> None:
    """A feature of two classes is of none."""
    square = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]
    feature = {
        "type": "Feature",
        "properties": {"class": "water"},
        "geometry": {"type": "Polygon", "coordinates": square},
    }
    text = json.dumps({"type": "FeatureCollection", "features": [feature]})
    (folder / "labels.geojson").write_text(twice(text, "class", "land"))
    with rasterio.open(
        "map.tif", "w", driver="GTiff", height=8, width=9, count=1, dtype="uint8",
        crs="EPSG:4326", transform=rasterio.Affine(0.1, 0, 0, 0, -0.1, 1),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 8, 9), np.uint8))
        file.update_tags(CLASS_1="water", CLASS_2="land")
    code, error = run("evaluate", "map.tif", "--reference", "labels.geojson", "--column", "class")
    assert (code, error.count("\n")) == (65, 1)
    assert "the key 'class' is there twice" in error


NIGHTLY = {
    "model": "m",
    "nightly": {"root": "root", "budget": "6h", "settle": 0, "together": 1, "lease": "300s"},
    "segment": {"bands": ["red"], "nodata": 0, "scale": 1e-4, "like": "a.tif", "core": 512,
                "precision": "float32", "uncertainty": ["entropy"]},
    "change": {"rate": 0.01, "tau": 1, "threshold": 0.5, "mmu_ha": 0.5, "mask": "{scene}.tif",
               "mask_rule": "values:1", "transitions": "t.csv"},
    "areas": [{"name": "a", "scenes": ["in"], "scene_pattern": "s_(?P<scene>.*)",
               "since": "2000-01-01", "until": "2030-01-01", "priority": 1, "model": ["m"]},
              {"name": "b", "stac": {"api": "https://example.org", "collections": ["c"],
                                     "bbox": [0, 0, 1, 1], "query": {}, "most": 5}}],
    "catalog": {"id": "tilemap", "keywords": ["a"]},
    "publish": {"to": "s3://bucket/prefix"},
    "retention": {"keep_dates": 2, "grace": "7d", "logs": "90d"},
    "tell": {"on_failure": ["true"], "webhook": "http://127.0.0.1:9/", "price_per_hour": 1.0},
    "remote": {"allow_hosts": ["example.org"]},
}  # fmt: skip
TRAINING = {
    "name": "t", "seed": 1, "ignore_labels": [9],
    "scenes": [{"files": ["a.tif"], "bands": ["red"], "scale": 1e-4, "labels": "l.gpkg",
                "column": "c", "background": "soil", "area": "a.gpkg", "weight": 1.0}],
    "classes": [{"name": "soil", "value": 1, "color": "#ffffff", "labels": ["soil"]},
                {"name": "wood", "value": 2}],
    "model": {"arch": "unet", "width": 4, "bands": ["red"], "units": "stored"},
    "split": {"block": 32, "validation": 0.2, "test": 0.2},
    "sampling": {"crop": 32, "batch": 2, "balanced": 0.5},
    "augment": {"scale": [0.8, 1.25], "gain": 0.1, "shadow": 0.1},
    "loss": {"name": "focal", "weights": [1, 2], "gamma": 2.0},
    "training": {"steps": 2, "rate": 1e-3, "warmup": 0.05, "device": "cpu"},
    "distillation": {"teacher": "m", "temperature": 1.5, "share": 0.5},
}  # fmt: skip
CLUSTERS = (
    {"kind": "slurm", "gpu_workers": 1, "memory_limit": "2GiB", "timeout_s": 5, "wheel": "a.whl",
     "slurm": {"memory": "2GiB", "cores": 1, "job_extra": ["a"], "python": "p"}},
    {"kind": "kubernetes", "tls": {"ca": "a", "cert": "b", "key": "c"},
     "kubernetes": {"name": "n", "resources": {"requests": {"cpu": "1"}}, "env": {"a": "b"}},
     "adaptive": {"minimum": 1, "maximum": 2}},
    {"kind": "address", "scheduler": "tls://127.0.0.1:9", "wait_s": 1},
    {"kind": "cuda", "cuda": {"devices": [0], "memory_limit": "1GiB"}},
    {"kind": "local", "workers": 1},
)  # fmt: skip


@settings(SEARCH, max_examples=100)
@given(
    read_and_table=st.one_of(
        st.tuples(st.just(nightly_config.parse_config), mutated(NIGHTLY)),
        st.tuples(st.just(training_config.parse_config), mutated(TRAINING)),
        *(st.tuples(st.just(cluster_table.parse_table), mutated(each)) for each in CLUSTERS),
    )
)
def test_no_configuration_is_a_bug(
    folder: Path, read_and_table: tuple[Callable[..., Any], Any]
) -> None:
    """Any value of any type anywhere in a table: taken, or refused in a line; nothing is made."""
    read, table = read_and_table
    before = sorted(folder.iterdir())
    try:
        found = read(table, folder)
        if read is cluster_table.parse_table:
            found.settings()
    except TilemapError as error:
        said = str(error)
    else:
        said = ""
    assert said.count("\n") == 0
    assert len(said) < 600
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("limit", ['"1e400"', '"1e308GiB"', '"' + "9" * 5000 + '"', "nan", '""'])
def test_a_memory_limit_that_is_none(folder: Path, limit: str) -> None:
    """In the table as on the command line, and in few words."""
    (folder / "c.toml").write_text(f"[cluster]\nmemory_limit = {limit}\n")
    code, error = run("plan", "scene.tif", "--model", MODEL, "--cluster", "c.toml")
    assert (code, error.count("\n")) == (78, 1)
    assert "memory_limit: must " in error
    assert len(error) < 200
    value = limit.strip('"')
    code, error = run("plan", "scene.tif", "--model", MODEL, "--memory-limit", value)
    assert (code, error.count("\n")) == (2, 1)
    assert len(error) < 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "{}", "--model", MODEL),
        ("plan", "scene.tif", "--model", "{}"),
        ("plan", "scene.tif", "--model", MODEL, "--like", "{}"),
        ("plan", "scene.tif", "--model", MODEL, "--cluster", "{}"),
        ("segment", "scene.tif", "--model", MODEL, "--out", "{}"),
        ("change", "{}", "{}", "--out", "out"),
        ("evaluate", "{}", "--reference", "scene.tif"),
        ("evaluate", "scene.tif", "--reference", "{}"),
        ("train", "{}", "--out", "out"),
        ("nightly", "{}"),
        ("ledger", "list", "{}"),
        ("models", "show", "{}"),
        ("models", "import", "{}", "--card", "{}"),
        ("sample", "{}", "--out", "a.gpkg"),
        ("area", "{}", "scene.tif"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "name",
    ["x" * 300 + ".tif", "a/" * 3000 + "b.tif", "\udcff.tif", "/dev/null/a.tif", ""],
    ids=["long", "longer", "no text", "below a file", "nothing"],
)
def test_names_that_no_file_can_have(folder: Path, arguments: tuple[str, ...], name: str) -> None:
    """Refused in a line, whichever argument they are."""
    code, error = run(*(argument.replace("{}", name) for argument in arguments))
    assert code not in (0, EXIT_BUG), error


@pytest.fixture
def impatient() -> Iterator[None]:
    """Whoever waits for ever fails instead."""

    def end(*_: object) -> None:
        raise AssertionError("waits for what never comes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "put",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name),
     lambda path: path.symlink_to("/dev/zero")],
    ids=["pipe", "folder", "link to itself", "device"],
)  # fmt: skip
@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "thing.tif", "--model", MODEL),
        ("plan", "scene.tif", "--model", "thing.onnx"),
        ("plan", "scene.tif", "--model", MODEL, "--like", "thing.tif"),
        ("plan", "scene.tif", "--model", MODEL, "--cluster", "thing.toml"),
        ("plan", "thing.json", "--model", MODEL),
        ("change", "scene.tif", "scene.tif", "--model", MODEL, "--dates", "2020,2021",
         "--transitions", "thing.csv", "--out", "out"),
        ("evaluate", "scene.tif", "--reference", "thing.tif"),
        ("evaluate", "scene.tif", "--reference", "thing.geojson"),
        ("evaluate", "scene.tif", "--reference", "scene.tif", "--classes", "thing.toml"),
        ("evaluate", "scene.tif", "--reference", "scene.tif", "--classes", "thing.csv"),
        ("area", "thing.gpkg", "--map", "scene.tif"),
        ("area", "--matrix", "thing.csv"),
        ("train", "thing.toml", "--out", "out"),
        ("nightly", "thing.toml"),
        ("ledger", "list", "--config", "thing.toml"),
        ("models", "show", "thing.onnx"),
        ("models", "import", "thing.onnx", "--card", "card.json"),
        ("models", "import", "model.onnx", "--card", "thing.json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_no_file_is_not_waited_for(
    folder: Path, arguments: tuple[str, ...], put: Callable[[Path], None]
) -> None:
    """Wherever a file is named: refused in a line, nothing is left behind."""
    model = resolve(MODEL)
    shutil.copy(model.card_path, folder / "card.json")
    shutil.copy(model.path, folder / "model.onnx")
    put(next(folder / name for name in arguments if name.startswith("thing")))
    before = sorted(folder.iterdir())
    code, error = run(*arguments)
    assert code not in (0, EXIT_BUG), error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("option", ["--core", "--halo", "--blend", "--workers"])
@pytest.mark.parametrize("number", [10**30, -(10**30), 4 * 10**18, 3_000_000, -1, "nan", "1e400"])
def test_numbers_that_no_option_can_have(folder: Path, option: str, number: object) -> None:
    """Refused, never measured; a tile that no memory can hold is said to need more."""
    code, error = run("plan", "scene.tif", "--model", MODEL, option, number)
    assert code in ((2, 69, 78) if option in ("--halo", "--blend") else (0, 2, 78)), error
    assert code == 2 or error.count("\n") == (code != 0)


@pytest.mark.parametrize("number", [10**400, 10**30, 3_000_000, 1001])
def test_more_workers_than_a_machine_can_have(folder: Path, number: int) -> None:
    """Refused, on the command line as in a table; nobody begins to start them."""
    out = ("--model", MODEL, "--memory-limit", "2GiB", "--out", "out")
    code, error = run("segment", "scene.tif", *out, "--workers", number)
    assert (code, error.count("\n")) == (78, 1)
    assert "must be at most 1000" in error
    (folder / "c.toml").write_text(f"[cluster]\nworkers = {number}\n")
    code, error = run("segment", "scene.tif", *out, "--cluster", "c.toml")
    assert (code, error.count("\n")) == (78, 1)
    assert "workers" in error
    assert len(error) < 200
    assert not (folder / "out").exists()


@pytest.mark.parametrize("option", ["--scale", "--offset"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1e400", "9" * 400])
def test_scales_that_are_no_numbers(folder: Path, option: str, number: str) -> None:
    """Refused in a line."""
    code, error = run("plan", "scene.tif", "--model", MODEL, option, number)
    assert (code, error.count("\n")) == (65, 1)
    assert f"{option[2:]} must be a number" in error


def test_a_run_whose_reader_goes_away(folder: Path) -> None:
    """It finishes, with the exit code it deserves, though nobody reads what it says."""
    command = [sys.executable, "-m", "tilemap.cli.main"]
    read, write = os.pipe()
    os.close(read)
    for arguments, code in (
        (("segment", "scene.tif", "--model", MODEL, "--out", "out"), 0),
        (("segment", "none.tif", "--model", MODEL, "--out", "out"), 65),
    ):
        done = subprocess.run([*command, *arguments], stdout=write, stderr=write, check=False)
        assert done.returncode == code
    os.close(write)
    assert (folder / "out" / "landcover.tif").exists()
