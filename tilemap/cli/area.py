"""``tilemap sample`` and ``tilemap area``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tilemap.evaluation.assess import Assessment

ClassMap = Annotated[
    Path, typer.Argument(help="landcover.tif or change.tif.", show_default=False, metavar="MAP")
]


def sample(
    class_map: ClassMap,
    out: Annotated[Path, typer.Option("--out", "-o", help="GeoPackage to label.")],
    per_stratum: Annotated[int | None, typer.Option(help="Units of each class of the map.")] = None,
    standard_error: Annotated[
        float | None,
        typer.Option(help="Instead: of the overall accuracy, such as 0.01; sizes follow."),
    ] = None,
    expected_accuracy: Annotated[
        float, typer.Option(help="User's accuracy that is expected of each class.")
    ] = 0.85,
    least: Annotated[
        int, typer.Option(help="Units of the smallest classes, with --standard-error.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sample.")] = 0,
) -> None:
    """Draw pixels of each class at random, to be labelled by a person.

    Fill in the column `reference` of each point, with a class's name or number, without looking at
    the map; then `tilemap area`.
    """
    from tilemap.errors import UsageError
    from tilemap.evaluation import sampling

    if (per_stratum is None) == (standard_error is None):
        raise UsageError("give either --per-stratum or --standard-error")
    strata = sampling.strata_of(class_map)
    if per_stratum is not None:
        counts = [per_stratum] * len(strata)
        about = {"per_stratum": per_stratum, "seed": seed}
    else:
        assert standard_error is not None
        counts = sampling.size_of(strata, standard_error, expected_accuracy, least)
        about = {
            "standard_error": standard_error, "expected_accuracy": expected_accuracy,
            "least": least, "seed": seed,
        }  # fmt: skip
    drawn = sampling.draw(class_map, strata, counts, seed)
    geobox = sampling.open_map(class_map).geobox
    sampling.write_sample(out, drawn, geobox, {"map": class_map.name, **about})
    if standard_error is not None:
        typer.echo(sampling.FORMULA)
    for stratum, count in zip(drawn.strata, drawn.counts, strict=True):
        typer.echo(f"{stratum.name:<32} {count:6d} of {stratum.pixels:,} pixels")
    typer.echo(f"wrote {out}: {len(drawn.row)} points; fill in their column reference")


def area(
    labelled: Annotated[
        Path | None,
        typer.Argument(help="The labelled sample.", show_default=False, metavar="[SAMPLE]"),
    ] = None,
    class_map: Annotated[
        Path | None, typer.Option("--map", help="The map that the sample was drawn from.")
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(help="Instead: a CSV map,<reference classes...>,mapped_area_ha."),
    ] = None,
    ignore_unlabelled: Annotated[
        bool, typer.Option("--ignore-unlabelled", help="Leave out units without a reference.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Accuracies and unbiased areas with 95 % intervals, from a labelled sample."""
    from tilemap.errors import UsageError
    from tilemap.evaluation.assess import assess_matrix, assess_sample

    if matrix is not None and labelled is None and class_map is None:
        found = assess_matrix(matrix)
    elif matrix is None and labelled is not None and class_map is not None:
        found = assess_sample(labelled, class_map, ignore_unlabelled)
    else:
        raise UsageError("give a SAMPLE with its --map, or a --matrix")
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2))
        return
    for line in table(found):
        typer.echo(line)


def table(found: Assessment) -> list[str]:
    """The figures for a person."""
    record = found.record()
    wide = max(5, *(min(len(name), 32) for name in found.names))
    lines = [
        f"{'class':<{wide}} {'users acc.':>15} {'producers acc.':>15} {'mapped ha':>14} "
        f"{'area ha, 95 % interval':>28}"
    ]
    for row in record["classes"]:
        lines.append(
            f"{row['name'][:32]:<{wide}} "
            f"{_pair(row['users_accuracy'], row['users_accuracy_ci'], 4):>15} "
            f"{_pair(row['producers_accuracy'], row['producers_accuracy_ci'], 4):>15} "
            f"{_one(row['mapped_area_ha']):>14} {_pair(row['area_ha'], row['area_ci_ha'], 1):>28}"
        )
    overall = _pair(record["overall_accuracy"], record["overall_accuracy_ci"], 4)
    lines.append(f"overall accuracy {overall}, {record['units']} units")
    if record["units_left_out"]:
        lines.append(f"{record['units_left_out']} units without a reference were left out")
    return lines


def _pair(value: float | None, interval: float | None, digits: int) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:,.{digits}f} ± {interval:,.{digits}f}"


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
