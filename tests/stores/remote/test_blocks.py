"""Few requests: ranges merged, small reads in blocks that are kept, what may pass tried again."""

from __future__ import annotations

import dataclasses
import random
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import SceneError, StoreError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.blocks import RemoteFile, RemoteReader, fetch_whole, merge
from tilemap.stores.remote.cache import ByteCache
from tilemap.stores.remote.limits import Limits
from tilemap.stores.remote.retry import wait_before

from .conftest import QUICK
from .server import Fault, RangeServer

SPANS = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 80)).map(lambda p: (p[0], p[0] + p[1])),
    max_size=12,
)
DATA = random.Random(5).randbytes(300_000)


def found(server: RangeServer, limits: Limits = QUICK, path: str = "a.bin") -> RemoteReader:
    """A file of the server, as it was found."""
    return RemoteReader.find(Address.parse(server.url(path)), AllowList((server.host,)), limits)


@pytest.fixture
def served(server: RangeServer) -> RangeServer:
    """A host with one file."""
    server.files["a.bin"] = DATA
    return server


@given(SPANS, st.integers(0, 40), st.integers(1, 100))
def test_merged_ranges_hold_every_byte_and_little_else(ranges: list, gap: int, longest: int):
    """In order, apart, none too long; what is fetched along lies in gaps that are allowed."""
    spans = merge(ranges, gap, longest)
    wanted = {byte for start, stop in ranges for byte in range(start, stop)}
    fetched = [byte for start, stop in spans for byte in range(start, stop)]
    assert wanted <= set(fetched)
    assert len(fetched) == len(set(fetched))
    assert all(0 < stop - start <= longest for start, stop in spans)
    edges = sorted(wanted)
    holes = {b for one, two in pairwise(edges) if two - one - 1 <= gap
             for b in range(one + 1, two)}  # fmt: skip
    assert set(fetched) - wanted <= holes


@given(SPANS, st.integers(0, 40), st.integers(1, 100))
def test_ranges_are_cut_out_of_what_was_merged(ranges: list, gap: int, longest: int):
    """Each range comes back as it lies in the file, however it was fetched."""
    reader = object.__new__(RemoteReader)
    reader._limits, reader._cache = (
        dataclasses.replace(QUICK, gap=gap, longest=longest),
        ByteCache(0),
    )
    reader.file = None  # type: ignore[assignment]
    reader._fetch = lambda spans: [DATA[start:stop] for start, stop in spans]  # type: ignore[method-assign]
    assert reader.read_many(ranges) == [DATA[start:stop] for start, stop in ranges]


def test_small_reads_share_blocks(served: RangeServer):
    """A header read in fifty pieces is one request; the file's end is cut."""
    reader = found(served)
    for start in range(0, 60_000, 1200):
        assert reader.read(start, start + 1200) == DATA[start : start + 1200]
    assert len(served.log) == 1
    assert reader.read(299_990, 400_000) == DATA[299_990:]
    assert reader.read(299_000, 299_100) == DATA[299_000:299_100]
    assert reader.read(400_000, 500_000) == b""
    assert len(served.log) == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), max_size=60))
def test_what_is_kept_is_bounded(puts: list[tuple[int, int]]):
    """Never more than allowed; what is there is what was put last; the last small one is there."""
    cache, last = ByteCache(100), {}
    for key, length in puts:
        last[key] = bytes([key]) * length
        cache.put(key, last[key])
        assert cache.held <= 100
        if length <= 25:
            assert cache.get(key) == last[key]
    kept = {key: cache.get(key) for key in range(10)}
    assert cache.held == sum(len(value) for value in kept.values() if value is not None)
    cache.clear()
    assert (cache.held, cache.get(0)) == (0, None)


def test_what_was_used_last_stays():
    """The one used longest ago goes first."""
    cache = ByteCache(100)
    for key in range(4):
        cache.put(key, bytes(25))
    cache.get(0)
    cache.put(4, bytes(25))
    assert [cache.get(key) is not None for key in range(5)] == [True, False, True, True, True]


def test_threads_share_what_was_fetched(served: RangeServer):
    """A second reader of the same file asks for nothing again, one of a newer file does."""
    one = found(served)
    one.read_many([(100_000, 101_000)])
    asked = len(served.log)
    assert RemoteReader(one.file, QUICK).read_many([(100_000, 101_000)]) == [DATA[100_000:101_000]]
    assert len(served.log) == asked
    served.files["a.bin"] = DATA[::-1]
    assert found(served).read_many([(100_000, 101_000)]) == [DATA[::-1][100_000:101_000]]


