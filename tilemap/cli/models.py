"""``tilemap models list|show|import|probe``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="The models: list, show, import, probe.", no_args_is_help=True, rich_markup_mode=None
)
