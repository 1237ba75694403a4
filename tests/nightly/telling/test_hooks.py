"""Command and webhook: told what and when, and what they cannot do to a pass."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tilemap.nightly.config import TellTable
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.telling.hooks import post, run_command, tell
from tilemap.nightly.telling.log import PassLog

Make = Callable[..., PassOutcome]
KEEP = """
import json, os, sys
told = {k: v for k, v in os.environ.items() if k.startswith("TILEMAP_")}
json.dump([json.load(sys.stdin), told, sys.argv[2:]], open(sys.argv[1], "w"))
"""


class Server:
    """A webhook on loopback that answers as it is told."""

    def __init__(self, answers: list[int | str]) -> None:
        self.answers, self.got = answers, list[tuple[str, dict[str, str], bytes]]()
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                number = min(len(outer.got), len(outer.answers) - 1)
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((self.path, headers, body))
                answer = outer.answers[number]
                if answer == "hang":
                    outer.release.wait(20)
                elif answer == "odd":
                    self.wfile.write(b"HTTP/1.0 200 OK\r\nno header at all\r\n\r\n")
                elif isinstance(answer, int):
                    self.send_response(answer)
                    if 300 <= answer < 400:
                        self.send_header("Location", f"{outer.url}/elsewhere")
                    self.end_headers()

            do_GET = do_POST  # noqa: N815 the name that http.server calls

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        """While it answers."""
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PassLog]:
    """A log whose lines can be read."""
    console = Console(file=io.StringIO(), soft_wrap=True, width=300)
    with PassLog(tmp_path / "log.jsonl", "20261126T021500Z", console) as log:
        yield log


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    """What was logged."""
    path = tmp_path / "log.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def nothing(seconds: float) -> None:
    """Do not wait between two tries."""


# --- the command -----------------------------------------------------------------------------


def test_a_command_is_told(tmp_path: Path, night: PassOutcome, log: PassLog) -> None:
    """The record on its input, the short of it in its environment, its arguments untouched."""
    (tmp_path / "keep.py").write_text(KEEP)
    command = (sys.executable, str(tmp_path / "keep.py"), str(tmp_path / "got"), "$HOME; rm *")
    tell(night, TellTable(on_failure=command), log, tmp_path / "summary.html")
    record, environment, arguments = json.loads((tmp_path / "got").read_text())
    assert record["pass"] == night.id
    assert record["counts"]["failed"] == 1
    assert record["text"].splitlines()[0] == "problem      paraguay: the API answered 502"
    assert environment == {
        "TILEMAP_PASS": night.id, "TILEMAP_STATUS": "partial", "TILEMAP_EXIT_CODE": "3",
        "TILEMAP_ROOT": "/srv/maps", "TILEMAP_SUMMARY": str(tmp_path / "summary.html"),
    } | {k: v for k, v in environment.items() if k in ("TILEMAP_DATA", "TILEMAP_HOME")}  # fmt: skip
    assert arguments == ["$HOME; rm *"]
    assert [line["event"] for line in lines(tmp_path)] == ["command"]


@pytest.mark.parametrize(
    ("changes", "always", "told"),
    [
        ({}, False, True),
        ({"status": "failed", "done": (), "problems": ()}, False, True),
        ({"status": "ok", "exit_code": 0, "done": (), "problems": ()}, False, False),
        ({"status": "ok", "exit_code": 0, "done": (), "problems": ()}, True, True),
        ({"status": "over", "exit_code": 0, "done": (), "problems": ()}, False, False),
        ({"status": "over"}, False, True),
        ({"dry": True}, True, False),
    ],
)
def test_when_it_is_told(
    tmp_path: Path, make: Make, log: PassLog, changes: dict[str, Any], always: bool, told: bool
) -> None:
    """When a pass did not end well, or always; never of a dry run."""
    table = TellTable(on_failure=("touch", str(tmp_path / "told")), always=always)
    tell(make(**changes), table, log)
    assert (tmp_path / "told").exists() is told


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("false",), "false ended with 1"),
        (("/no/such/command",), "/no/such/command cannot be run: No such file or directory"),
        (("a\0b",), "a?b cannot be run: embedded null byte"),
        (("sh", "-c", "kill -9 $$"), "sh ended with -9"),
        (("/",), "/ cannot be run: Permission denied"),
    ],
)
def test_a_command_that_fails_is_logged(
    tmp_path: Path, log: PassLog, command: tuple[str, ...], text: str
) -> None:
    """Why, and no more; the arguments may hold a secret and are not told."""
    assert run_command((*command, "hunter2"), b"{}", {}, 5.0, log) is False
    assert log.console.file.getvalue().strip() == f"warning: {text}"  # type: ignore[attr-defined]
    assert lines(tmp_path)[0]["level"] == "warning"
    assert "hunter2" not in (tmp_path / "log.jsonl").read_text()


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, log: PassLog) -> None:
    """Nothing of it is left when the time is over."""
    pid = tmp_path / "pid"
    command = ("sh", "-c", f"sleep 60 & echo $! > {pid}; echo begun; wait")
    assert run_command(command, b"{}", {}, 1.0, log) is False
    (line,) = lines(tmp_path)
    assert (line["code"], line["output"]) == (None, "begun")
    assert line["text"] == "sh took more than 1 s"
    child = Path(f"/proc/{int(pid.read_text())}")
    deadline = time.monotonic() + 10
    while child.exists() and "Z" not in _state(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or "Z" in _state(child)


def _state(process: Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_command_that_says_much_and_reads_nothing(tmp_path: Path, log: PassLog) -> None:
    """Megabytes either way fill neither a pipe nor the log; the end of them is kept."""
    command = ("sh", "-c", "yes noise | head -c 3000000; echo the end; exit 4")
    assert run_command(command, b"x" * 3_000_000, {}, 30.0, log) is False
    (line,) = lines(tmp_path)
    assert line["code"] == 4
    assert line["output"].endswith("noise\nthe end")
    assert len(line["output"]) <= 2000


def test_a_child_left_behind_holds_nobody_up(tmp_path: Path, log: PassLog) -> None:
    """A command that starts something in the background and ends well is done."""
    pid = tmp_path / "pid"
    command = ("sh", "-c", f"sleep 60 & echo $! > {pid}; echo sent")
    assert run_command(command, b"", {}, 30.0, log) is True
    child = int(pid.read_text())
    os.kill(child, signal.SIGTERM)  # which fails if it is not there any more
    assert lines(tmp_path)[0]["output"] == "sent"


# --- the webhook -----------------------------------------------------------------------------


def test_a_webhook_is_told(tmp_path: Path, night: PassOutcome, log: PassLog) -> None:
    """Once, as JSON, with the query and the password of its address; the log has its host only."""
    with Server([204]).running() as server:
        url = server.url.replace("//", "//me:p%40ss@") + "/hooks/T0P/s3cret?token=hunter2"
        tell(night, TellTable(webhook=url), log)
    ((path, headers, body),) = server.got
    assert path == "/hooks/T0P/s3cret?token=hunter2"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Basic bWU6cEBzcw=="
    assert json.loads(body)["headline"] == "5 done (1 in part), 2 failed, 1 source not read"
    (line,) = lines(tmp_path)
    assert (line["event"], line["host"], line["tries"]) == ("webhook", "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("answers", "asked", "taken"),
    [
        ([500, 503, 200], 3, True),
        ([500], 3, False),
        ([429, 200], 2, True),
        ([404], 1, False),
        ([302], 1, False),
        (["close"], 3, False),
        (["close", 200], 2, True),
    ],
)
def test_tries(
    tmp_path: Path, log: PassLog, answers: list[int | str], asked: int, taken: bool
) -> None:
    """What may pass is tried three times, waiting longer each time; what will not, once."""
    waited: list[float] = []
    with Server(answers).running() as server:
        url = f"{server.url}/s3cret?hunter2"
        assert post(url, b"{}", 5.0, log, wait=waited.append) is taken
    assert len(server.got) == asked
    assert [path for path, _, _ in server.got] == ["/s3cret?hunter2"] * asked
    assert waited == [1.0, 2.0][: asked - 1]
    assert lines(tmp_path)[-1]["event"] == ("webhook" if taken else "webhook_failed")
    told = (tmp_path / "log.jsonl").read_text() + log.console.file.getvalue()  # type: ignore[attr-defined]
    assert "s3cret" not in told
    assert "hunter2" not in told


def test_a_webhook_that_hangs(tmp_path: Path, log: PassLog) -> None:
    """It is left alone when its time is over."""
    with Server(["hang"]).running() as server:
        assert post(server.url, b"{}", 1.0, log, wait=nothing) is False
    assert len(server.got) == 3
    assert lines(tmp_path)[-1]["text"] == "webhook at 127.0.0.1: did not answer in time"


def test_odd_headers_tell_no_address(
    tmp_path: Path, log: PassLog, caplog: pytest.LogCaptureFixture
) -> None:
    """urllib3 would log the whole address with them; afterwards it is heard again."""
    with Server(["odd"]).running() as server:
        post(f"{server.url}/s3cret", b"{}", 5.0, log, wait=nothing)
    assert server.got
    assert "s3cret" not in caplog.text + (tmp_path / "log.jsonl").read_text()
    logging.getLogger("urllib3.connection").warning("heard")
    # Under load other libraries log too, such as Dask of an event loop that is late.
    told = [line["text"] for line in lines(tmp_path) if line.get("logger") == "urllib3.connection"]
    assert told == ["heard"]


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "file:///etc/passwd", "host/path", "", "http://", "http://[", "https:x"]
)
def test_what_is_no_webhook(tmp_path: Path, log: PassLog, url: str) -> None:
    """Another scheme or no host: said, without the address."""
    assert post(url, b"{}", 1.0, log, wait=nothing) is False
    assert lines(tmp_path)[-1]["text"] == "the webhook must be an http or https address"


def test_nobody_is_there(tmp_path: Path, log: PassLog) -> None:
    """A port on which nobody listens, a name that does not exist."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/s3cret"
    assert post(url, b"{}", 1.0, log, wait=nothing) is False
    last = lines(tmp_path)[-1]
    assert (last["text"], last["tries"]) == ("webhook at 127.0.0.1: cannot be reached", 3)


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, log: PassLog) -> None:
    """The request is never sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    server = Server([200])
    server.server.socket = context.wrap_socket(
        server.server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with server.running():
        url = server.url.replace("http:", "https:")
        assert post(url, b"{}", 5.0, log, wait=nothing) is False
    assert server.got == []
    last = lines(tmp_path)[-1]
    assert last["error"] == "its certificate was not accepted"
    assert last["tries"] == 1


def _self_signed(folder: Path) -> Path:
    """Certificate and key of 127.0.0.1 in one file."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "pair.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path
