"""A scheduler that runs already: its address, its certificates, and how long it may be silent."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distributed import Client
from distributed.comm.core import connect
from distributed.security import Security

from tilemap.cluster.settings import ClusterSettings
from tilemap.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from tilemap.cluster.table import TlsFiles

ENCRYPTED = ("tls", "wss")
LIFE = timedelta(days=365)
"""Of a certificate for a run; no run lasts so long."""


def scheme_of(address: str) -> str:
    """Protocol of an address: ``tcp`` where it says none.

    >>> scheme_of("tls://host:8786"), scheme_of("host:8786")
    ('tls', 'tcp')
    """
    return address.partition("://")[0] if "://" in address else "tcp"


def is_loopback(address: str) -> bool:
    """Whether an address leads to this machine alone, so that nobody listens on the way.

    >>> is_loopback("tcp://127.0.0.1:8786"), is_loopback("10.0.0.3:8786")
    (True, False)
    """
    if scheme_of(address) == "inproc":
        return True
    host = urlsplit(address if "://" in address else f"tcp://{address}").hostname
    if not host:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def check_encrypted(address: str, insecure: bool) -> None:
    """Whoever can write to a scheduler can run code on its workers: off loopback it takes TLS.

    Raises:
        ConfigError: if the scheduler lies elsewhere and is reached in the clear.
    """
    if insecure or scheme_of(address) in ENCRYPTED or is_loopback(address):
        return
    host = address.partition("://")[2] or address
    raise ConfigError(
        f"a scheduler that is not on this machine must be reached over TLS, got {address}; give "
        f"tls://{host} and certificates, or a [cluster] table with insecure = true where the "
        "network is yours alone"
    )


def security_of(tls: TlsFiles | None) -> Security | None:
    """Certificates of every role from the table; None leaves them to Dask's configuration.

    Raises:
        ConfigError: if a file is not there.
    """
    if tls is None:
        return None
    for path in (tls.ca, tls.cert, tls.key):
        if not path.is_file():
            raise ConfigError(f"cluster.tls must name files that are there, {path} is not")
    pair = {
        f"tls_{role}_{part}": str(path)
        for role in ("client", "scheduler", "worker")
        for part, path in (("cert", tls.cert), ("key", tls.key))
    }
    return Security(tls_ca_file=str(tls.ca), require_encryption=True, **pair)


def security_for_a_run() -> Security:
    """A key and its certificate for the processes of one run; both are in memory alone.

    Whoever can write to a scheduler or a worker can run code in it, and a port of loopback is open
    to every user of the machine. An elliptic curve's key is made in a millisecond.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tilemap run")])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE)  # clocks of a site differ
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    held = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    roles = ("client", "scheduler", "worker")
    pairs = {f"tls_{role}_cert": held for role in roles}
    pairs |= {f"tls_{role}_key": secret for role in roles}
    return Security(tls_ca_file=held, require_encryption=True, **pairs)


@contextmanager
def reached(
    address: str, settings: ClusterSettings, security: Security | None = None
) -> Iterator[Client]:
    """A client of the scheduler at an address.

    Raises:
        ConfigError: if it is reached in the clear and lies elsewhere.
        UnavailableError: if it does not answer in time, or refuses the certificate.
    """
    table = settings.table
    check_encrypted(address, table is not None and table.insecure)
    if security is None:
        security = security_of(None if table is None else table.tls)
    elif scheme_of(address) not in ENCRYPTED:
        security = None
    limit = settings.timeout_s
    deadline = time.monotonic() + limit
    try:
        _ask(address, security or Security(), limit)
        with warnings.catch_warnings():
            # Dask's own remark about versions; they are compared with more care afterwards.
            warnings.simplefilter("ignore")
            left = max(1.0, deadline - time.monotonic())
            # Three steps each have this long.
            client = Client(address, timeout=left / 3, security=security, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UnavailableError(
            f"a Dask scheduler must answer at {address} within {limit:g} s: "
            f"{_cause(error) or 'it did not'}"
        ) from error
    with client:
        yield client


def _ask(address: str, security: Security, limit_s: float) -> None:
    """See whether a scheduler answers.

    Dask's client waits for ever for one that takes the connection and then says nothing, as one
    does whose process is stopped or whose machine swaps.
    """

    async def ask() -> None:
        arguments = security.get_connection_args("client")
        async with asyncio.timeout(limit_s):
            comm = await connect(address, timeout=limit_s, **arguments)
            try:
                await comm.write({"op": "identity", "n_workers": 0, "reply": True})
                await comm.read()
            finally:
                comm.abort()

    # In a thread of its own: this one may have a loop that runs, as in a notebook.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, ask()).result()


def _cause(error: BaseException) -> str:
    """The innermost reason in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
