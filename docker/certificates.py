"""Make a certificate authority, and a certificate and key for each role of a Dask cluster.

    tilemap-certificates DIR [--role scheduler worker client] [--days 90]

`DIR/ca` has the authority; `DIR/ROLE` has `ca.pem`, `cert.pem` and `key.pem`, readable by the
owner alone, for that role to see and no other. The same command again changes nothing until a
third of a certificate's life is left; then it makes a new one of the same authority. Whoever
restarts the roles in that time never sees one expire. An authority that will not outlive the
certificates to be made is an error: a new one has to reach every role at once, so remove
`DIR/ca` on a night without a run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES = ("scheduler", "worker", "client")
AUTHORITY_DAYS = 3650
_SKEW = timedelta(hours=1)  # clocks of a cluster differ


class Authority(NamedTuple):
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def main() -> int:
    """Make what is missing or will soon expire; say what was made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--role", nargs="+", default=list(ROLES), choices=ROLES)
    parser.add_argument("--days", type=int, default=90, help="life of a role's certificate")
    parser.add_argument("--host", nargs="*", default=["scheduler", "localhost", "127.0.0.1"])
    given = parser.parse_args()
    if not 1 <= given.days <= AUTHORITY_DAYS:
        parser.error(f"--days must lie between 1 and {AUTHORITY_DAYS}, got {given.days}")
    try:
        for line in ensure(given.folder, given.role, given.days, given.host):
            print(line)  # noqa: T201
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def ensure(folder: Path, roles: Iterable[str], days: int, hosts: Iterable[str]) -> Iterable[str]:
    """Make what is missing or will soon expire.

    Args:
        folder: of the authority and the roles.
        roles: such as ``scheduler``.
        days: life of a role's certificate.
        hosts: names and addresses that the certificates hold for.

    Yields:
        What was made, one line each.

    Raises:
        ValueError: if the authority would expire before what it signs.
    """
    now = datetime.now(UTC)
    if not (folder / "ca" / "ca.pem").exists():
        _make_authority(folder / "ca", now)
        yield f"made the authority in {folder / 'ca'}"
    authority = _authority(folder / "ca")
    until = now + timedelta(days=days)
    ends = authority.certificate.not_valid_after_utc
    for role in roles:
        if _lasts(folder / role, authority, now):
            continue
        if ends < until:
            raise ValueError(f"the authority in {folder / 'ca'} ends on {ends:%Y-%m-%d}; remove it")
        _make(folder / role, role, authority, (now, until), hosts)
        yield f"made a certificate for {role}, until {until:%Y-%m-%d}"


def _lasts(folder: Path, authority: Authority, now: datetime) -> bool:
    """Whether a role has a certificate of this authority with a third of its life left."""
    try:
        held = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        held.verify_directly_issued_by(authority.certificate)
        key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    except Exception:  # missing, cut short, of another authority: all are made anew
        return False
    life = held.not_valid_after_utc - held.not_valid_before_utc
    return key.public_key() == held.public_key() and held.not_valid_after_utc - now > life / 3


def _authority(folder: Path) -> Authority:
    certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"the key in {folder} must be of an elliptic curve")
    return Authority(certificate, key)


def _make_authority(folder: Path, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("authority")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(name, name, key, (now, now + timedelta(days=AUTHORITY_DAYS)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _private(folder)
    _write(folder / "key.pem", _pem_key(key))
    _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _make(
    folder: Path,
    role: str,
    authority: Authority,
    life: tuple[datetime, datetime],
    hosts: Iterable[str],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role != "client":  # scheduler and workers also listen
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    issuer = authority.certificate.subject
    certificate = (
        _builder(_name(role), issuer, key, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_issuer(authority.key), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    _private(folder)
    _write(folder / "key.pem", _pem_key(key))
    _write(folder / "ca.pem", authority.certificate.public_bytes(serialization.Encoding.PEM))
    _write(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    life: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0] - _SKEW)
        .not_valid_after(life[1])
    )


def _issuer(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tilemap {text}")])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    part = path.with_name(f".{path.name}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
