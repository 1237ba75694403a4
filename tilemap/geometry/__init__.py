"""Pixel geometry: windows and tile grids. No CRS, no I/O, numpy only."""

from tilemap.geometry.grid import Tile, TileGrid, fit_core, round_up
from tilemap.geometry.window import Window

__all__ = ["Tile", "TileGrid", "Window", "fit_core", "round_up"]
