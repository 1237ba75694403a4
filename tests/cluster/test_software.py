"""The same software everywhere: versions, the wheel and the model's file, by digest."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tilemap import api
from tilemap.cluster import connect
from tilemap.cluster.shipping import PIECE_BYTES, Shipped, find, provide, seed, serve
from tilemap.cluster.table import parse_table
from tilemap.cluster.versions import STRICT, code_digest, compare, differences, guard, installed
from tilemap.cluster.wheel import activate, wheel_code
from tilemap.errors import ConfigError
from tilemap.models.recipe import Recipe
from tilemap.run import execute

from .machines import Machines

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[..., Machines]]:
    """Makes clusters; ends them."""
    made: list[Machines] = []

    def make(**environment: str) -> Machines:
        folder = tmp_path / f"machines-{len(made)}"
        folder.mkdir()
        made.append(Machines(folder, environment=environment))
        return made[-1]

    yield make
    for several in made:
        several.end()


def _pretend(folder: Path, name: str, version: str) -> str:
    """A folder for PYTHONPATH in which a package seems to have another version."""
    place = folder / f"{name}-{version}" / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return str(place.parent)


def test_what_is_installed_is_known() -> None:
    """Every name that must be equal is there, and nothing differs from itself."""
    here = installed()
    assert all(here[name] for name in STRICT)
    assert here["python"] == ".".join(map(str, sys.version_info[:2]))
    assert differences(here, dict(here), STRICT) == []


def test_code_differs_although_the_version_does_not() -> None:
    """Two trees of one version are told apart; of two versions the code says no more."""
    here = installed()
    other = {**here, "code": "0123456789ab"}
    assert differences(here, other, STRICT) == [
        f"tilemap's code {here['code']} here, 0123456789ab there"
    ]
    other = {**other, "tilemap": "9.9"}
    assert differences(here, other, STRICT) == [f"tilemap {here['tilemap']} here, 9.9 there"]


def test_another_version_is_an_error_that_names_both(
    machines: Callable[..., Machines], tmp_path: Path
) -> None:
    """On a worker; a scheduler and workers that agree are fine, joined a second time too."""
    several = machines(PYTHONPATH="")
    several.scheduler()
    several.worker("one")
    table = {"kind": "address", "scheduler": several.address}
    for _ in range(2):
        with connect(parse_table(table, tmp_path).settings()):
            pass
    other = Machines(tmp_path, environment={"PYTHONPATH": _pretend(tmp_path, "zarr", "9.9.9")})
    other.address = several.address
    try:
        joined = other.worker("two")
        with Client(several.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            zarr = installed()["zarr"]
            says = rf"worker {joined} must have the same .*zarr {zarr} here, 9\.9\.9 there"
            with pytest.raises(ConfigError, match=says) as caught:
                compare(client)
    finally:
        other.end()
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::distributed.versions.VersionMismatchWarning")
def test_a_worker_that_joins_later_with_another_version_leaves(
    machines: Callable[..., Machines], tmp_path: Path
) -> None:
    """While the driver is there; when it is gone, whatever ended it, others are welcome."""
    several = machines()
    several.scheduler()
    several.worker("one")
    other = Machines(tmp_path, environment={"PYTHONPATH": _pretend(tmp_path, "numpy", "0.1")})
    other.address = several.address
    try:
        with Client(several.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=30)
            guard(client)
            other.worker("two")
            assert other.ends("two") == 0
            assert "numpy" in (tmp_path / "two.log").read_text()
            assert len(client.nthreads()) == 1
        time.sleep(0.2)
        other.worker("three")
        with Client(several.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=30)
            time.sleep(0.5)
            assert len(client.nthreads()) == 2
    finally:
        other.end()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built as it is for a release."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("tilemap-*.whl")
    return found


def _changed(wheel: Path, folder: Path) -> Path:
    """The wheel with a module more."""
    other = folder / wheel.name
    other.write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("tilemap/more.py", "")
    return other


def test_a_wheel_of_this_tree_has_its_code(wheel: Path, tmp_path: Path) -> None:
    """Wheel and source are known for the same; a changed module is not."""
    assert wheel_code(wheel.read_bytes()) == code_digest()
    assert wheel_code(_changed(wheel, tmp_path).read_bytes()) != code_digest()


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    """Before anything is sent; and so is what does not arrive as it was."""
    for content in (b"", b"PK nothing"):
        with pytest.raises(ValueError, match="File is not a zip file"):
            wheel_code(content)
    with pytest.raises(ValueError, match="what came has"):
        activate("0" * 64, b"something", str(tmp_path))


BLIND = """
import sys
from importlib.abc import MetaPathFinder

class Blind(MetaPathFinder):
    # Finds no tilemap where the environment has it; what lies elsewhere is found as ever.
    def find_spec(self, name, path, target=None):
        if name == "tilemap" and not any("wheel-" in entry for entry in sys.path[:1]):
            raise ModuleNotFoundError("No module named 'tilemap'")

