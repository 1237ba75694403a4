"""``tilemap models list|show|import|probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilemap.cli.segment import Bands, Nodata, Offset, Scale, Scenes

app = typer.Typer(
    help="The models: list, show, import, probe.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A name from `tilemap models list`, a model folder or an .onnx file."
    ),
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
    from tilemap.stores.geotiff import SceneRequest

    names = None if bands is None else tuple(name.strip() for name in bands.split(","))
    request = SceneRequest(
        sources=tuple(scenes), band_names=names, nodata=nodata, scale=scale, offset=offset
    )
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