def test_requests_go_out_together_and_are_limited(served: RangeServer):
    """Ranges far apart are asked for at the same time, never more than is allowed."""
    served.always["a.bin"] = Fault(wait_s=0.05)
    limits = dataclasses.replace(QUICK, gap=0, together=3)
    ranges = [(start, start + 100) for start in range(0, 200_000, 20_000)]
    assert found(served, limits).read_many(ranges) == [DATA[a:b] for a, b in ranges]
    assert len(served.log) == 1 + len(ranges)
    assert 1 < served.busiest <= 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(503), Fault(500), Fault(429, {"Retry-After": "0"}), Fault(cut=100), Fault(cut=0),
        Fault(429, {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}),
    ],
    ids=["503", "500", "429", "short", "broken", "date"],
)  # fmt: skip
def test_what_passes_is_survived(served: RangeServer, fault: Fault):
    """Two failures in a row, at the first request and at a later one."""
    served.faults.extend([fault, fault])
    reader = found(served)
    served.faults.extend([fault, fault])
    assert reader.read_many([(100_000, 200_000)]) == [DATA[100_000:200_000]]
    assert len(served.log) == 6


def test_attempts_are_counted(served: RangeServer):
    """A host that stays down is left alone after a few attempts."""
    served.always["a.bin"] = Fault(503)
    with pytest.raises(StoreError, match=r"cannot read http://.*answers 503, 5 times"):
        found(served)
    assert len(served.log) == QUICK.attempts


def test_a_host_that_says_nothing(served: RangeServer):
    """Silence ends an attempt."""
    served.always["a.bin"] = Fault(wait_s=0.6)
    limits = dataclasses.replace(QUICK, silence_s=0.1, attempts=2)
    with pytest.raises(StoreError, match="timed out"):
        found(served, limits)


def test_a_host_that_drips(served: RangeServer):
    """However slowly bytes come, an attempt ends."""
    limits = dataclasses.replace(QUICK, request_s=-1.0, attempts=2)
    with pytest.raises(StoreError, match="bytes came in"):
        found(served, limits)


def test_nobody_there():
    """A port that nobody listens on."""
    with RangeServer() as gone:
        url, host = gone.url("a.bin"), gone.host
    with pytest.raises(StoreError, match=r"cannot read http://.*refused"):
        RemoteReader.find(Address.parse(url), AllowList((host,)), QUICK)


@pytest.mark.parametrize(
    ("after", "attempt", "low", "high"),
    [(None, 1, 0.125, 0.25), (None, 3, 0.5, 1.0), (5.0, 1, 5.0, 5.0), (86400.0, 1, 30.0, 30.0),
     (None, 60, 30.0, 30.0)],
)  # fmt: skip
def test_waits_grow_and_are_bounded(after: float | None, attempt: int, low: float, high: float):
    """Doubled each time, partly at random, as long as the server asks, never without end."""
    assert wait_before(attempt, after, Limits(), 1.0) == pytest.approx(low)
    assert wait_before(attempt, after, Limits(), 0.0) == pytest.approx(high)


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (Fault(404), SceneError, "no such file"),
        (Fault(403), SceneError, "refuses"),
        (Fault(418), SceneError, "answers 418"),
        (Fault(whole=True), SceneError, "does not send parts of files"),
        (Fault(headers={"Content-Range": "bytes 0-65535/*"}), SceneError, "how long the file is"),
        (Fault(headers={"Content-Encoding": "gzip"}), SceneError, "gzip-encoded"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(
    served: RangeServer, fault: Fault, error: type[Exception], text: str
):
    """One request, one error that says why; a file is never fetched whole."""
    served.faults.append(fault)
    with pytest.raises(error, match=text):
        found(served)
    assert len(served.log) == 1
    assert served.files["a.bin"] == DATA


def test_a_whole_file_is_not_read_to_its_end(server: RangeServer):
    """A host without ranges has sent little when the connection is closed."""
    server.files["a.bin"] = bytes(50_000_000)
    server.always["a.bin"] = Fault(whole=True)
    with pytest.raises(SceneError, match="does not send parts"):
        found(server)
    server._server.shutdown()
    assert server.bytes < 20_000_000


def test_an_empty_file(server: RangeServer):
    """Nothing to read is said so."""
    server.files["a.bin"] = b""
    with pytest.raises(StoreError, match="is empty"):
        found(server)


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changes_is_an_error(served: RangeServer, etags: bool):
    """Parts of two files do not belong together: told by its ETag, or its size at least."""
    served.etags = etags
    reader = found(served)
    served.files["a.bin"] = DATA[::-1] if etags else DATA + b"more"
    with pytest.raises(StoreError, match="has changed since the run was planned"):
        reader.read_many([(100_000, 100_100)])
    with pytest.raises(StoreError, match="has changed"):  # a worker that opens it anew
        RemoteReader(reader.file, QUICK).read(200_000, 200_008)


def test_redirects_are_followed_where_allowed(served: RangeServer):
    """Once: later requests go where it led; where that has run out, the way is asked for again."""
    allow = AllowList((served.host,))
    served.always["b.bin"] = Fault(302, {"Location": "/a.bin?sig=1"})
    reader = RemoteReader.find(Address.parse(served.url("b.bin")), allow, QUICK)
    reader.read_many([(100_000, 100_010)])
    assert [asked.path for asked in served.log] == ["/b.bin", "/a.bin?sig=1", "/a.bin?sig=1"]
    served.faults.append(Fault(403))
    served.always["b.bin"] = Fault(302, {"Location": "/a.bin?sig=2"})
    assert reader.read_many([(200_000, 200_010)]) == [DATA[200_000:200_010]]
    assert [a.path for a in served.log[3:]] == ["/a.bin?sig=1", "/b.bin", "/a.bin?sig=2"]


def test_redirects_to_hosts_that_are_not_listed(served: RangeServer):
    """The other host hears nothing; the error names it, and nothing of the signature."""
    with RangeServer() as other:
        other.files["a.bin"] = DATA
        served.always["a.bin"] = Fault(307, {"Location": other.url("a.bin?sig=hunter2")})
        with pytest.raises(SceneError, match=f"redirects to {other.host}.*allow_hosts") as caught:
            found(served)
        assert "hunter2" not in str(caught.value)
        assert other.log == []
        both = AllowList((served.host, other.host))
        reader = RemoteReader.find(Address.parse(served.url("a.bin")), both, QUICK)
        assert reader.read(0, 8) == DATA[:8]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "s3://bucket-one/a", "http://169.254.169.254/latest", "a.bin"]
)
def test_redirects_to_anything_else(served: RangeServer, target: str):
    """To files, buckets, the addresses where clouds keep credentials, and round in circles."""
    served.always["a.bin"] = Fault(301, {"Location": target})
    with pytest.raises(SceneError, match=r"redirects|address must begin"):
        found(served)
    assert len(served.log) <= QUICK.redirects + 1


