"""``tilemap``: the command, its errors, its exit codes and how it is stopped."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from tilemap.errors import EXIT_BUG

if TYPE_CHECKING:
    from types import FrameType

    import typer

STOPPED = "stopped; the same command continues"
ORDERLY_S = 10.0
"""How long a command that is stopped may take to put things in order."""


def make_app() -> typer.Typer:
    """The commands. Their modules load here, where a signal is already waited for."""
    import typer

    from tilemap.cli import area, change, evaluate, ledger, models, nightly, segment, train

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

    def told(wanted: bool) -> None:
        if wanted:
            from tilemap import __version__

            print(f"tilemap {__version__}")
            raise typer.Exit

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", help="Print the version.", callback=told, is_eager=True
        ),
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    ) -> None:
        """Turn satellite and aerial scenes of any size into land-cover maps.

        Exit codes: 0 ok, 2 usage, 3 partial, 65 bad data, 69 unavailable, 70 bug,
        73 cannot create, 74 I/O, 75 try again, 78 configuration, 130 Ctrl-C, 143 SIGTERM.
        """

    return app


class _Output(io.FileIO):
    """An output whose reader may go away, as that of ``| head`` does; the run goes on."""

    def write(self, data: Any, /) -> int:
        """Write; what nobody reads any more is dropped."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _patient(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering,
    )  # fmt: skip


class _Stop:
    """What Ctrl-C and SIGTERM do: the first ends the command in order, the second at once.

    Attributes:
        number: of the first signal; 0 before one comes.
        leaving: the command has ended. Exit handlers take no interrupt: Python would print it.
    """

    def __init__(self) -> None:
        self.number = 0
        self.leaving = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Called by Python in the main thread."""
        again, self.number = self.number != 0, self.number or number
        if again or self.leaving:
            self.end()
        # An interrupt can be lost in code that swallows it, or meet a cluster that hangs.
        timer = threading.Timer(ORDERLY_S, self.end)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    def end(self) -> NoReturn:
        """End this process; its workers end with it.

        Not through exit handlers: those of Dask complain of a cluster that was just being started.
        """
        with suppress(OSError):  # nobody reads it
            os.write(2, f"{STOPPED}\n".encode())
        os._exit(128 + self.number)


@contextmanager
def _stopping(for_good: bool) -> Iterator[None]:
    """Both signals end the command with one line, whatever the interrupt became on its way.

    Args:
        for_good: until this process ends, its exit included; else until the command has ended.
    """
    stop = _Stop()
    here = threading.current_thread() is threading.main_thread()  # where signals come
    numbers = (signal.SIGINT, signal.SIGTERM) if here else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        stop.leaving = True
        sys.stdout.flush()
        if stop.number:
            stop.end()
        for number, handler in before.items() if not for_good else ():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become one or two lines and an exit code."""
    for_good = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    if for_good:
        # a helper of multiprocessing complains of what a command that is stopped has open
        quiet = (os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning")
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, quiet))
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _patient(sys.stdout)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _patient(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
    try:
        with _stopping(for_good):
            make_app()(args=arguments, prog_name="tilemap")
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGINT:  # an interrupt that was no signal; typer caught it
            print(STOPPED, file=sys.stderr)
        raise
    except Exception as error:
        _fail(error, "--debug" in arguments)


def _fail(error: Exception, debug: bool) -> NoReturn:
    import traceback

    from tilemap.cli.flags import with_flags
    from tilemap.files import outside_error

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
