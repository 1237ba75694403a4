"""``tilemap change``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilemap.cli.segment import (
    AllowHosts,
    Bands,
    Cluster,
    Device,
    Engine,
    Fresh,
    MemoryLimit,
    Mosaic,
    Nodata,
    Offset,
    OtherVersions,
    Out,
    Precision,
    Scale,
    Scheduler,
    Workers,
)

if TYPE_CHECKING:
    from tilemap.changing.execute import ChangeResult
    from tilemap.changing.prepare import PreparedSeries

_METHOD, _GRID, _DATES = "The method", "The grid", "The dates"

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="One per date, the oldest first: a directory of `tilemap segment --probabilities`, "
        "or, with a model, a scene: files with commas between, a directory, a STAC item.",
        show_default=False,
    ),
]


def change(
    inputs: Inputs,
    out: Out,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="For inputs that are scenes."),
    ] = None,
    dates: Annotated[
        str | None,
        typer.Option(
            help="Days of the inputs, as 2015-07-01,2020-07-01, where they do not tell.",
            rich_help_panel=_DATES,
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="Raster of clouds and the like; one per input, in their order. Of several bands "
            "FILE:BAND, a number or a name.",
            rich_help_panel=_DATES,
        ),
    ] = None,
    mask_rule: Annotated[
        str | None,
        typer.Option(
            help="Which of its values are not observed: scl, landsat-qa, landsat-c1-qa, fmask, "
            "hls-fmask, values:3,8,9 or bits:0,1,3; more with +, as in scl+11.",
            rich_help_panel=_DATES,
        ),
    ] = None,
    allow_model_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-model-mismatch",
            help="Compare maps of different models.",
            rich_help_panel=_DATES,
        ),
    ] = False,
    accept_misregistration: Annotated[
        bool,
        typer.Option(
            "--accept-misregistration",
            help="Go on with dates that lie more than half a pixel off.",
            rich_help_panel=_DATES,
        ),
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            help="hmm: the likeliest path through all dates; pcc: labels compared; cvaps: change "
            "vectors.",
            rich_help_panel=_METHOD,
        ),
    ] = "hmm",
    rate: Annotated[
        str,
        typer.Option(
            help="Share of pixels that change class in a year, or fit.", rich_help_panel=_METHOD
        ),
    ] = "0.01",
    transitions: Annotated[
        str | None,
        typer.Option(help="CSV of all rates per year instead.", rich_help_panel=_METHOD),
    ] = None,
    prior: Annotated[
        str, typer.Option(help="uniform, or series.", rich_help_panel=_METHOD)
    ] = "uniform",
    tau: Annotated[
        float,
        typer.Option(help="Below 1 each date is trusted less.", rich_help_panel=_METHOD),
    ] = 1.0,
    threshold: Annotated[
        str,
        typer.Option(help="cvaps: smallest change vector, or otsu.", rich_help_panel=_METHOD),
    ] = "0.5",
    mmu_ha: Annotated[
        float,
        typer.Option(help="Minimum mapping unit of change, hectares; 0 keeps every pixel."),
    ] = 0.5,
    like: Annotated[
        str | None,
        typer.Option(help="Take the grid of this raster.", rich_help_panel=_GRID),
    ] = None,
    resolution: Annotated[
        float | None,
        typer.Option(help="Pixel size, in units of the CRS.", rich_help_panel=_GRID),
    ] = None,
    extent: Annotated[
        str,
        typer.Option(help="intersection or union of the dates.", rich_help_panel=_GRID),
    ] = "intersection",
    core: Annotated[int, typer.Option(help="Side of a tile, pixels.", rich_help_panel=_GRID)] = 512,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    allow_hosts: AllowHosts = None,
    mosaic: Mosaic = False,
    device: Device = "auto",
    precision: Precision = "float32",
    engine: Engine = "auto",
    cluster: Cluster = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    fresh: Fresh = False,
    allow_other_versions: OtherVersions = False,
) -> None:
    """Compare the dates of one place: what changed into what, when, how surely, on how much area.

    The same command continues a run that was interrupted; with more dates it extends the series.
    """
    from tilemap.changing.execute import execute_series
    from tilemap.cli.progress import ConsoleProgress

    prepared = _prepared(locals())
    progress = ConsoleProgress()
    for line in describe(prepared):
        progress.note(line)
    result = execute_series(
        prepared, out, fresh, progress, allow_other_versions=allow_other_versions
    )
    for line in summary(result):
        typer.echo(line)
    raise typer.Exit(result.exit_code)


def _prepared(given: dict[str, Any]) -> PreparedSeries:
    """The command's arguments to a series that has been checked."""
    from tilemap import api
    from tilemap.changing.prepare import prepare_series
    from tilemap.errors import UsageError

    options = {key: given[key] for key in api.ChangeOptions.__annotations__ if key in given}
    if isinstance(options.get("bands"), str):
        options["bands"] = [name.strip() for name in options["bands"].split(",")]
    if options["dates"] is not None:
        options["dates"] = [day.strip() for day in options["dates"].split(",")]
    options["masks"] = given["mask"] or ()
    for name, word in (("rate", "fit"), ("threshold", "otsu")):
        text = options[name]
        try:
            options[name] = text if text == word else float(text)
        except ValueError as error:
            raise UsageError(f"--{name} must be a number or {word!r}, got {text!r}") from error
    settings = api.change_settings(given["inputs"], given["model"], options)
    return prepare_series(settings, Path(given["out"]))


