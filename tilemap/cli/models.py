"""``tilemap models list|show|import|probe|export|quantize|prune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilemap.cli.segment import Bands, Nodata, Offset, Scale, Scenes

if TYPE_CHECKING:
    from tilemap.models.parity import Parity
    from tilemap.models.registry import ModelRef
    from tilemap.scene import SceneRequest

app = typer.Typer(
    help="The models: list, show, import, probe; another form: export, quantize, prune.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name from `tilemap models list`, a model folder or an .onnx file."
    ),
]

Out = Annotated[Path, typer.Option(help="Folder of the new model; must not be there yet.")]
Regions = Annotated[int, typer.Option(min=1, help="Crops of the scene to compare labels on.")]
Reference = Annotated[
    str | None,
    typer.Option(help="Raster of true class values on the scene's grid, to compare with as well."),
]


@app.command("list")
def list_models() -> None:
    """List the models at hand: shipped ones, and those you imported."""
    from tilemap.models import registry

    for entry in registry.list_models():
        card = entry.card
        here = entry.origin if entry.path is not None else f"{entry.origin}, give its file"
        classes = ", ".join(c.name for c in card.classes)
        typer.echo(f"{card.name:<24} {here:<24} {len(card.bands)} bands -> {classes}")


@app.command("show")
def show(model: Name) -> None:
    """Print a model's card: bands, classes, what it is good for, what was measured."""
    from tilemap.models import registry

    ref = registry.resolve(model)
    card = ref.card
    lines = {
        "name": f"{card.name} {card.version}: {card.title}",
        "about": card.description,
        "licence": card.license,
        "source": card.source,
        "bands": f"{', '.join(card.bands)} ({card.units})",
        "classes": ", ".join(f"{c.value} {c.name} {c.color}" for c in card.classes),
        "patch": f"{card.patch} pixels only" if card.patch else f"any multiple of {card.stride}",
        "context": "no bound known" if card.context is None else f"{card.context} pixels",
        "halo": "not probed" if card.halo is None else f"{card.halo} pixels, measured",
        "training": "; ".join(card.training_data),
        "metrics": ", ".join(f"{key} {value}" for key, value in card.metrics.items()),
        "weights": f"{ref.path} sha256 {card.sha256}",
    }
    for key, text in lines.items():
        if text:
            typer.echo(f"{key:<9}{text}")


@app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="Trained model: .onnx or .safetensors.")],
    card: Annotated[Path, typer.Option("--card", help="Its card, model.json.")],
    name: Annotated[
        str | None, typer.Option(help="Name in the registry [default: the card's].")
    ] = None,
) -> None:
    """Copy a trained model and its card into your registry, after trying it out."""
    from tilemap.models import registry

    ref = registry.import_model(file, card, name)
    typer.echo(f"imported {ref.card.name} into {ref.path.parent}")


@app.command("probe")
def probe(
    model: Name,
    scenes: Scenes,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    regions: Annotated[int, typer.Option(min=1, help="Crops of the scene to try.")] = 4,
) -> None:
    """Measure the smallest halo a model needs on a real scene, and store it in its card."""
    from tilemap.cluster import usable_cores
    from tilemap.models import registry
    from tilemap.probing import probe_model

    request = _request(scenes, bands, nodata, scale, offset)
    before = registry.resolve(model)
    ref, found = probe_model(before, request, regions, usable_cores())
    typer.echo("margin  labels that differ  mean difference of probability")
    for margin, labels, probabilities in zip(
        found.margins, found.labels, found.probabilities, strict=True
    ):
        if margin % 16 == 0 or margin == found.halo:
            typer.echo(f"{margin:6d}  {labels:18.4%}  {probabilities:18.5f}")
    context = "no bound" if found.context is None else f"{found.context} pixels"
    typer.echo(f"context: {context}")
    if found.halo is None:
        typer.echo("halo: none of these is enough; the card is unchanged")
        raise typer.Exit(3)
    typer.echo(f"halo: {found.halo} pixels, now in {registry.card_store(ref)}")


@app.command("export")
def export(
    model: Name,
    scenes: Scenes,
    out: Out,
    to: Annotated[str, typer.Option(help="The form; there is only onnx.")] = "onnx",
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    regions: Regions = 4,
) -> None:
    """Export a torch model to ONNX, if it gives the same labels on crops of a real scene.

    Every engine that is installed may change 0.5 % of the labels at most, or nothing is kept.
    """
    from tilemap.cluster import usable_cores
    from tilemap.exporting.forms import export_model
    from tilemap.models import registry

    request = _request(scenes, bands, nodata, scale, offset)
    made = export_model(registry.resolve(model), request, out, to, regions, usable_cores())
    _tell_parity(made.parity, made.missing)
    typer.echo(f"exported {made.ref.card.name} into {out}")


