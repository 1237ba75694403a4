"""Addresses of what is not on this disk, and which of them may be asked.

Nothing is asked of a host that the user has not named: an address may come from a STAC item, a
redirect or a configuration that somebody else wrote.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from tilemap.errors import SceneError, TilemapError, UsageError

PORTS = {"http": 80, "https": 443}
SCHEMES = (*PORTS, "s3")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ODD = re.compile(r"[\x00-\x20\x7f-\uffff\\]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_LONGEST = 8192
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# metadata services of clouds that Python takes for public, and local translation to IPv4
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10")
]
# IPv6 networks whose last 32 bits are an IPv4 address: NAT64 and the old form of mapped ones
_CARRIERS = [ipaddress.ip_network(text) for text in ("64:ff9b::/96", "::/96")]


def is_address(text: str) -> bool:
    """Whether a text means something that is not a local path."""
    return _SCHEME.match(text) is not None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a remote file, or a folder of them, lies.

    Args:
        scheme: http, https or s3.
        host: lower case; of s3 the bucket.
        port: where it is asked; 0 for s3.
        path: as it is sent, from the first slash on; of s3 the key, without a slash in front.
        query: of http and https; may hold a signature, so it is never shown.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, error: type[TilemapError] = SceneError) -> Address:
        """The parts of an address, read by the very parser that will connect.

        Raises:
            error: for another scheme, credentials in the address, or one that cannot be read
                in one way only.
        """
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        if not is_address(text) or text.partition("://")[0].lower() not in SCHEMES:
            raise error(f"an address must begin with {known}, got {_plain(text)!r}")
        if len(text) > _LONGEST or _ODD.search(text):
            raise error(f"an address must be plain ASCII without spaces, got {_plain(text)!r}")
        if text[:5].lower() == "s3://":
            return cls._of_s3(text, error)
        try:
            parts = parse_url(text)
        except LocationParseError as problem:
            raise error(f"not an address: {_plain(text)!r}") from problem
        scheme, host = str(parts.scheme), (parts.host or "").lower().rstrip(".")
        if parts.auth is not None or "@" in (parts.netloc or ""):
            raise error(
                f"an address must not hold a user or a password: {scheme}://...@{host}; give a "
                "presigned address instead"
            )
        if not _HOST.fullmatch(host) or host.startswith("*"):
            raise error(f"an address must name a host, got {_plain(text)!r}")
        port = parts.port or PORTS[scheme]
        return cls(scheme, host, port, parts.path or "/", parts.query or "")

    @classmethod
    def _of_s3(cls, text: str, error: type[TilemapError]) -> Address:
        bucket, _, key = text[5:].partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise error(f"s3:// must be followed by a bucket, got {_plain(text)!r}")
        key = key.rstrip("/")
        if "?" in key or "#" in key or any(part in ("", ".", "..") for part in key.split("/")[:-1]):
            raise error(f"an S3 key must be plain names with slashes between, got {_plain(text)!r}")
        return cls("s3", bucket, 0, key)

    @property
    def site(self) -> str:
        """What the allow-list must name: ``host``, ``host:port`` or ``s3://bucket``."""
        if self.scheme == "s3":
            return f"s3://{self.host}"
        return self.host if self.port == PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address, secrets included."""
        slash = "/" if self.scheme == "s3" and self.path else ""
        query = f"?{self.query}" if self.query else ""
        root = self.site if self.scheme == "s3" else f"{self.scheme}://{self.site}"
        return f"{root}{slash}{self.path}{query}"

    @property
    def shown(self) -> str:
        """For messages and as a key: a query is shortened to what tells it from others."""
        if not self.query:
            return self.url
        digest = hashlib.sha256(self.query.encode()).hexdigest()[:8]
        return f"{self.url.partition('?')[0]}?[{digest}]"

    @property
    def name(self) -> str:
        """Last part of the path, as a file would be called."""
        return unquote(self.path.rstrip("/").rpartition("/")[2])

    def join(self, reference: str) -> Address:
        """Where a reference leads that stands in the file at this address.

        Raises:
            SceneError: if it is no address.
        """
        if is_address(reference):
            return Address.parse(reference)
        if self.scheme != "s3":
            return Address.parse(urljoin(self.url.partition("?")[0], reference))
        joined = urljoin(f"http://bucket/{self.path}", reference)
        if not joined.startswith("http://bucket/"):
            raise SceneError(f"not a reference inside {self.site}: {_plain(reference)!r}")
        return Address.parse(f"{self.site}/{joined.removeprefix('http://bucket/')}")

    def below(self, name: str) -> Address:
        """An S3 key below this one."""
        path = f"{self.path}/{name}" if self.path else name
        return Address(self.scheme, self.host, self.port, path)


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts and buckets that may be asked.

    Args:
        entries: ``example.org`` (at the usual ports), ``example.org:8080``, ``*.example.org``
            (every host below it, not itself), ``s3://bucket``, ``10.0.0.0/8`` (a network that
            listed names may lead to).

    Raises:
        UsageError: if an entry is none of these.
    """

    entries: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.entries:
            self._check_entry(entry)

    @classmethod
    def of(cls, entries: Sequence[str]) -> AllowList:
        """From what a user gave."""
        return cls(tuple(dict.fromkeys(entry.lower().rstrip("/") for entry in entries)))

    @staticmethod
    def _check_entry(entry: str) -> None:
        if entry.startswith("s3://"):
            good = _BUCKET.fullmatch(entry[5:]) is not None
        elif "/" in entry:
            good = _network(entry) is not None
        else:
            host, port = _split(entry)
            good = _HOST.fullmatch(host) is not None and (port is None or port.isdigit())
            good = good and (not host.startswith("*.") or "." in host[2:])
        if not good:
            raise UsageError(
                "`allow_hosts` takes a host, host:port, *.domain.org, s3://bucket or a network "
                "such as 10.0.0.0/8, got "
                f"{_plain(entry)!r}"
            )

    def allows(self, address: Address) -> bool:
        """Whether an address may be asked."""
        return any(self._matches(entry, address) for entry in self.entries)

    @staticmethod
    def _matches(entry: str, address: Address) -> bool:
        if address.scheme == "s3" or entry.startswith("s3://"):
            return entry == address.site
        if "/" in entry:
            return False
        host, port = _split(entry)
        if address.port != (PORTS[address.scheme] if port is None else int(port)):
            return False
        if host.startswith("*."):
            below = address.host.endswith(host[1:]) and len(address.host) > len(host[1:])
            return below and read_ip(address.host) is None
        return address.host == host

    def check_peer(
        self, host: str, peer: str, port: int, error: type[TilemapError] = SceneError
    ) -> None:
        """Refuse to talk to a machine that is not public, unless its own address is listed.

        A listed name leads where its owner, or whoever answers for it, wants: to the metadata
        service of a cloud, to a machine behind a firewall, to this one.

        Args:
            host: the listed name.
            peer: the IP address that it led to.
            port: the same.

        Raises:
            error: if the address is not listed.
        """
        found = read_ip(peer)
        if found is not None and (is_public(found) or self._names(found, port)):
            return
        if found is not None and found.is_loopback and host == "localhost":
            return
        raise error(
            f"{host} leads to {peer}, which is not a public address; list that address among the "
            "allowed hosts too if it is to be trusted"
        )

    def _names(self, found: IpAddress, port: int) -> bool:
        for entry in self.entries:
            if "/" in entry:
                network = _network(entry)
                if network is not None and found in network:
                    return True
                continue
            host, own_port = _split(entry)
            if read_ip(host) == found and own_port in (None, str(port)):
                return True
        return False

    def check(self, address: Address, error: type[TilemapError] = SceneError) -> None:
        """Refuse an address that is not listed; nothing has been asked of it.

        Raises:
            error: naming the host and the option.
        """
        if not self.allows(address):
            raise error(
                f"{address.site} is not among the hosts that may be asked, so {address.shown} is "
                f"not read; list {address.site} in `allow_hosts` if it is to be trusted"
            )


NOBODY = AllowList()
"""No host at all."""


def read_ip(text: str) -> IpAddress | None:
    """The IP address of a text, without zone; IPv4 where IPv6 only wraps it; None for a name."""
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_public(found: IpAddress) -> bool:
    """Return True if an address belongs to a machine of the public Internet.

    An IPv6 address that carries an IPv4 address is judged by both.
    """
    if not found.is_global or found.is_multicast or any(found in net for net in _PRIVATE):
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return True
    inner = found.sixtofour
    if any(found in net for net in _CARRIERS):
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return inner is None or is_public(inner)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.replace("[", "").replace("]", ""))
    except ValueError:
        return None


def _split(entry: str) -> tuple[str, str | None]:
    """Host and port; the colons of an IPv6 address stand in brackets."""
    host, colon, port = entry.rpartition(":")
    if not colon or "]" in port:
        return entry, None
    return host, port


def _plain(text: str) -> str:
    """A text for a message: without what may be a secret, and short."""
    head = re.sub(r"//[^/@]*@", "//...@", text.partition("?")[0])
    return head if len(head) <= 120 else head[:117] + "..."