def describe(prepared: PreparedSeries) -> list[str]:
    """What is going to be done, for a person."""
    grid, settings = prepared.grid, prepared.settings
    rows, cols = grid.shape
    days = [fact.iso for fact in prepared.facts]
    lines = [
        f"series   {len(days)} dates, {days[0]} to {days[-1]}",
        f"classes  {', '.join(c.name for c in prepared.classes)}",
        f"method   {settings.method}; minimum mapping unit {settings.mmu_ha:g} ha, "
        f"{prepared.mmu_px} pixels",
        f"grid     {grid.scene[0]} x {grid.scene[1]} pixels, {rows} x {cols} tiles of {grid.core}",
        f"disk     at most {prepared.disk_bytes / 1e6:.0f} MB",
        f"memory   at most {prepared.worker_bytes / 2**20:.0f} MiB in each worker",
    ]
    return lines + [f"warning  {note}" for note in prepared.notes]


def summary(result: ChangeResult) -> list[str]:
    """What was found, for a person."""
    record = result.record
    lines = [
        f"{row['from']} to {row['to']}: {row['area_ha']:,.1f} ha ({row['share']:.2%})"
        if row["area_ha"] is not None
        else f"{row['from']} to {row['to']}: {row['pixels']:,} pixels ({row['share']:.2%})"
        for row in record["transitions"]
        if row["from"] != row["to"] and row["pixels"]
    ]
    lines.sort(key=lambda line: -float(line.rsplit("(", 1)[1].rstrip("%)")))
    lines = lines[:12]
    found = record["found"]
    annual = record["method"].get("annual")
    if annual is not None and record["identity"]["settings"]["rate"] == "fit":
        lines.append(f"fitted rate of change: {1 - annual[0][0]:.4f} a year")
    lines.append(
        f"changed {found['changed']:.2%} of what was observed, {found['provisional']:.2%} "
        f"provisional; not observed {found['not_observed']:.2%}; {record['polygons']} polygons"
    )
    for row in record["registration"]:
        if row["verdict"] not in ("reference", "ok"):
            lines.append(_registration(row))
    if record["partial_dates"]:
        lines.append(f"partial: tiles are missing of {', '.join(record['partial_dates'])}")
    if record["quarantined"]:
        lines.append(f"partial: {len(record['quarantined'])} tasks failed every time, see run.json")
    lines += [f"note: {text}" for text in record["warnings"]]
    return [*lines, f"wrote {result.change}"]


def _registration(row: dict[str, Any]) -> str:
    if row["verdict"] == "unknown":
        return f"{row['date']}: how it lies on the first date could not be measured"
    done = "moved" if row["verdict"] == "shift" else "accepted as it is"
    return f"{row['date']}: {row['row']:+.2f} rows, {row['col']:+.2f} columns off, {done}"
