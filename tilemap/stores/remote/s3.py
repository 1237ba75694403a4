"""Objects on S3 and what speaks like it, through obstore."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tilemap.errors import SceneError, TilemapError, UnavailableError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.http import HttpRanges
from tilemap.stores.remote.limits import LIMITS, Limits
from tilemap.stores.remote.ranges import State

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Store

SIGNED = timedelta(hours=1)
"""How long a signed address is good for."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def load_obstore() -> ModuleType:
    """The package.

    Raises:
        UnavailableError: naming the extra that has it.
    """
    try:
        import obstore
    except ImportError as problem:
        raise UnavailableError(
            'addresses on s3:// need obstore: pip install "tilemap[s3]"'
        ) from problem
    return obstore


def endpoint() -> str | None:
    """Where requests go instead of Amazon, from the usual variables; None if nowhere else."""
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


def check_endpoint(allow: AllowList, error: type[TilemapError] = SceneError) -> None:
    """Refuse an endpoint that is not listed: it sees what is asked and answers it.

    obstore connects by itself, so the addresses that its name leads to now are held against the
    list here.

    Raises:
        error: if the endpoint, or an address that it leads to, may not be asked.
    """
    own = endpoint()
    if own is None:
        return
    at = Address.parse(own, error)
    allow.check(at, error)
    with contextlib.suppress(OSError):  # a name that leads nowhere fails when it is used
        for *_, found in socket.getaddrinfo(at.host.strip("[]"), at.port, type=socket.SOCK_STREAM):
            allow.check_peer(at.host, str(found[0]), at.port, error)


def open_bucket(
    address: Address,
    allow: AllowList,
    error: type[TilemapError] = SceneError,
    limits: Limits = LIMITS,
    prefix: str | None = None,
) -> S3Store:
    """The bucket of an address, with endpoint, region and credentials of the ``AWS_`` variables.

    Args:
        address: of any object in it.
        allow: what may be asked.
        error: for what may not.
        prefix: what every key begins with, where it is the folder alone that is opened.

    Raises:
        error: if bucket or endpoint are not listed.
        UnavailableError: if obstore is missing.
    """
    allow.check(address, error)
    check_endpoint(allow, error)
    obstore = load_obstore()
    from obstore.store import S3Store

    own = endpoint()
    config: dict[str, Any] = {} if own is None else {"endpoint": own.rstrip("/")}
    plain = _is_set("AWS_ALLOW_HTTP")
    if own is not None and urlsplit(own).scheme.lower() == "http" and not plain:
        raise error(
            f"the S3 endpoint {urlsplit(own).netloc} is not encrypted; set AWS_ALLOW_HTTP=true if "
            "that is meant"
        )
    try:
        return S3Store(
            address.host, prefix=prefix, client_options=_client(plain, limits),
            retry_config=_retries(limits), **config,
        )  # fmt: skip
    except obstore.exceptions.BaseError as problem:
        raise error(f"cannot use {address.site}: {reason_of(problem)}; {CREDENTIALS}") from problem


def _client(plain: bool, limits: Limits) -> ClientConfig:
    return {
        "allow_http": plain,
        "connect_timeout": timedelta(seconds=limits.connect_s),
        "timeout": timedelta(seconds=limits.request_s),
    }


def _retries(limits: Limits) -> RetryConfig:
    return {
        "max_retries": limits.attempts - 1,
        "backoff": {
            "init_backoff": timedelta(seconds=limits.wait_s),
            "max_backoff": timedelta(seconds=limits.longest_wait_s),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=limits.request_s),
    }


class S3Ranges:
    """Parts of one object; see ``Ranges``. May be used by several threads.

    obstore signs an address, which is then asked like any other: so redirects, retries and numbers
    of connections are under one rule. obstore itself would follow a redirect to anywhere.
    """

    def __init__(self, address: Address, allow: AllowList, limits: Limits) -> None:
        self._address, self._allow, self._limits = address, allow, limits
        self._bucket = open_bucket(address, allow, limits=limits)
        self._http: HttpRanges | None = None
        self._until = 0.0

    def fetch(self, start: int, stop: int, state: State | None) -> tuple[bytes, State]:
        """See ``Ranges``."""
        return self._signed().fetch(start, stop, state)

    def whole(self, most: int) -> bytes:
        """See ``Ranges``."""
        return self._signed().whole(most)

    def _signed(self) -> HttpRanges:
        if self._http is None or time.monotonic() > self._until:
            place = Address.parse(sign(self._bucket, self._address))
            self._http = HttpRanges(self._address, self._allow, self._limits, place, CREDENTIALS)
            self._until = time.monotonic() + SIGNED.total_seconds() * 0.75
        return self._http


def sign(bucket: S3Store, address: Address) -> str:
    """An address by which an object can be had for a while; plain for a public bucket.

    Raises:
        SceneError: if there are no credentials.
    """
    import obstore

    public = _is_set("AWS_SKIP_SIGNATURE")
    if public:  # obstore signs all the same, with whatever it has
        config = {**bucket.config, "access_key_id": "none", "secret_access_key": "none"}
        bucket = type(bucket)(**config)  # type: ignore[arg-type]
    try:
        signed = obstore.sign(bucket, "GET", address.path, SIGNED)
    except obstore.exceptions.BaseError as problem:
        raise SceneError(
            f"cannot read {address.shown}: {reason_of(problem)}; {CREDENTIALS}"
        ) from problem
    return signed.partition("?")[0] if public else signed


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


CREDENTIALS = (
    "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a public bucket needs "
    "AWS_SKIP_SIGNATURE=true"
)


def reason_of(problem: BaseException) -> str:
    """First line of what obstore says, without addresses."""
    line = str(problem).strip().partition("\n")[0]
    line = re.sub(r"Error performing (\w+) \S+ in .*? - ", r"\1: ", line)
    return re.sub(r"\S+://\S+", "", line)[:200].rstrip(". ") or type(problem).__name__
