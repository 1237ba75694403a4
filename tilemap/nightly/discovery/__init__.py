"""What scenes there are: in folders, by glob, in STAC catalogs and APIs.

Nothing is opened and nothing heavy imported: a night that brings nothing new is over at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.nightly.discovery.folders import look_in_folders
from tilemap.nightly.discovery.looking import Moment
from tilemap.nightly.facts import Found, Problem

if TYPE_CHECKING:
    from tilemap.nightly.config import AreaTable, NightlyConfig

__all__ = ["discover"]


def discover(
    area: AreaTable,
    config: NightlyConfig,
    now: float,
    known: Callable[[str, tuple[Mapping[str, Any], ...]], bool],
) -> tuple[tuple[Found, ...], tuple[Problem, ...]]:
    """Look through the sources of an area.

    Args:
        area: whose.
        config: of the passes: what is young, which hosts may be asked, where products lie.
        now: seconds since 1970.
        known: whether an earlier pass saw the scene of an id with the same fingerprint; it is whole
            then, whatever the clock says.

    Returns:
        Scenes: those of folders by path, then addresses, then those of STAC, the newest first;
        and what could not be looked through. Neither a folder that is gone nor a host that is
        silent is an error: other sources go on, and the problem says that not all has been seen.
    """
    from tilemap.nightly.config import is_remote

    places = [str(config.root), config.publish.to or ""]
    ours = frozenset(str(Path(p).resolve()) for p in places if p and not is_remote(p))
    when = Moment(now, config.nightly.settle, known)
    scenes, problems = look_in_folders(area, when, ours)
    if any(is_remote(text) for text in area.scenes):
        from tilemap.nightly.discovery.addresses import look_at_addresses

        more = look_at_addresses(area, config.remote.allow_hosts)
        scenes, problems = scenes + more[0], problems + more[1]
    if area.stac is not None:
        from tilemap.nightly.discovery.stac import look_in_stac

        more = look_in_stac(area, when, config.remote.allow_hosts)
        scenes, problems = scenes + more[0], problems + more[1]
    return tuple(scenes), tuple(problems)
