"""Map one scene: copy this script, change the settings, run it or submit it.

    python workflows/land_cover.py                     # the scene that ships with tilemap
    python workflows/land_cover.py /data/S2/*.jp2      # your own

It leaves ``landcover.tif``, ``confidence.tif``, ``report.html`` and ``run.json`` in OUT. Run again
after any interruption, it continues. Exit codes are those of ``tilemap segment``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tilemap
from tilemap.api import DEMO_MODEL, demo_scene
from tilemap.errors import TilemapError

MODEL = DEMO_MODEL  # a name from `tilemap models list`, a model folder or an .onnx file
OUT = Path("land-cover")
SCALE = OFFSET = None  # reflectance = stored * SCALE + OFFSET, where the files do not say
NODATA = None  # stored number that means not observed, where the files do not say
SCHEDULER = None  # "tls://scheduler:8786"; None starts an embedded cluster
WORKERS = None  # of the embedded cluster; None for one per core
MEMORY_LIMIT = None  # of one worker, such as "2GiB"


def main() -> int:
    """Map the scene and say what it holds."""
    scenes = [Path(name) for name in sys.argv[1:]] or demo_scene()
    result = tilemap.segment(
        scenes,
        model=MODEL,
        out=OUT,
        scale=SCALE,
        offset=OFFSET,
        nodata=NODATA,
        scheduler=SCHEDULER,
        workers=WORKERS,
        memory_limit=MEMORY_LIMIT,
    )
    for row in result.record["classes"]:
        print(f"{row['name']:<12} {row['share']:7.2%}")
    print(f"{result.status}: {result.landcover}")
    return result.exit_code


if __name__ == "__main__":  # workers import this file again
    try:
        sys.exit(main())
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
