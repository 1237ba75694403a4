"""``tilemap ledger list|show|retry|forget|rebuild|check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tilemap.nightly.ledger import Ledger

app = typer.Typer(
    help="What the nightly passes know: list, show, check; retry, forget, rebuild.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
What = Literal["scenes", "passes", "attempts", "products", "quarantine"]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the passes, their configuration's root.")
]
Config = Annotated[
    Path | None, typer.Option(help="Configuration of the passes, instead of --root.")
]
Subject = Annotated[
    str,
    typer.Argument(metavar="AREA/ID", help="Area and scene, or AREA/change for an area's series."),
]
Area = Annotated[str | None, typer.Option(help="Only this area.")]


@app.command("list")
def list_rows(
    root: Root = None,
    config: Config = None,
    area: Area = None,
    what: Annotated[What, typer.Option(help="Of what.")] = "scenes",
    last: Annotated[
        int, typer.Option(min=1, help="Passes or attempts at most, the newest first.")
    ] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="All there is, as JSON.")] = False,
) -> None:
    """List scenes and what became of them, or passes, attempts, products, quarantines.

    Works while a pass runs, and changes nothing.
    """
    from tilemap.nightly import ledger_lines

    with _peek(root, config) as ledger:
        if as_json:
            typer.echo(json.dumps(ledger_lines.records(ledger, what, area, last), indent=2))
        else:
            for line in ledger_lines.listing(ledger, what, area, last):
                typer.echo(line)


@app.command("show")
def show(
    subject: Annotated[str, typer.Argument(metavar="AREA[/ID]", help="An area, or a scene of it.")],
    root: Root = None,
    config: Config = None,
) -> None:
    """Print everything about one scene or series: state, products, quarantine, attempts."""
    from tilemap.nightly import ledger_lines

    with _peek(root, config) as ledger:
        area, key = _known(ledger, subject)
        lines = ledger_lines.about(ledger, area, key) if key else ledger_lines.area(ledger, area)
        for line in lines:
            typer.echo(line)


@app.command("check")
def check(
    root: Root = None,
    config: Config = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes of files, not their checksums.")
    ] = False,
) -> None:
    """Compare the ledger with the disk; exit code 3 if they disagree."""
    from tilemap.nightly import inspection

    with _peek(root, config) as ledger:
        lines = inspection.check(ledger, ledger.root, contents=not quick)
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(3)
    typer.echo("ledger and disk agree")


@app.command("retry")
def retry(
    subject: Annotated[
        str | None, typer.Argument(metavar="[AREA[/ID]]", help="An area, or a scene of it.")
    ] = None,
    root: Root = None,
    config: Config = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all areas.")] = False,
) -> None:
    """Let the next pass try again what is in quarantine or has failed."""
    from tilemap.errors import UsageError
    from tilemap.nightly import pardon

    if (subject is None) is not everything:
        raise UsageError("either AREA[/ID] or --all must be given")
    with _write(root, config, "retry") as ledger:
        area, key = (None, None) if subject is None else _known(ledger, subject)
        found = pardon.retry(ledger, area, key)
    for name, kind, which in found:
        typer.echo(f"{name}/{which} ({kind}) is tried again by the next pass")
    if not found:
        typer.echo("nothing is in quarantine, and nothing has failed")


@app.command("forget")
def forget(subject: Subject, root: Root = None, config: Config = None) -> None:
    """Know nothing of a scene or series: the next pass does it anew.

    What is published stays until then. Nothing is removed from disk.
    """
    from tilemap.errors import UsageError
    from tilemap.nightly import pardon

    with _write(root, config, "forget") as ledger:
        area, key = _known(ledger, subject)
        if key is None:
            raise UsageError(f"forget needs AREA/ID, got {subject!r}")
        pardon.forget(ledger, area, key)
    typer.echo(f"{area}/{key} is forgotten; the next pass does it anew")


@app.command("rebuild")
def rebuild(root: Root = None, config: Config = None) -> None:
    """Make the ledger anew from what lies on disk; the old one is kept beside it."""
    from datetime import UTC, datetime

    from tilemap.nightly import rebuild as rebuilding

    report = rebuilding.rebuild(_root(root, config), datetime.now(UTC))
    for note in report.notes:
        typer.echo(note)
    history = "kept" if report.history else "lost"
    typer.echo(
        f"{report.products} products, {report.listed} of them listed, {report.quarantines} in "
        f"quarantine; the history of passes and attempts is {history}"
    )
    if report.kept is not None:
        typer.echo(f"the ledger before is {report.kept}")


def _root(root: Path | None, config: Path | None) -> Path:
    from tilemap.errors import UsageError

    if root is not None and config is None:
        return root
    if config is not None and root is None:
        from tilemap.nightly.config import load_config

        return load_config(config).root
    raise UsageError("either --root or --config must be given")


@contextmanager
def _peek(root: Path | None, config: Path | None) -> Iterator[Ledger]:
    from tilemap.errors import StoreError
    from tilemap.nightly.ledger import LEDGER_FILE, Ledger

    path = _root(root, config) / LEDGER_FILE
    with Ledger.peek(path) as ledger:
        if not path.is_file():
            raise StoreError(f"there is no ledger at {path}")
        yield ledger


@contextmanager
def _write(root: Path | None, config: Path | None, command: str) -> Iterator[Ledger]:
    from tilemap.nightly.ledger import LEDGER_FILE, Ledger
    from tilemap.nightly.lock import acquire

    path = _root(root, config) / LEDGER_FILE
    with (
        Ledger.open(path, create=False) as ledger,
        acquire(ledger, command=f"tilemap ledger {command}"),
    ):
        yield ledger


def _known(ledger: Ledger, subject: str) -> tuple[str, str | None]:
    """Area and id of what the ledger knows something of."""
    from tilemap.errors import UsageError

    area, _, key = subject.partition("/")
    if not ledger.knows(area, key or None):
        raise UsageError(f"the ledger knows no {subject}; see `tilemap ledger list`")
    return area, key or None
