"""What changed between the dates of one place: copy this script, change the settings, submit it.

    python workflows/change.py

Each input is a scene, which is mapped first, or a directory that `tilemap segment
--probabilities` left. Run again after any interruption, it continues; with one more date it
extends the series and computes nothing of the old dates again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tilemap
from tilemap.cli.change import summary
from tilemap.cli.progress import ConsoleProgress
from tilemap.errors import TilemapError

INPUTS = ["2015.tif", "2020.tif", "2025.tif"]  # the oldest first
DATES = ["2015-07-01", "2020-07-01", "2025-07-01"]  # None where the files' names tell
OUT = Path("change")
MODEL = "tilemap-demo-5class"  # None if all inputs are directories of runs
RATE = 0.01  # share of pixels that change class in a year; "fit" finds it
MMU_HA = 0.5  # smaller regions of change are mapped as none
SCHEDULER = None  # "tls://scheduler:8786"; None starts a cluster on this machine


def main() -> int:
    """Compare the dates and print what was found."""
    result = tilemap.change(
        INPUTS,
        out=OUT,
        model=MODEL,
        dates=DATES,
        rate=RATE,
        mmu_ha=MMU_HA,
        scheduler=SCHEDULER,
        progress=ConsoleProgress(),
    )
    print("\n".join(summary(result)))
    return result.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
