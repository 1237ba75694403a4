"""``tilemap nightly``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def nightly(
    config: Annotated[
        Path, typer.Argument(help="TOML file, see docs/nightly.md.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done; changes nothing.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time, such as 6h, after which nothing new is begun; default the configuration's.",
            show_default=False,
        ),
    ] = None,
    area: Annotated[
        list[str] | None,
        typer.Option("--area", help="Only this area; may be given again.", show_default=False),
    ] = None,
) -> None:
    """One pass over what is new: find it, map it once, compare it, publish it whole, tell it.

    Run it as often as you like: what was done with the same model and options is left alone, what
    was interrupted continues. Exit codes besides those of other commands: 3 if something failed
    and the rest was delivered, 75 if another pass is at work.
    """
    from tilemap.cli.progress import ConsoleProgress
    from tilemap.nightly.config import load_config
    from tilemap.nightly.passing import run_pass
    from tilemap.nightly.request import PassRequest
    from tilemap.nightly.telling import summary_lines

    request = PassRequest(
        load_config(config), str(config), tuple(area or ()), _seconds(budget), dry_run,
        bar=ConsoleProgress,
    )  # fmt: skip
    outcome = run_pass(request)
    for line in summary_lines(outcome):
        typer.echo(line)
    raise typer.Exit(outcome.exit_code)


def _seconds(budget: str | None) -> float | None:
    from tilemap.errors import UsageError
    from tilemap.nightly.config import parse_duration

    if budget is None:
        return None
    try:
        return float(parse_duration(budget))
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from error
