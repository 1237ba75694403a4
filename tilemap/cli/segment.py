"""``tilemap plan``, ``segment`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tilemap.cli.flags import with_flags

if TYPE_CHECKING:
    from tilemap.api import Options
    from tilemap.prepare import Prepared
    from tilemap.run import RunResult

_SCENE, _CUT, _WHERE = "The scene", "The cut, in pixels", "Where it runs"

Scenes = Annotated[
    list[str],
    typer.Argument(
        help="GeoTIFF, COG or JPEG 2000: one file, several (bands or neighbours of one scene), a "
        "directory, or a STAC item (.json); files and items may be addresses (https://, s3://).",
        show_default=False,
    ),
]
ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="A name from `tilemap models list`, a model folder or an .onnx file; "
        "given several times, their mean is mapped.",
    ),
]
Before = Annotated[
    list[str] | None,
    typer.Option(
        help="An earlier scene of the same place, for a model of two dates; brought onto the "
        "grid of the scene.",
        rich_help_panel=_SCENE,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Names of the files' bands in order, such as blue,green,red,nir, where they do not "
        "say themselves.",
        rich_help_panel=_SCENE,
    ),
]
Nodata = Annotated[
    float | None,
    typer.Option(help="Stored number that means not observed.", rich_help_panel=_SCENE),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="Reflectance of one stored unit, as the product states it.", rich_help_panel=_SCENE
    ),
]
Offset = Annotated[
    float | None, typer.Option(help="Reflectance of a stored 0.", rich_help_panel=_SCENE)
]
Like = Annotated[
    str | None,
    typer.Option(help="Bring the scene onto the grid of this raster.", rich_help_panel=_SCENE),
]
Resolution = Annotated[
    float | None,
    typer.Option(
        help="Bring the scene to this pixel size, in units of its CRS.", rich_help_panel=_SCENE
    ),
]
AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        help="A host that may be asked for what is not on this disk: example.org, "
        "example.org:8080, *.example.org or s3://bucket; may be given several times.",
        rich_help_panel=_SCENE,
    ),
]
Mosaic = Annotated[
    bool,
    typer.Option(
        "--mosaic",
        help="Files of several days are one scene on purpose; its date is that of the first.",
        rich_help_panel=_SCENE,
    ),
]
Core = Annotated[
    int | None,
    typer.Option(help="Side of what a tile owns [default: fits the scene].", rich_help_panel=_CUT),
]
Halo = Annotated[
    int | None,
    typer.Option(help="Margin read around it [default: the model's].", rich_help_panel=_CUT),
]
Blend = Annotated[
    int | None,
    typer.Option(help="Half-width of the ramp between tiles [default: 8].", rich_help_panel=_CUT),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_WHERE)]
Precision = Annotated[
    str,
    typer.Option(
        help="float32, or bfloat16: faster where the hardware has it, changes few labels.",
        rich_help_panel=_WHERE,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="What runs the model: torch, onnxruntime or openvino; auto is what its file is for.",
        rich_help_panel=_WHERE,
    ),
]
Tta = Annotated[
    str,
    typer.Option(
        help="none; flips or rotations: the mean over each patch mirrored (4 forwards), or "
        "mirrored and turned (8).",
    ),
]
UncertaintyOption = Annotated[
    str | None,
    typer.Option(
        "--uncertainty",
        help="Rasters to write besides: entropy, margin, or both with a comma between.",
    ),
]
Probabilities = Annotated[
    bool,
    typer.Option(
        "--probabilities", help="Keep the probability of every class, for `tilemap change`."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Address of a Dask scheduler [default: an embedded cluster].", rich_help_panel=_WHERE
    ),
]
Cluster = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with a [cluster] table, see docs/cluster.md [default: what "
        "TILEMAP_CLUSTER names].",
        rich_help_panel=_WHERE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes of the embedded cluster [default: one per core].", rich_help_panel=_WHERE
    ),
]
MemoryLimit = Annotated[
    str | None, typer.Option(help="Of one worker, such as 2GiB.", rich_help_panel=_WHERE)
]
KeepStores = Annotated[
    bool,
    typer.Option(
        "--keep-stores/--discard-stores",
        help="Keep the tile and prediction stores after a run that ended well.",
    ),
]
Stores = Annotated[
    str | None,
    typer.Option(help="Put the stores on S3: s3://bucket/folder.", rich_help_panel=_WHERE),
]
Publish = Annotated[
    str | None,
    typer.Option(
        help="Send the products to S3 too, when all are written: s3://bucket/folder.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Directory of the run.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget an earlier run in that directory.")]
OtherVersions = Annotated[
    bool,
    typer.Option(
        "--allow-other-versions",
        help="Continue a run that other versions of PyTorch, ONNX Runtime, OpenVINO or GDAL began.",
    ),
]


def _options(values: dict[str, object]) -> Options:
    """Arguments of a command to the options of the API."""
    from tilemap.api import Options as Known

    chosen = {key: values[key] for key in Known.__annotations__ if key in values}
    if isinstance(chosen.get("bands"), str):
        chosen["bands"] = _names(chosen["bands"])
    if chosen.get("uncertainty") is None:
        chosen.pop("uncertainty", None)
    else:
        chosen["uncertainty"] = _names(chosen["uncertainty"])
    return cast("Options", chosen)


def _names(text: object) -> list[str]:
    return [name.strip() for name in str(text).split(",")]


def plan(
    scenes: Scenes,
    model: ModelOption,
    before: Before = None,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    like: Like = None,
    resolution: Resolution = None,
    allow_hosts: AllowHosts = None,
    mosaic: Mosaic = False,
    core: Core = None,
    halo: Halo = None,
    blend: Blend = None,
    device: Device = "auto",
    precision: Precision = "float32",
    engine: Engine = "auto",
    tta: Tta = "none",
    uncertainty: UncertaintyOption = None,
    probabilities: Probabilities = False,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    keep_stores: KeepStores = True,
    stores: Stores = None,
) -> None:
    """Say what `segment` would do and cost: tiles, disk, memory, time. Changes nothing."""
    options = _options(locals())
    from tilemap import api

    prepared = api.plan(scenes, model=model, **options)
    for line in describe(prepared):
        typer.echo(with_flags(line))


def segment(
    scenes: Scenes,
    model: ModelOption,
    out: Out,
    before: Before = None,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    like: Like = None,
    resolution: Resolution = None,
    allow_hosts: AllowHosts = None,
    mosaic: Mosaic = False,
    core: Core = None,
    halo: Halo = None,
    blend: Blend = None,
    device: Device = "auto",
    precision: Precision = "float32",
    engine: Engine = "auto",
    tta: Tta = "none",
    uncertainty: UncertaintyOption = None,
    probabilities: Probabilities = False,
    cluster: Cluster = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    keep_stores: KeepStores = True,
    stores: Stores = None,
    publish: Publish = None,
    fresh: Fresh = False,
    allow_other_versions: OtherVersions = False,
) -> None:
    """Map a scene into landcover.tif and confidence.tif.

    The same command on the same directory continues a run that was interrupted.
    """
    options = _options(locals())
    from tilemap import api

    kept = None if fresh else out
    prepared = api.plan(scenes, model=model, out=kept, **options)
    _run(prepared, out, fresh, allow_other_versions)


def demo(
    out: Out = Path("demo-out"),
    workers: Workers = None,
    precision: Precision = "float32",
    fresh: Fresh = False,
) -> None:
    """Map the real scene that ships with tilemap: a quick look at everything it makes."""
    options = _options(locals())
    from tilemap import api

    kept = None if fresh else out
    scenes = api.demo_scene()
    options["core"] = api.DEMO_CORE
    _run(api.plan(scenes, model=api.DEMO_MODEL, out=kept, **options), out, fresh)


def _run(prepared: Prepared, out: Path, fresh: bool, allow_other_versions: bool = False) -> None:
    from tilemap.cli.progress import ConsoleProgress
    from tilemap.run import execute

    progress = ConsoleProgress()
    for line in describe(prepared):
        progress.note(line)
    result = execute(prepared, out, fresh, progress, allow_other_versions=allow_other_versions)
    for line in summary(result):
        typer.echo(line)
    raise typer.Exit(result.exit_code)


def describe(prepared: Prepared) -> list[str]:
    """A plan for a person."""
    plan, scene, card = prepared.plan, prepared.source.scene, prepared.model.card
    grid = plan.grid
    rows, cols = grid.shape
    mpx = grid.scene[0] * grid.scene[1] / 1e6
    lines = [
        f"scene    {scene.name}: {grid.scene[0]} x {grid.scene[1]} pixels ({mpx:.1f} Mpx), "
        f"bands {', '.join(scene.band_names)}",
        f"model    {card.name}: {', '.join(c.name for c in card.classes)}; "
        f"{prepared.settings.backend.precision} on {plan.device}, "
        f"{prepared.identity['backend']['engine']}",
        f"grid     {rows} x {cols} tiles, core {grid.core}, halo {grid.halo}, blend {grid.blend}; "
        f"the model computes {grid.overhead:.2f} pixels for each pixel of the scene",
        *_cost(prepared),
        f"tasks    {plan.tasks} for {plan.workers} workers",
        f"disk     at most {plan.disk_bytes / 1e6:.0f} MB, "
        f"{plan.store_bytes / 1e6:.0f} of them stores{_elsewhere(prepared)}",
        f"memory   at most {plan.worker_bytes / 2**20:.0f} MiB in each worker",
        f"time     about {plan.seconds:.0f} s",
    ]
    return lines + [f"warning  {text}" for text in prepared.warnings]


def _elsewhere(prepared: Prepared) -> str:
    stores = prepared.settings.stores
    return "" if stores is None else f", which lie in {stores}"


def _cost(prepared: Prepared) -> list[str]:
    """What several forwards for each patch cost; nothing where there is one."""
    if prepared.model.forwards == 1:
        return []
    return [f"cost     {prepared.model.describe()}: {prepared.times_one:.1f} times one"]


def summary(result: RunResult) -> list[str]:
    """What a run left, for a person."""
    record = result.record
    lines = [f"{row['name']:<16} {row['share']:7.2%}" + _area(row) for row in record["classes"]]
    if record["not_observed_pixels"]:
        lines.append(f"{'not observed':<16} {record['not_observed_pixels']} pixels")
    if record["quarantined"]:
        lines.append(f"partial: {len(record['quarantined'])} tiles could not be mapped")
        lines += [
            f"  tile ({q['tile'][0]}, {q['tile'][1]}): {with_flags(q['error'].splitlines()[0])}"
            for q in record["quarantined"]
        ]
    lines.append(
        f"{record['mpx_per_s']:.2f} Mpx/s; seam: {record['seam']['differ']} of "
        f"{record['seam']['pixels']} compared pixels differ; wrote {result.landcover}"
    )
    return lines


def _area(row: dict[str, object]) -> str:
    area = row["area_km2"]
    return "" if area is None else f"  {area:12.3f} km2"
