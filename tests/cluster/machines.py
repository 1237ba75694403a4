"""Schedulers and workers as processes of their own, with certificates that a test makes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_S = 60
"""Within which a process must be there; a machine may be busy."""


class Authority:
    """Signs certificates; its own is ``ca.pem`` in its folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        limits = x509.BasicConstraints(ca=True, path_length=0)
        certificate = self._built(self._name, self._key.public_key(), limits)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _built(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, limits: x509.BasicConstraints
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(limits, critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, role: str) -> dict[str, str]:
        """Certificate and key of one role: the ``tls`` of a ``[cluster]`` table."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
        limits = x509.BasicConstraints(ca=False, path_length=None)
        cert_file, key_file = self.folder / f"{role}.pem", self.folder / f"{role}-key.pem"
        certificate = self._built(name, key.public_key(), limits)
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        key_file.write_bytes(secret)
        return {"ca": str(self.ca), "cert": str(cert_file), "key": str(key_file)}


class Machines:
    """Processes of one cluster; all of them end with it.

    Args:
        folder: of their logs.
        authority: of their certificates; None for a cluster in the clear.
        environment: of all of them, over that of this process.
    """

    def __init__(
        self,
        folder: Path,
        authority: Authority | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._folder, self._authority = folder, authority
        # An embedded cluster of this process may have left word that logs are not wanted.
        told = {"DASK_LOGGING__DISTRIBUTED": "info"}
        self._environment = {**os.environ, **told, **(environment or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""

    def _start(self, name: str, role: str, arguments: Sequence[str], says: str) -> str:
        """Start one process; what its log says when it is there."""
        protocol, tls = "tcp", []
        if self._authority is not None:
            own = self._authority.issue(name)
            protocol = "tls"
            tls = ["--tls-ca-file", own["ca"], "--tls-cert", own["cert"], "--tls-key", own["key"]]
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            self._processes[name] = subprocess.Popen(
                [
                    sys.executable, "-m", f"distributed.cli.dask_{role}", "--host", "127.0.0.1",
                    "--protocol", protocol, "--no-dashboard", *tls, *arguments,
                ],
                stdout=out, stderr=subprocess.STDOUT, env=self._environment, cwd=self._folder,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if found := re.search(says, log.read_text()):
                return found.group(1)
            if self._processes[name].poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{name} did not start: {log.read_text()[-2000:]}")

    def scheduler(self) -> str:
        """Start the scheduler; its address."""
        self.address = self._start("scheduler", "scheduler", ["--port", "0"], r"at:\s+(\S+:\d+)")
        return self.address

    def worker(self, name: str, resources: str = "", threads: int = 2, nanny: bool = False) -> str:
        """Start a worker; its address, at once: it may not have joined yet."""
        more = ["--resources", resources] if resources else []
        more += [] if nanny else ["--no-nanny"]
        return self._start(
            name, "worker",
            [self.address, "--name", name, "--nthreads", str(threads), *more],
            r"Start worker at:\s+(\S+:\d+)",
        )  # fmt: skip

    def process(self, name: str) -> int:
        """Number of a process."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """Without a word to anybody."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def ends(self, name: str) -> int:
        """Wait until a process ends of itself; its exit code."""
        return self._processes.pop(name).wait(timeout=START_S)

    def end(self) -> None:
        """All of them."""
        for name in [*self._processes]:
            self.kill(name)
