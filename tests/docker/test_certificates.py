"""Certificates: who signs, for how long, and what happens when they are asked for again."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

SCRIPT = Path(__file__).parents[2] / "docker" / "certificates.py"
ROLES = ("scheduler", "worker", "client")


@pytest.fixture(scope="module")
def script(load_script: Any) -> Any:
    """docker/certificates.py as a module."""
    return load_script(SCRIPT)


def files(folder: Path) -> dict[str, bytes]:
    """Every file by its place."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ensure(script: Any, folder: Path, days: int = 90) -> list[str]:
    """Certificates of all roles."""
    return list(script.ensure(folder, ROLES, days, ["localhost", "127.0.0.1"]))


def certificate(path: Path) -> x509.Certificate:
    """One that was written."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_same_again_changes_nothing(script: Any, tmp_path: Path) -> None:
    """Four things are made, once; each is what a strict verifier takes."""
    assert len(ensure(script, tmp_path)) == 4
    before = files(tmp_path)
    assert set(before) == {"ca/ca.pem", "ca/key.pem"} | {
        f"{role}/{name}.pem" for role in ROLES for name in ("ca", "cert", "key")
    }
    assert ensure(script, tmp_path) == []
    assert files(tmp_path) == before
    for role in ROLES:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        folder = tmp_path / role
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")  # the key is its own
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_purposes(script: Any, tmp_path: Path) -> None:
    """A client's certificate does not make a scheduler; nobody's makes certificates."""
    ensure(script, tmp_path)
    server = x509.ExtendedKeyUsageOID.SERVER_AUTH
    for role in ROLES:
        extensions = certificate(tmp_path / role / "cert.pem").extensions
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (server in purposes) == (role != "client")
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(("left", "renewed"), [(59, True), (61, False)])
def test_renewed_in_the_last_third(script: Any, tmp_path: Path, left: int, renewed: bool) -> None:
    """Of 180 days: with 59 left a new one of the same authority comes, with 61 it does not."""
    authority_of = tmp_path / "ca"
    ensure(script, tmp_path)
    now = datetime.now(UTC)
    life = (now - timedelta(days=180 - left), now + timedelta(days=left))
    authority = script._authority(authority_of)
    script._make(tmp_path / "worker", "worker", authority, life, ["localhost"])
    before = files(tmp_path)
    lines = ensure(script, tmp_path)
    assert [line.split(",")[0] for line in lines] == ["made a certificate for worker"] * renewed
    after = files(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == ({"worker/cert.pem", "worker/key.pem"} if renewed else set())


@pytest.mark.parametrize("harm", ["cut", "gone", "strange", "swapped"])
def test_what_is_damaged_is_made_anew(script: Any, tmp_path: Path, harm: str) -> None:
    """A file that is cut short or missing, of another authority, or the key of another role."""
    ensure(script, tmp_path)
    path = tmp_path / "client" / "cert.pem"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif harm == "gone":
        path.unlink()
    elif harm == "strange":
        ensure(script, tmp_path / "other")
        path.write_bytes((tmp_path / "other" / "client" / "cert.pem").read_bytes())
    else:
        (tmp_path / "client" / "key.pem").write_bytes(
            (tmp_path / "worker" / "key.pem").read_bytes()
        )
    assert len(ensure(script, tmp_path)) == 1
    assert ensure(script, tmp_path) == []


def test_an_authority_that_ends_too_soon(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error that says which, and the certificates that are there stay."""
    monkeypatch.setattr(script, "AUTHORITY_DAYS", 100)
    ensure(script, tmp_path, days=90)
    before = files(tmp_path)
    (tmp_path / "worker" / "cert.pem").unlink()
    with pytest.raises(ValueError, match=r"the authority in .*ca ends on .*; remove it"):
        ensure(script, tmp_path, days=365)
    del before["worker/cert.pem"]
    assert files(tmp_path) == before


def test_secrets_of_kubernetes(tmp_path: Path, pods: dict[str, Any]) -> None:
    """One for each role, each with the keys that the pods mount and no more."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; it is no package of ours")
    ran = subprocess.run(
        [SCRIPT.parent / "k8s" / "secrets.sh", tmp_path],
        env={**os.environ, "DRY_RUN": "1", "PYTHON": sys.executable},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    made = {s["metadata"]["name"]: s for s in yaml.safe_load_all(ran.stdout) if s}
    assert set(made) == {f"tilemap-tls-{role}" for role in ROLES}
    mounted = [v["secret"] for spec in pods.values() for v in spec["volumes"] if "secret" in v]
    for secret in mounted:
        data = made[secret["secretName"]]["data"]
        assert {item["key"] for item in secret["items"]} == set(data)
        for item in secret["items"]:
            file = tmp_path / secret["secretName"].removeprefix("tilemap-tls-") / item["path"]
            assert base64.b64decode(data[item["key"]]) == file.read_bytes()


def test_an_error_is_one_line(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; usage is 2."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["tilemap-certificates", str(tmp_path / "file")])
    assert script.main() == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    monkeypatch.setattr(sys, "argv", ["tilemap-certificates", str(tmp_path), "--days", "0"])
    with pytest.raises(SystemExit, match="2"):
        script.main()
