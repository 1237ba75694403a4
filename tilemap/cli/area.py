"""``tilemap sample`` and ``tilemap area``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tilemap.evaluation.assess import Assessment
    from tilemap.evaluation.sampling import Drawn

_NAME = 32


def sample(
    class_map: Annotated[
        str,
        typer.Argument(
            metavar="MAP",
            help="change.tif, landcover.tif or the directory of a run.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="GeoPackage to be labelled.")],
    per_stratum: Annotated[
        int | None, typer.Option(help="Points in each class that occurs in the map.")
    ] = None,
    standard_error: Annotated[
        float | None,
        typer.Option(help="Instead: of the overall accuracy, such as 0.01; the number follows."),
    ] = None,
    expected_accuracy: Annotated[
        list[str] | None,
        typer.Option(
            help="With --standard-error: user's accuracy expected of every class, such as 0.9, or "
            "of one, NAME=0.7; may be repeated [default: 0.85]."
        ),
    ] = None,
    least: Annotated[
        int, typer.Option(help="With --standard-error: points in a class, at least.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sample.")] = 0,
) -> None:
    """Draw a stratified random sample of a map, to be labelled.

    Fill in the column `reference` of each point with the name or number of the class that you see
    there, without looking at the map; then `tilemap area`.
    """
    from tilemap.evaluation.sampling import EXPECTED, Plan, sample_map

    general, of = _accuracies(expected_accuracy or [])
    plan = Plan(
        per_stratum, standard_error, EXPECTED if general is None else general, of, least, seed
    )
    drawn = sample_map(class_map, out, plan)
    for line in _drawn(drawn, plan.accuracies(drawn.strata)):
        typer.echo(line)
    typer.echo(f"wrote {out}: fill in the column reference of its {len(drawn.row):,} points")


def _accuracies(texts: Sequence[str]) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """``0.9`` and ``NAME=0.7`` apart."""
    from tilemap.errors import UsageError

    general, of = None, list[tuple[str, float]]()
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            accuracy = float(number)
        except ValueError:
            raise UsageError(
                f"--expected-accuracy must look like 0.9 or NAME=0.7, got {text!r}"
            ) from None
        if name:
            of.append((name.strip(), accuracy))
        else:
            general = accuracy
    return general, tuple(of)


def _drawn(drawn: Drawn, accuracies: Sequence[float]) -> list[str]:
    """What was drawn, for a person."""
    from tilemap.evaluation.sample_size import FORMULA

    wide = max(7, *(min(len(s.name), _NAME) for s in drawn.strata))
    formula = drawn.needed is not None
    lines = [f"{'stratum':<{wide}} {'points':>7} {'pixels':>15} {'hectares':>17}"]
    lines[0] += f" {'expected':>9}" if formula else ""
    for stratum, units, accuracy in zip(drawn.strata, drawn.units, accuracies, strict=True):
        hectares = _one(stratum.area_ha if stratum.area_ha == stratum.area_ha else None)
        line = f"{stratum.name[:_NAME]:<{wide}} {units:>7,} {stratum.pixels:>15,} {hectares:>17}"
        lines.append(line + (f" {accuracy:>9.3g}" if formula else ""))
    if formula:
        lines.append(f"{FORMULA} = {drawn.needed:,}; drawn {sum(drawn.units):,}")
    return lines


def area(
    labelled: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SAMPLE]", help="The labelled sample, a GeoPackage.", show_default=False
        ),
    ] = None,
    class_map: Annotated[
        str | None,
        typer.Option("--map", help="The map that is assessed, or the directory of its run."),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            help="Instead of both: sample counts, a CSV with the header map,<reference "
            "classes...>,mapped_area_ha."
        ),
    ] = None,
    ignore_unlabelled: Annotated[
        bool, typer.Option("--ignore-unlabelled", help="Leave out points without a reference.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate accuracies and unbiased areas, with 95 % intervals, from a labelled sample."""
    from tilemap.errors import UsageError
    from tilemap.evaluation.assess import assess_matrix, assess_sample

    if matrix is not None and labelled is None and class_map is None:
        found = assess_matrix(matrix)
    elif matrix is None and labelled is not None and class_map is not None:
        found = assess_sample(labelled, class_map, ignore_unlabelled)
    else:
        raise UsageError("give a labelled SAMPLE with its --map, or a --matrix alone")
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2, ensure_ascii=False))
        return
    for line in table(found):
        typer.echo(line)


def table(found: Assessment) -> list[str]:
    """The figures for a person."""
    record = found.record()
    wide = max(5, *(min(len(name), _NAME) for name in found.names))
    lines = [
        f"{'class':<{wide}} {'users acc.':>15} {'producers acc.':>15} {'mapped ha':>14} "
        f"{'area ha, 95 % interval':>28}"
    ]
    if any(row["area_ha"] is None for row in record["classes"]):
        lines[0] += f" {'share':>15}"
    for row in record["classes"]:
        line = (
            f"{row['name'][:_NAME]:<{wide}} "
            f"{_pair(row['users_accuracy'], row['users_accuracy_ci'], 4):>15} "
            f"{_pair(row['producers_accuracy'], row['producers_accuracy_ci'], 4):>15} "
            f"{_one(row['mapped_area_ha']):>14} {_pair(row['area_ha'], row['area_ci_ha'], 1):>28}"
        )
        if row["area_ha"] is None:
            line += f" {_pair(row['area_share'], 1.96 * row['area_share_se'], 4):>15}"
        lines.append(line)
    overall = _pair(record["overall_accuracy"], record["overall_accuracy_ci"], 4)
    lines.append(f"overall accuracy {overall}, {record['units']:,} points")
    if record["units_left_out"]:
        lines.append(f"{record['units_left_out']:,} points without a reference were left out")
    return lines + [f"note: {text}" for text in record["notes"]]


def _pair(value: float | None, interval: float | None, digits: int) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:,.{digits}f} ± {interval:,.{digits}f}"


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
