"""What the pipeline loses against the bare forward, in one run.

Prints the bare forward of a model, the whole pipeline on a scene made by repeating a real one, the
halo's share, and their ratio: unique pixels per second / (bare forward x scene pixels / patch
pixels). The two are interleaved and medians are taken. Nothing is asserted: figures are to read.

    python tests/benchmarks/bench_pipeline.py --side 4096 --precision bfloat16
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tilemap import api
from tilemap.cluster import usable_cores
from tilemap.models import registry
from tilemap.models.card import ClassInfo, ModelCard
from tilemap.models.registry import ModelRef

BANDS = ("blue", "green", "red", "nir")


def make_scene(path: Path, side: int, number: int = 0) -> Path:
    """Repeat the scene that ships with tilemap to side x side, mirrored so that no edge shows.

    Args:
        number: of its file: the bands of 10 m, or those of 20 m, of which half as many pixels are
            as much ground.
    """
    import rasterio

    with rasterio.open(api.demo_scene()[number]) as file:
        image, profile, names = file.read(), file.profile, file.descriptions
        scales, tags = file.scales, file.tags()
    rows, cols = image.shape[1:]
    up = np.abs((np.arange(side) + rows - 1) % (2 * rows - 2) - (rows - 1))
    across = np.abs((np.arange(side) + cols - 1) % (2 * cols - 2) - (cols - 1))
    profile.update(width=side, height=side, compress="zstd", zstd_level=1, BIGTIFF="IF_SAFER")
    with rasterio.open(path, "w", **profile) as out:
        for top in range(0, side, 512):
            strip = image[:, up[top : top + 512]][:, :, across]
            window = rasterio.windows.Window(0, top, side, strip.shape[1])
            out.write(strip, window=window)
        out.update_tags(**tags)
        out.descriptions, out.scales = names, scales
    return path


def make_model(folder: Path, classes: int, width: int) -> ModelRef:
    """A seeded U-Net on ResNet-18; speed does not depend on what it was trained for."""
    import torch
    from safetensors.torch import save_file

    from tilemap.models.networks import build

    architecture: dict[str, Any] = {"name": "unet", "encoder": "resnet18", "width": width}
    fields: dict[str, Any] = {
        "name": f"bench-unet-{width}", "title": "Benchmark", "description": "Random weights.",
        "license": "Apache-2.0", "bands": BANDS, "architecture": architecture,
        "classes": tuple(
            ClassInfo(value=i + 1, name=f"class {i + 1}", color=f"#{i * 25:02x}8040")
            for i in range(classes)
        ),
        "halo": 24, "weights": "model.safetensors",
    }  # fmt: skip
    torch.manual_seed(0)
    network = build(architecture, len(BANDS), classes)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(network.state_dict(), weights)
    card = ModelCard(**fields, sha256=registry.file_sha256(weights))
    registry.save_card(card, folder)
    return registry.resolve(folder)


def _forward(
    ref: ModelRef, precision: str, side: int, runs: int, core: int, start: Any, answer: Any
) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    import torch

    model = registry.load(ref, "cpu", precision, 1)
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    batch = torch.rand(1, len(BANDS), side, side)
    batch = batch.to(dtype, memory_format=torch.channels_last)
    network = model._network  # type: ignore[attr-defined]
    with torch.inference_mode():
        start.wait()
        began = time.process_time()
        for _ in range(runs):
            network(batch)
    answer.put(time.process_time() - began)
    start.wait()


def bare_forward(
    ref: ModelRef, precision: str, side: int, workers: int, runs: int
) -> tuple[float, float]:
    """Nothing but the network, one pinned process per core.

    Returns:
        Patch pixels per second of the clock, and per second of one processor.
    """
    context = mp.get_context("spawn")
    start, answer = context.Barrier(workers + 1), context.Queue()
    processes = [
        context.Process(target=_forward, args=(ref, precision, side, runs, core, start, answer))
        for core in range(workers)
    ]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    start.wait()
    seconds = time.perf_counter() - began
    processor = sum(answer.get() for _ in processes)
    for process in processes:
        process.join()
    pixels = workers * runs * side * side
    return pixels / seconds, pixels / processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--core", type=int, default=None)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--direct", action="store_true", help="without the tile store")
    arguments = parser.parse_args()
    workers = usable_cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = make_scene(folder / "scene.tif", arguments.side)
        ref = make_model(folder / "model", arguments.classes, arguments.width)
        options: api.Options = {
            "precision": arguments.precision,
            "core": arguments.core,
            "keep_stores": not arguments.direct,
        }
        grid = api.plan(scene, model=folder / "model", **options).plan.grid
        runs = -(-grid.size // workers)  # as many patches as the pipeline, the first included
        bare, piped, walls, driver, record = [], [], [], [], {}
        bare_cpu, piped_cpu = [], []
        for index in range(arguments.repeats):
            clock, processor = bare_forward(ref, arguments.precision, grid.patch, workers, runs)
            bare.append(clock)
            bare_cpu.append(processor)
            began, own = time.perf_counter(), os.times()
            result = api.segment(
                scene, model=folder / "model", out=folder / f"run{index}", **options
            )
            walls.append(time.perf_counter() - began)
            driver.append(sum(os.times()[:2]) - sum(own[:2]))
            record = result.record
            piped.append(record["mpx_per_s"] * 1e6)
            piped_cpu.append(arguments.side**2 / record["seconds"]["processor"])
            share = 1 / grid.overhead
            print(
                f"round {index + 1}: bare {bare[-1] / 1e6:.3f} Mpx/s, pipeline "
                f"{piped[-1] / 1e6:.3f} Mpx/s, ratio {piped[-1] / bare[-1] / share:.3f}",
                flush=True,
            )
    ratios = [p / b * grid.overhead for p, b in zip(piped, bare, strict=True)]
    by_cpu = [p / b * grid.overhead for p, b in zip(piped_cpu, bare_cpu, strict=True)]
    print(f"grid: core {grid.core}, halo {grid.halo}, blend {grid.blend}, {grid.size} tiles")
    print(f"bare forward   {statistics.median(bare) / 1e6:8.3f} Mpx/s on {workers} cores")
    print(f"halo's share   {1 / grid.overhead:8.3f} of the computed pixels are the scene's")
    print(f"pipeline       {statistics.median(piped) / 1e6:8.3f} Mpx/s, products verified")
    print(f"whole command  {arguments.side**2 / statistics.median(walls) / 1e6:8.3f} Mpx/s")
    print(f"ratio          {statistics.median(ratios):8.3f} by the clock, rounds of it interleaved")
    print(f"               {statistics.median(by_cpu):8.3f} by processor time of the workers")
    seconds = record["seconds"]
    steps = ", ".join(f"{name} {value:.2f}" for name, value in seconds["by_step"].items())
    print(f"seconds        of workers: {steps}")
    print(f"               of the clock: map {seconds['map']:.2f}, export {seconds['export']:.2f}")
    print(f"driver         {statistics.median(driver):.2f} s of processor time, scheduler included")
    peak, planned = record["memory"]["peak_bytes"], record["memory"]["planned_bytes"]
    print(
        f"memory         {peak / 2**20:.0f} MiB at most in a worker, {planned / 2**20:.0f} planned"
    )


if __name__ == "__main__":
    main()