sys.meta_path.insert(0, Blind())
"""


def _blind(folder: Path) -> str:
    """A folder for PYTHONPATH: whoever has it cannot import the tilemap of its environment."""
    place = folder / "blind"
    place.mkdir()
    (place / "sitecustomize.py").write_text(BLIND)
    return str(place)


@pytest.mark.slow
def test_the_wheel_makes_workers_out_of_strangers(
    machines: Callable[..., Machines], wheel: Path, tmp_path: Path
) -> None:
    """Scheduler and workers that have no tilemap map a scene; one that joins later does too."""
    home = tmp_path / "their-home"
    several = machines(PYTHONPATH=_blind(tmp_path), TILEMAP_HOME=str(home))
    several.scheduler()
    several.worker("one")
    table = {"kind": "address", "scheduler": several.address}
    says = r"the scheduler must have .* here, none there"
    with (
        pytest.raises(ConfigError, match=says),
        connect(parse_table(table, tmp_path).settings()),
    ):
        pass
    options: dict[str, Any] = {"model": api.DEMO_MODEL, "core": 448, "device": "cpu"}
    table = {**table, "wheel": str(wheel)}
    result = api.segment(api.demo_scene(), out=tmp_path / "sent", cluster=table, **options)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with connect(parse_table(table, tmp_path).settings()) as client:
        several.worker("two")
        client.wait_for_workers(2, timeout=30)
        ours = client.run(lambda: __import__("tilemap").__file__)
    assert len(ours) == 2
    for file in ours.values():
        assert Path(file) == home / "sent" / f"wheel-{digest}" / "tilemap" / "__init__.py"
    here = api.segment(api.demo_scene(), out=tmp_path / "here", workers=1, **options)
    assert result.landcover.read_bytes() == here.landcover.read_bytes()


def test_a_wheel_of_something_else_is_refused(
    machines: Callable[..., Machines], wheel: Path, tmp_path: Path
) -> None:
    """The driver would speak another language than its workers."""
    other = _changed(wheel, tmp_path)
    several = machines()
    several.scheduler()
    for path, says in ((other, "must hold the tilemap that runs here"), (tmp_path, "be a wheel")):
        table = {"kind": "address", "scheduler": several.address, "wheel": str(path)}
        with (
            pytest.raises(ConfigError, match=says),
            connect(parse_table(table, tmp_path).settings()),
        ):
            pass


@pytest.fixture
def hosts(machines: Callable[..., Machines]) -> Iterator[Client]:
    """Three workers, each with a home of its own: three hosts, as far as files go."""
    first = machines()
    first.scheduler()
    for number in range(3):
        host = machines()
        host.address = first.address
        host._environment["TILEMAP_HOME"] = str(host._folder / "home")
        host.worker(f"host-{number}")
    with Client(first.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=60)
        yield client


def _fetched(client: Client, file: Shipped) -> dict[str, bytes]:
    """Have every worker fetch a file, all at once; what each has then."""

    async def fetch(dask_worker: Any) -> bytes:
        place = await provide(dask_worker, file, 20)
        assert find(file, dask_worker.local_directory) == place
        return place.read_bytes()

    def answer(dask_worker: Any) -> None:
        serve(dask_worker, [file])

    client.run(answer)
    found: dict[str, bytes] = client.run(fetch)
    return found


def test_a_file_that_no_worker_sees_reaches_all_by_digest(
    hosts: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent once, fetched from each other; a file of the same name and other bytes does not do."""
    content = os.urandom(2 * PIECE_BYTES + 12345)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(content)
    file = Shipped(Path("/proc/self/cwd/model.bin"), digest)  # of whoever looks
    sent = 0
    run = hosts.run

    def counted(function: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal sent
        sent += sum(len(a) for a in arguments if isinstance(a, bytes))
        return run(function, *arguments, **options)

    monkeypatch.setattr(hosts, "run", counted)
    run(lambda: Path("model.bin").write_bytes(b"another model"))
    seed(hosts, [file])
    assert sent == len(content)
    assert set(_fetched(hosts, file).values()) == {content}
    seed(hosts, [file])  # they have it
    assert sent == len(content)
    kept = set(run(lambda: __import__("os").environ["TILEMAP_HOME"]).values())
    assert len(kept) == 3
    for home in kept:
        lying = [p.name for p in Path(home, "sent").iterdir() if not p.name.endswith(".lock")]
        assert lying == [f"{digest}.bin"]


def test_a_file_that_nobody_has(hosts: Client, tmp_path: Path) -> None:
    """Said by the worker that needs it, with its digest."""
    file = Shipped(tmp_path / "nothing.onnx", "ab" * 32)

    async def fetch(dask_worker: Any) -> None:
        await provide(dask_worker, file, 0.5)

    with pytest.raises(Exception, match=r"none has a file with sha256 abababababab"):
        hosts.run(fetch)


@pytest.mark.slow
def test_a_model_that_workers_cannot_see(
    machines: Callable[..., Machines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fetched before the first tile, and the map is the same."""
    several = machines(TILEMAP_HOME=str(tmp_path / "their-home"))
    several.scheduler()
    several.worker("one")
    options: dict[str, Any] = {"model": api.DEMO_MODEL, "core": 448, "device": "cpu"}
    here = api.segment(api.demo_scene(), out=tmp_path / "here", workers=1, **options)
    table = {"kind": "address", "scheduler": several.address}
    prepared = api.plan(api.demo_scene(), cluster=table, **options)
    (member,) = prepared.model.members
    monkeypatch.chdir(tmp_path)
    hidden = Path("/proc/self/cwd") / f"hidden{member.path.suffix}"
    hidden.write_bytes(member.path.read_bytes())
    recipe = Recipe((dataclasses.replace(member, path=hidden),))
    there = execute(dataclasses.replace(prepared, model=recipe), tmp_path / "there")
    assert there.landcover.read_bytes() == here.landcover.read_bytes()
    (kept,) = (tmp_path / "their-home" / "sent").glob(f"{member.digest}.*[a-z]")
    assert kept.suffix == member.path.suffix
