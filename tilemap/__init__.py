"""Satellite and aerial scenes of billions of pixels to land-cover maps, on Dask.

Everything here is loaded when it is first used, so that ``import tilemap`` is quick and needs
neither torch nor dask nor rasterio.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilemap.api import change, demo, evaluate, plan, segment, train
    from tilemap.geometry import Tile, TileGrid, Window
    from tilemap.scene import Scene
    from tilemap.stores.geotiff import SceneRequest, open_scene

# No host is asked that nobody has named. ONNX Runtime would write a device id into the home folder
# and report to a service. PROJ would fetch grids where its network is on, as conda-forge has it, so
# where a pixel is would depend on the network. Both read these when they are first used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ["PROJ_NETWORK"] = "OFF"

__version__ = "0.1.0"

_HOME = {
    "Scene": "tilemap.scene",
    "SceneRequest": "tilemap.stores.geotiff",
    "Tile": "tilemap.geometry",
    "TileGrid": "tilemap.geometry",
    "Window": "tilemap.geometry",
    "change": "tilemap.api",
    "demo": "tilemap.api",
    "evaluate": "tilemap.api",
    "open_scene": "tilemap.stores.geotiff",
    "plan": "tilemap.api",
    "segment": "tilemap.api",
    "train": "tilemap.api",
}

__all__ = [
    "Scene",
    "SceneRequest",
    "Tile",
    "TileGrid",
    "Window",
    "__version__",
    "change",
    "demo",
    "evaluate",
    "open_scene",
    "plan",
    "segment",
    "train",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that has it."""
    if name not in _HOME:
        raise AttributeError(f"module 'tilemap' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted({*globals(), *_HOME})
