"""A command and a webhook for a pass that did not end well."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from tilemap.nightly.config import TellTable
from tilemap.nightly.facts import PassOutcome
from tilemap.nightly.telling.log import PassLog
from tilemap.nightly.telling.record import ended_well, outcome_record, summary_lines

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

TRIES = 3
BACKOFF_S = 1.0
_TAIL = 2000  # bytes of a command's output that the log keeps
_SHORTEST_S = 1.0


def tell(
    outcome: PassOutcome,
    table: TellTable,
    log: PassLog,
    summary: Path | None = None,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Run the command and call the webhook, if there is something to be told.

    That is a pass that did not end well; with ``always`` every pass but a dry one. What goes wrong
    here is logged, and changes nothing else.

    Args:
        outcome: of the pass.
        table: who is told.
        log: of the pass.
        summary: the summary page, for the command's environment.
        wait: between two tries of the webhook.
    """
    if outcome.dry or (ended_well(outcome) and not table.always):
        return
    text = "\n".join(summary_lines(outcome))
    content = json.dumps({"text": text, **outcome_record(outcome)}).encode()
    if table.on_failure is not None:
        environment = _environment(outcome, summary)
        run_command(table.on_failure, content, environment, table.timeout, log)
    if table.webhook is not None:
        post(table.webhook, content, table.timeout, log, wait=wait)


def _environment(outcome: PassOutcome, summary: Path | None) -> dict[str, str]:
    return {
        "TILEMAP_PASS": outcome.id,
        "TILEMAP_STATUS": outcome.status,
        "TILEMAP_EXIT_CODE": str(outcome.exit_code),
        "TILEMAP_ROOT": outcome.root,
        "TILEMAP_SUMMARY": "" if summary is None else str(summary),
    }


def run_command(
    arguments: Sequence[str],
    content: bytes,
    environment: Mapping[str, str],
    timeout_s: float,
    log: PassLog,
) -> bool:
    """Run a command with a text on its input; no shell has a say in it.

    Args:
        arguments: the program and what it is given.
        content: for its input; it need not read it.
        environment: besides the one of this process.
        timeout_s: after which it is killed, with all it has started.
        log: gets its exit code and the end of its output.

    Returns:
        Whether it ended with 0.
    """
    name = arguments[0]
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        log.event("command_failed", "warning", f"{name} cannot be run: {reason}", command=name)
        return False
    assert process.stdin is not None
    assert process.stdout is not None
    tail = _Tail(process.stdout)
    feeding = threading.Thread(target=_feed, args=(process.stdin, content), daemon=True)
    feeding.start()
    told: dict[str, Any] = {"command": name}
    try:
        code = process.wait(max(timeout_s, _SHORTEST_S))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if process.returncode is None:  # too long, or this process is being stopped
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    feeding.join(1.0)
    told |= {"code": code, "output": tail.text(), "seconds": round(time.monotonic() - began, 3)}
    if code == 0:
        log.event("command", **told)
        return True
    why = f"took more than {timeout_s:g} s" if code is None else f"ended with {code}"
    log.event("command_failed", "warning", f"{name} {why}", **told)
    return False


def _feed(stream: IO[bytes], content: bytes) -> None:
    """Write it, whether it is read or not."""
    with contextlib.suppress(OSError):
        stream.write(content)
    with contextlib.suppress(OSError):
        stream.close()


class _Tail:
    """Reads a stream to its end, and keeps no more than the end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._kept = stream, b""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        with self._stream:
            while part := os.read(self._stream.fileno(), 65536):
                self._kept = (self._kept + part)[-_TAIL:]

    def text(self) -> str:
        """What came last; a child left in the background does not hold us up."""
        self._reading.join(1.0)
        return self._kept.decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of one try: all is well, or why not and whether another may help."""

    error: str | None = None
    again: bool = False


def post(
    url: str,
    content: bytes,
    timeout_s: float,
    log: PassLog,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> bool:
    """Send JSON to a webhook, in three tries; redirects are not followed.

    Only its host is ever logged: path, query and user of a webhook are its secrets.

    Args:
        url: http or https; a user and password in it are sent as basic authentication.
        content: JSON.
        timeout_s: to connect, and to wait for each part of the answer.
        log: of the pass.
        wait: between two tries.

    Returns:
        Whether it was taken.
    """
    from urllib3 import PoolManager
    from urllib3.exceptions import LocationParseError
    from urllib3.util import Timeout, parse_url

    try:
        parts = parse_url(url)
    except LocationParseError:
        parts = parse_url("")
    if parts.scheme not in ("http", "https") or not parts.host:
        text = "the webhook must be an http or https address"
        log.event("webhook_failed", "warning", text)
        return False
    host = parts.host
    limit = Timeout(connect=max(timeout_s, _SHORTEST_S), read=max(timeout_s, _SHORTEST_S))
    answer = _Answer()
    with (
        _without_addresses(),
        PoolManager(timeout=limit, retries=False, cert_reqs="CERT_REQUIRED") as pool,
    ):
        for number in range(1, TRIES + 1):
            answer = _post_once(pool, url, parts.auth, content)
            if answer.error is None:
                log.event("webhook", tries=number, host=host)
                return True
            if not answer.again or number == TRIES:
                break
            log.event("webhook_again", error=answer.error, tries=number, host=host)
            wait(BACKOFF_S * 2 ** (number - 1))
    text = f"webhook at {host}: {answer.error}"
    log.event("webhook_failed", "warning", text, error=answer.error, tries=number, host=host)
    return False


@contextlib.contextmanager
def _without_addresses() -> Iterator[None]:
    """What urllib3 logs of odd headers holds the whole address."""
    logger = logging.getLogger("urllib3.connection")

    def silent(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def _post_once(pool: PoolManager, url: str, auth: str | None, content: bytes) -> _Answer:
    from urllib3 import exceptions
    from urllib3.util import make_headers

    headers = {"Content-Type": "application/json"}
    if auth is not None:
        headers |= make_headers(basic_auth=unquote(auth))
    try:
        response = pool.request(
            "POST", url, body=content, headers=headers, redirect=False, preload_content=False
        )
    except exceptions.SSLError:
        return _Answer("its certificate was not accepted")
    except exceptions.NewConnectionError:
        return _Answer("cannot be reached", again=True)
    except exceptions.TimeoutError:
        return _Answer("did not answer in time", again=True)
    except (exceptions.HTTPError, OSError, ValueError) as error:  # its text may hold the address
        return _Answer(f"the connection failed ({type(error).__name__})", again=True)
    response.close()  # what it says is not read
    return _judged(response)


def _judged(response: BaseHTTPResponse) -> _Answer:
    status = response.status
    if 200 <= status < 300:
        return _Answer()
    told = f"answered {status}"
    if 300 <= status < 400:
        return _Answer(f"{told}; redirects are not followed")
    return _Answer(told, again=status == 429 or status >= 500)