@app.command("quantize")
def quantize(
    model: Name,
    scenes: Scenes,
    out: Out,
    allow: Annotated[
        float, typer.Option(help="Largest share of the labels that may change.")
    ] = 0.02,
    reference: Reference = None,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    regions: Regions = 4,
) -> None:
    """Make an ONNX file of a model that computes with 8-bit integers, if few labels change.

    Prints size, speed on one core and labels beside those of the model it was made of.
    """
    from tilemap.cluster import usable_cores
    from tilemap.exporting.forms import quantise_model
    from tilemap.models import registry

    request = _request(scenes, bands, nodata, scale, offset)
    before = registry.resolve(model)
    compared = _Compared(before, request, reference, regions)
    made = quantise_model(before, request, out, allow, regions, usable_cores())
    _tell_parity(made.parity, made.missing)
    compared.tell(made.ref)
    typer.echo(f"quantised {made.ref.card.name} into {out}")


@app.command("prune")
def prune(
    model: Name,
    out: Out,
    share: Annotated[
        float, typer.Option(help="Largest share of each part's inner channels to remove.")
    ] = 0.3,
    criterion: Annotated[
        str, typer.Option(help="What tells how much a channel counts: scale or l1.")
    ] = "scale",
    scene: Annotated[
        list[str] | None,
        typer.Option(help="Scene to measure speed and labels on; several for several files."),
    ] = None,
    reference: Reference = None,
    bands: Bands = None,
    nodata: Nodata = None,
    scale: Scale = None,
    offset: Offset = None,
    regions: Regions = 4,
) -> None:
    """Remove the inner channels of a torch model that count least; train it on afterwards."""
    from tilemap.errors import UsageError
    from tilemap.exporting.forms import prune_model
    from tilemap.models import registry

    if reference is not None and not scene:
        raise UsageError("--reference needs the --scene that its labels are of")
    before = registry.resolve(model)
    request = _request(scene, bands, nodata, scale, offset) if scene else None
    compared = _Compared(before, request, reference, regions) if request else None
    made, widths = prune_model(before, share, out, criterion)
    for name, width in widths.items():
        typer.echo(f"{name:<32} {width} channels left")
    if compared:
        compared.tell(made)
    else:
        typer.echo(f"bytes {before.path.stat().st_size:,} -> {made.path.stat().st_size:,}")
    typer.echo(f"pruned {made.card.name} into {out}; its labels are others until it is trained on")


def _request(
    scenes: list[str],
    bands: str | None,
    nodata: float | None,
    scale: float | None,
    offset: float | None,
) -> SceneRequest:
    from tilemap.scene import SceneRequest

    names = None if bands is None else tuple(name.strip() for name in bands.split(","))
    return SceneRequest(
        sources=tuple(scenes), band_names=names, nodata=nodata, scale=scale, offset=offset,
        mosaic=True,  # pixels to try a model on may be of any day
    )  # fmt: skip


def _tell_parity(parity: Mapping[str, Parity], missing: tuple[str, ...]) -> None:
    for engine, found in parity.items():
        typer.echo(
            f"{engine:<12} {found.labels_differ:.3%} of {found.pixels:,} labels differ, "
            f"probabilities by {found.largest:.1e} at most and {found.mean:.1e} in the mean"
        )
    for engine in missing:
        typer.echo(f"{engine:<12} not installed, so not tried")


class _Compared:
    """A model and its crops of a scene, read before another form of it is made."""

    def __init__(
        self, before: ModelRef, request: SceneRequest, labels: str | None, regions: int
    ) -> None:
        from tilemap.exporting.ground import find_ground, read_labels
        from tilemap.models import registry

        self._before = before
        self._ground = find_ground(registry.load(before), request, regions)
        self._truth = read_labels(labels, self._ground, before.card) if labels else None

    def tell(self, after: ModelRef) -> None:
        """Size, speed and labels of both, in every engine that is installed."""
        from tilemap.exporting.forms import engines_of
        from tilemap.exporting.ground import measure_forms
        from tilemap.models import registry

        forms = {
            f"{ref.card.name} {engine}": (registry.load(ref, engine=engine), ref.path)
            for ref in (self._before, after)
            for engine in engines_of(ref)
        }
        title = "  mIoU to --reference" if self._truth else ""
        typer.echo(f"{'':<40}{'bytes':>12}  Mpx/s of one core  labels differ    mIoU{title}")
        for name, each in measure_forms(forms, self._ground, self._truth).items():
            own = "" if each.miou is None else f"{each.miou:21.4f}"
            typer.echo(
                f"{name:<40}{each.bytes:12,}{each.mpx_s:19.2f}{each.parity.labels_differ:15.3%}"
                f"{each.parity.miou:8.4f}{own}"
            )
