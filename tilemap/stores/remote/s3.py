"""Objects on S3 and what speaks like it, through obstore."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tilemap.errors import SceneError, StoreError, TilemapError, UnavailableError
from tilemap.stores.remote.address import Address, AllowList
from tilemap.stores.remote.limits import LIMITS, Limits
from tilemap.stores.remote.ranges import State, check_same
from tilemap.stores.remote.retry import PassingError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_TRUE = ("1", "true", "yes", "on")


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
    """An endpoint of the user's must be listed too: it sees what is asked and answers it.

    Raises:
        error: if it is not.
    """
    own = endpoint()
    if own is not None:
        allow.check(Address.parse(own, error), error)


def open_bucket(
    address: Address,
    allow: AllowList,
    error: type[TilemapError] = SceneError,
    retries: int | None = None,
    limits: Limits = LIMITS,
) -> S3Store:
    """The bucket of an address, with endpoint, region and credentials of the ``AWS_`` variables.

    Args:
        address: of any object in it.
        allow: what may be asked.
        error: for what may not.
        retries: of obstore itself; None for as many as the limits say.

    Raises:
        error: if bucket or endpoint are not listed.
        UnavailableError: if obstore is missing.
    """
    allow.check(address, error)
    check_endpoint(allow, error)
    load_obstore()
    from obstore.store import S3Store

    own = endpoint()
    config: dict[str, Any] = {} if own is None else {"endpoint": own.rstrip("/")}
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in _TRUE
    if own is not None and urlsplit(own).scheme.lower() == "http" and not plain:
        raise error(
            f"the S3 endpoint {urlsplit(own).netloc} is not encrypted; set AWS_ALLOW_HTTP=true if "
            "that is meant"
        )
    return S3Store(
        address.host,
        client_options={
            "allow_http": plain,
            "connect_timeout": timedelta(seconds=limits.connect_s),
            "timeout": timedelta(seconds=limits.request_s),
        },
        retry_config={
            "max_retries": limits.attempts - 1 if retries is None else retries,
            "backoff": {
                "init_backoff": timedelta(seconds=limits.wait_s),
                "max_backoff": timedelta(seconds=limits.longest_wait_s),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=limits.request_s),
        },
        **config,
    )


class S3Ranges:
    """Parts of one object; see ``Ranges``. May be used by several threads."""

    def __init__(self, address: Address, allow: AllowList, limits: Limits) -> None:
        self._address = address
        self._bucket = open_bucket(address, allow, retries=0, limits=limits)

    def fetch(self, start: int, stop: int, state: State | None) -> tuple[bytes, State]:
        """See ``Ranges``."""
        import obstore

        options: GetOptions = {"range": (start, stop)}
        if state is not None and state.version:
            options["if_match"] = state.version
        try:
            answer = obstore.get(self._bucket, self._address.path, options=options)
            meta = answer.meta
            now = State(meta["size"], meta["e_tag"] or meta["last_modified"].isoformat())
            check_same(self._address, state, now)
            data = bytes(answer.bytes())
        except Exception as problem:
            raise self._told(problem) from problem
        wanted = min(stop, now.size) - start
        if len(data) != wanted:
            raise PassingError(f"{len(data)} of {wanted} bytes came")
        return data, now

    def whole(self, most: int) -> bytes:
        """A whole small object.

        Raises:
            SceneError: if it is larger than ``most`` bytes.
        """
        import obstore

        try:
            answer = obstore.get(self._bucket, self._address.path)
            if (size := answer.meta["size"]) > most:
                raise SceneError(
                    f"{self._address.shown} must be at most {most} bytes, it has {size}"
                )
            return bytes(answer.bytes())
        except Exception as problem:
            raise self._told(problem) from problem

    def _told(self, problem: Exception) -> Exception:
        shown = self._address.shown
        if isinstance(problem, TilemapError | PassingError):
            return problem
        if isinstance(problem, FileNotFoundError):
            return SceneError(f"no such object: {shown}")
        kind = type(problem).__name__
        if kind == "PreconditionError":
            return StoreError(f"{shown} has changed since the run was planned")
        if kind in ("PermissionDeniedError", "UnauthenticatedError"):
            return SceneError(f"{self._address.site} refuses {shown}; {CREDENTIALS}")
        return PassingError(reason_of(problem))


CREDENTIALS = (
    "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a public bucket needs "
    "AWS_SKIP_SIGNATURE=true"
)


def reason_of(problem: BaseException) -> str:
    """First line of what obstore says, without addresses."""
    line = str(problem).strip().partition("\n")[0]
    line = re.sub(r"Error performing (\w+) \S+ in \S+ - ", r"\1: ", line)
    return re.sub(r"\S+://\S+", "", line)[:200].rstrip(". ") or type(problem).__name__
