"""Reading a COG over HTTP tile by tile: requests, bytes and time, against the same file here.

    python tests/benchmarks/bench_remote.py --side 4096 --core 960 --halo 32 --latency-ms 0 20

The scene is made by repeating the real one that ships with tilemap; the host runs on loopback in
this process and answers each request after the latency.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import rasterio.shutil

from tilemap import api
from tilemap.geometry import TileGrid
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, SceneSource, open_scene
from tilemap.stores.remote.pool import pool

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "stores" / "remote")]

from bench_pipeline import make_model, make_scene  # noqa: E402, of this folder
from server import Fault, RangeServer  # noqa: E402, of the tests


def make_cog(folder: Path, side: int, block: int) -> Path:
    """A scene of a side as a COG."""
    path = folder / "cog.tif"
    options = {"driver": "COG", "compress": "deflate", "blocksize": block, "overviews": "none"}
    rasterio.shutil.copy(make_scene(folder / "scene.tif", side), path, **options)
    return path


def read_all(source: SceneSource, grid: TileGrid) -> float:
    """Seconds to read every patch once, in order."""
    started = time.perf_counter()
    with source.open() as reader:
        for tile in grid.tiles():
            read_patch(reader, grid.patch_window(tile))
    return time.perf_counter() - started


def touched(path: Path, source: SceneSource, grid: TileGrid) -> int:
    """Bytes in the file of the blocks that each patch needs, added up over all patches."""
    total = 0
    with rasterio.open(path) as file:
        (rows, cols), *_ = file.block_shapes
        planes = range(1, 2) if file.interleaving.name == "pixel" else file.indexes
        for tile in grid.tiles():
            window = grid.patch_window(tile).intersect(grid.scene_window)
            for row in range(window.top // rows, -(-window.bottom // rows)):
                for col in range(window.left // cols, -(-window.right // cols)):
                    name = f"BLOCK_SIZE_{col}_{row}"
                    total += sum(int(file.get_tag_item(name, "TIFF", bidx=b)) for b in planes)
    return total


def run_all(path: Path, server: RangeServer) -> None:
    """The whole pipeline on two workers, once from here and once from there."""
    model = path.parent / "model"
    make_model(model, 10, 16)
    server.always.clear()
    server.log.clear()
    for scene, hosts in ((str(path), []), (server.url("cog.tif"), [server.host])):
        result = api.segment(
            scene, model=model, out=path.parent / f"run-{len(hosts)}", precision="bfloat16",
            workers=2, allow_hosts=hosts,
        )  # fmt: skip
        memory = result.record["memory"]
        print(
            f"run: {result.record['mpx_per_s']:.2f} Mpx/s, {len(server.log)} requests, "
            f"{server.bytes / path.stat().st_size:.2f} times the file, peak "
            f"{memory['peak_bytes'] >> 20} MiB of {memory['planned_bytes'] >> 20} planned",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--core", type=int, default=960)
    parser.add_argument("--halo", type=int, default=32)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--run", action="store_true", help="map the scene too")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 20.0])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, RangeServer() as server:
        path = make_cog(Path(name), arguments.side, arguments.block)
        server.files["cog.tif"] = path.read_bytes()
        here = open_scene(SceneRequest((str(path),)))
        grid = TileGrid(here.scene.shape, arguments.core, arguments.halo, 8)
        size, needed = path.stat().st_size, touched(path, here, grid)
        local = read_all(here, grid)
        print(
            f"{arguments.side}^2, {len(here.scene.bands)} bands, {size / 1e6:.1f} MB in blocks of "
            f"{arguments.block}; {grid.size} patches of {grid.patch} touch blocks of "
            f"{needed / size:.2f} times the file; read here in {local:.2f} s"
        )
        request = SceneRequest((server.url("cog.tif"),), allow_hosts=(server.host,))
        there = open_scene(request)
        time.sleep(0.2)  # the host counts what it has sent
        print(f"plan: {len(server.log)} requests, {server.bytes / size:.4f} of the file")
        server.log.clear()
        with there.open() as reader:
            middle = list(grid.tiles())[grid.size // 2]
            read_patch(reader, grid.patch_window(middle))
        print(f"one patch: {len(server.log)} requests, {server.bytes / size:.4f} of the file")
        for latency_ms in arguments.latency_ms:
            server.log.clear()
            pool().cache.clear()
            server.always["cog.tif"] = Fault(wait_s=latency_ms / 1000)
            seconds = read_all(there, grid)
            print(
                f"{latency_ms:5.0f} ms a request: {len(server.log)} requests "
                f"({len(server.log) / grid.size:.1f} a patch), {server.bytes / size:.2f} times the "
                f"file, {server.bytes / needed:.2f} of what the patches touch, "
                f"{seconds / local:.2f} times the time of the file here",
                flush=True,
            )
        if arguments.run:
            run_all(path, server)


if __name__ == "__main__":
    main()