def test_nothing_is_asked_of_a_host_that_is_not_listed(served: RangeServer):
    """Not even a connection."""
    with pytest.raises(SceneError, match=f"list {served.host} in `allow_hosts`"):
        RemoteReader.find(Address.parse(served.url("a.bin")), AllowList(), QUICK)
    file = RemoteFile(Address.parse(served.url("a.bin")), AllowList(), found(served).file.state)
    asked = len(served.log)
    with pytest.raises(SceneError, match="allow_hosts"):
        RemoteReader(file, QUICK)
    assert len(served.log) == asked


def test_names_that_lead_to_this_machine(served: RangeServer, monkeypatch: pytest.MonkeyPatch):
    """A listed name that leads here is refused before anything is sent, unless here is listed."""
    port = served.host.rpartition(":")[2]
    name = f"rebound.example.org:{port}"
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo",
        lambda host, *rest: real("127.0.0.1" if host == "rebound.example.org" else host, *rest),
    )  # fmt: skip
    address = Address.parse(f"http://{name}/a.bin")
    with pytest.raises(SceneError, match=r"leads to 127\.0\.0\.1, which is not a public address"):
        RemoteReader.find(address, AllowList((name,)), QUICK)
    assert served.log == []
    for here in ("127.0.0.1", f"127.0.0.1:{port}", "127.0.0.0/8"):
        reader = RemoteReader.find(address, AllowList((name, here)), QUICK)
        assert reader.read(0, 8) == DATA[:8]
    asked = len(served.log)
    with pytest.raises(SceneError, match="leads to"):  # no connection of another list is used
        RemoteReader.find(address, AllowList((name, "127.0.0.1:1")), QUICK)
    assert len(served.log) == asked


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "host.pem"
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
    return path


def test_certificates_are_verified(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    """A host that nobody vouches for is refused at once; one that is trusted is not."""
    with RangeServer(certificate) as server:
        server.files["a.bin"] = DATA
        with pytest.raises(SceneError, match=r"is not who it says: .*self-signed certificate"):
            found(server)
        assert server.log == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        monkeypatch.setattr("tilemap.stores.remote.pool._pools", {})
        assert found(server).read(0, 8) == DATA[:8]
        server.always["a.bin"] = Fault(302, {"Location": f"http://{server.host}/a.bin"})
        with pytest.raises(SceneError, match="without encryption"):
            found(server)


def test_whole_small_files(served: RangeServer):
    """An item is fetched whole, after a failure too, and never more than is allowed."""
    address, allow = Address.parse(served.url("a.bin")), AllowList((served.host,))
    served.faults.append(Fault(cut=10))
    assert fetch_whole(address, allow, 300_000, QUICK) == DATA
    with pytest.raises(SceneError, match="at most 299999 bytes"):
        fetch_whole(address, allow, 299_999, QUICK)


def test_connections_are_kept(served: RangeServer):
    """Failures do not use up the connections of the process: they are given back."""
    limits = dataclasses.replace(QUICK, attempts=1)
    for _ in range(12):
        for fault in (Fault(503), Fault(404), Fault(302, {"Location": "/a.bin"}), Fault(cut=5)):
            served.faults.append(fault)
            try:
                found(served, limits)
            except (SceneError, StoreError):
                continue
    assert found(served).read(0, 4) == DATA[:4]
