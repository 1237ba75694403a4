"""``tilemap train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml",
            help="Scenes, labels, classes and settings; see docs/training.md.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the training.")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier training in that directory.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda [default: the configuration's].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU [default: one per core].", min=1)
    ] = None,
    allow_other_versions: Annotated[
        bool,
        typer.Option(
            "--allow-other-versions", help="Continue what another version of PyTorch began."
        ),
    ] = False,
) -> None:
    """Train a model from scenes and labels; it is in OUT/model then.

    The same command on the same directory continues a training that was interrupted, and ends with
    the same weights.
    """
    from tilemap import api
    from tilemap.cli.progress import ConsoleTraining
    from tilemap.training.measuring import table

    progress = ConsoleTraining()
    result = api.train(
        config, out, progress=progress, fresh=fresh, device=device, threads=threads,
        allow_other_versions=allow_other_versions,
    )  # fmt: skip
    for line in table(result.card.metrics):
        typer.echo(line)
    for warning in result.record.get("warnings", ()):
        typer.echo(f"warning  {warning}")
    typer.echo(
        f"temperature {result.card.temperature}, "
        f"{result.record['steps']} steps in {result.record['seconds']} s; wrote {result.model}"
    )
