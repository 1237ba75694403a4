"""Whether the Dask scheduler or worker of this container is well; exit code 0 or 1.

    tilemap-health scheduler     its port answers over TLS with a certificate of our CA
    tilemap-health worker        so does the worker's, and it is connected to a scheduler
    tilemap-health               a job that ends by itself: its exit code is what tells

The handshake is done by the event loop, so a process that hangs fails it. Certificates are those
that Dask itself uses, from DASK_DISTRIBUTED__COMM__TLS__... in the environment. The standard
library alone: importing Dask twice a minute would take a core's percent from the model.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from pathlib import Path

SCHEDULER_PORT, WORKER_PORT = 8786, 8788
TIMEOUT_S = 5
_ESTABLISHED = "01"  # state of a socket in /proc/net/tcp


def main() -> int:
    """Check the role given; say what is wrong in one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("role", nargs="?", choices=["scheduler", "worker"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="where this role listens")
    parser.add_argument("--scheduler-port", type=int, default=SCHEDULER_PORT)
    given = parser.parse_args()
    try:
        if given.role == "scheduler":
            handshake("SCHEDULER", given.host, given.port or given.scheduler_port)
        elif given.role == "worker":
            handshake("WORKER", given.host, given.port or WORKER_PORT)
            if not connected(given.scheduler_port):
                raise OSError(f"no connection to a scheduler at port {given.scheduler_port}")
    except (OSError, KeyError) as error:
        print(f"{given.role} is not well: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def handshake(role: str, host: str, port: int) -> None:
    """Shake hands with a port of this container, both sides showing certificates.

    Raises:
        OSError: if it does not answer in time, or with a certificate of another CA.
        KeyError: if the environment does not say where the certificates are.
    """
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    context = ssl.create_default_context(cafile=os.environ[f"{prefix}CA_FILE"])
    context.check_hostname = False  # Dask's certificates are for roles, not for hosts
    context.load_cert_chain(os.environ[f"{prefix}{role}__CERT"], os.environ[f"{prefix}{role}__KEY"])
    with (
        socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain),
    ):
        pass


def connected(port: int) -> bool:
    """Whether a process of this network namespace has a connection to that remote port."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for t in tables if t.exists() for line in t.read_text().splitlines()[1:]]
    return any(
        state == _ESTABLISHED and int(remote.rpartition(":")[2], 16) == port
        for _, _, remote, state, *_ in rows
    )


if __name__ == "__main__":
    sys.exit(main())
