"""``tilemap evaluate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tilemap.cli.flags import with_flags
from tilemap.cli.segment import Cluster, MemoryLimit, Scheduler, Workers

_REFERENCE, _FIGURES = "The reference", "The figures"
LINE_EVERY_S = 10.0


def evaluate(
    class_map: Annotated[
        str,
        typer.Argument(
            metavar="MAP", help="A class map, or the directory of a run.", show_default=False
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            "-r",
            help="Raster of classes on any grid, or vector file.",
            rich_help_panel=_REFERENCE,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Directory of the report and tables [default: none]."),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(help="Class of a vector's features.", rich_help_panel=_REFERENCE),
    ] = None,
    polygon_class: Annotated[
        str | None,
        typer.Option(
            "--class", help="Class of all of a vector's features.", rich_help_panel=_REFERENCE
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            help="Class of what none of a vector's features covers [default: it does not count].",
            rich_help_panel=_REFERENCE,
        ),
    ] = None,
    area: Annotated[
        str | None,
        typer.Option(
            help="Vector file: only inside its polygons does the reference count.",
            rich_help_panel=_REFERENCE,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Of a vector file with several.", rich_help_panel=_REFERENCE),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Table of the reference's values by class of the map: .toml with lines such as "
            "water = [80, 200], or .csv with the columns class,reference.",
            rich_help_panel=_REFERENCE,
        ),
    ] = None,
    ignore: Annotated[
        str | None,
        typer.Option(
            help="Reference values that do not count, such as 0,9.", rich_help_panel=_REFERENCE
        ),
    ] = None,
    reference_nodata: Annotated[
        str | None,
        typer.Option(
            help="Number of a raster that means no reference there, instead of the one it "
            "declares; none if every number is a class.",
            rich_help_panel=_REFERENCE,
        ),
    ] = None,
    leave_out: Annotated[
        str | None,
        typer.Option(
            help="Blocks of the model's training that do not count: train,validation.",
            rich_help_panel=_REFERENCE,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="Percent on the map's grid [default: confidence.tif beside the map].",
            rich_help_panel=_FIGURES,
        ),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            help="Vector file: figures for each region as well.", rich_help_panel=_FIGURES
        ),
    ] = None,
    region_column: Annotated[
        str | None, typer.Option(help="Names of the regions.", rich_help_panel=_FIGURES)
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="How far a boundary may be off, pixels [default: 2].", rich_help_panel=_FIGURES
        ),
    ] = None,
    tolerance_m: Annotated[
        float | None, typer.Option(help="The same in metres.", rich_help_panel=_FIGURES)
    ] = None,
    core: Annotated[int, typer.Option(help="Side of a tile, pixels.")] = 2048,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Compare a map with a reference: accuracy, IoU, boundaries, calibration."""
    from tilemap import api

    found = api.evaluate(
        class_map,
        reference=reference,
        out=out,
        progress=_told(),
        column=column,
        polygon_class=polygon_class,
        background=background,
        area=area,
        layer=layer,
        classes=classes,
        ignore=ignore,
        reference_nodata=reference_nodata,
        leave_out=leave_out,
        confidence=confidence,
        regions=regions,
        region_column=region_column,
        tolerance=tolerance,
        tolerance_m=tolerance_m,
        core=core,
        cluster=cluster,
        scheduler=scheduler,
        workers=workers,
        memory_limit=memory_limit,
    )
    for line in summary(found.record):
        typer.echo(line)
    if found.out is not None:
        typer.echo(f"wrote {found.out / 'evaluation.html'}")


def _told() -> Callable[[int, int], None]:
    """Progress for a person: a line that is overwritten on a terminal, one now and then else."""
    terminal, started = sys.stderr.isatty(), time.monotonic()
    printed = started

    def told(done: int, size: int) -> None:
        nonlocal printed
        now = time.monotonic()
        left = (now - started) * (size - done) / done
        text = f"{done} of {size} tiles, {left:.0f} s left"
        if terminal and size > 1:
            sys.stderr.write(f"\r{text:<40}" if done < size else f"\r{'':<40}\r")
            sys.stderr.flush()
        elif now - printed >= LINE_EVERY_S:
            printed = now
            print(text, file=sys.stderr)

    return told


def summary(record: dict[str, Any]) -> list[str]:
    """The figures for a person."""
    figures = record["figures"]
    names = [row["name"] for row in [*figures["classes"], *figures["regions"]]]
    wide = max(5, *(min(len(name), 24) for name in names))
    lines = [
        f"{'class':<{wide}} {'IoU':>7} {'prec.':>7} {'recall':>7} {'F1':>7} {'bound.F1':>8} "
        f"{'reference':>13} {'map':>13}"
    ]
    lines += [
        f"{row['name'][:24]:<{wide}} {_share(row['iou'])} {_share(row['precision'])} "
        f"{_share(row['recall'])} {_share(row['f1'])} {_share(row['boundary_f1'], 8)} "
        f"{row['reference_pixels']:>13,} {row['map_pixels']:>13,}"
        for row in figures["classes"]
    ]
    lines.append(
        f"overall accuracy {figures['overall_accuracy']:.4f}, mean IoU {figures['miou']:.4f}, "
        f"mean F1 {figures['macro_f1']:.4f}, kappa {figures['kappa']:.4f}"
    )
    border, sure = figures["boundary"], figures["calibration"]
    if border["mean_f1"] is not None:
        unit = "pixels" if border["pixel"] == [1.0, 1.0] else "m"
        lines.append(f"boundary F1 {border['mean_f1']:.4f} within {border['tolerance']:g} {unit}")
    if sure is not None:
        lines.append(f"calibration error (ECE) {sure['ece']:.4f}, largest {sure['mce']:.4f}")
    lines += [
        f"{row['name'][:24]:<{wide}} overall accuracy {_share(row['overall_accuracy'])}, "
        f"mean IoU {_share(row['miou'])}, {row['pixels']:,} pixels"
        for row in figures["regions"]
    ]
    lines += [f"warning: {with_flags(text)}" for text in record["warnings"]]
    return lines + [f"note: {with_flags(text)}" for text in record["notes"]]


def _share(value: float | None, wide: int = 7) -> str:
    return f"{'-':>{wide}}" if value is None else f"{value:>{wide}.4f}"
