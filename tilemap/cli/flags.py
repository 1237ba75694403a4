"""Options in messages: the rest of tilemap names them, the command line shows their flags."""

from __future__ import annotations

import re
from functools import cache

import typer


def with_flags(text: str) -> str:
    """Replace each option that a message names, such as `` `like` ``, by its flag, ``--like``."""
    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", lambda found: _flags().get(found[1], found[0]), text)


@cache
def _flags() -> dict[str, str]:
    """Flags of all commands by the names of their options."""
    from tilemap.cli.main import make_app

    flags: dict[str, str] = {}
    commands = [typer.main.get_command(make_app())]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            long = [flag for flag in parameter.opts if flag.startswith("--")]
            if long and parameter.name is not None:
                flags.setdefault(parameter.name, long[0])
    return flags
