"""``tilemap``: the command, its errors and its exit codes."""

from __future__ import annotations

import io
import sys
import traceback

import typer

from tilemap.cli import area, change, evaluate, ledger, models, nightly, segment, train
from tilemap.cli.flags import with_flags
from tilemap.errors import EXIT_BUG, INTERRUPTED
from tilemap.files import outside_error

app = typer.Typer(
    name="tilemap",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(segment.demo)
app.command("plan")(segment.plan)
app.command("segment")(segment.segment)
app.command("change")(change.change)
app.command("sample")(area.sample)
app.command("area")(area.area)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("nightly")(nightly.nightly)
app.add_typer(ledger.app, name="ledger")
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        from tilemap import __version__

        print(f"tilemap {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Turn satellite and aerial scenes of any size into land-cover maps.

    Exit codes: 0 ok, 2 usage, 3 partial, 65 bad data, 69 unavailable, 70 bug, 73 cannot create,
    74 I/O, 75 try again, 78 configuration.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one or two lines and an exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
    try:
        app(args=arguments, prog_name="tilemap")
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer has caught it
            print("stopped; the same command continues", file=sys.stderr)
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = outside_error(error)
        if known is not None:
            print(f"error: {with_flags(str(known))}", file=sys.stderr)
            sys.exit(known.exit_code)
        name = type(error).__name__
        print(f"error: a bug in tilemap: {name}: {error}", file=sys.stderr)
        print("run `tilemap --debug ...` for the traceback and report it", file=sys.stderr)
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
