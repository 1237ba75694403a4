"""Everything that is new, every night: copy this script, change CONFIG, hand it to your scheduler.

    python workflows/nightly.py                        # the configuration beside this script
    python workflows/nightly.py /etc/tilemap.toml

Run again after any interruption, it continues; run again after a good pass, it does nothing. Where
the tasks run (this machine, a Dask cluster, Slurm, Kubernetes, GPUs) stands in the table
``[cluster]`` of the configuration; this script stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tilemap.errors import TilemapError
from tilemap.nightly.config import load_config
from tilemap.nightly.passing import run_pass
from tilemap.nightly.request import PassRequest
from tilemap.nightly.telling import summary_lines

CONFIG = Path(__file__).with_suffix(".toml")
BUDGET_S = None  # seconds after which nothing new is begun; None for the configuration's
DRY_RUN = False  # True only tells what would be done


def main() -> int:
    """One pass; its exit code is 0, 3 if something failed and the rest was delivered, or above."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else CONFIG
    request = PassRequest(load_config(file), str(file), budget_s=BUDGET_S, dry=DRY_RUN)
    outcome = run_pass(request)
    print("\n".join(summary_lines(outcome)))
    return outcome.exit_code


if __name__ == "__main__":  # workers import this file again
    try:
        sys.exit(main())
    except TilemapError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
