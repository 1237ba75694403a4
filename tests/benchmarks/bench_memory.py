"""Peak memory of workers on scenes of two sizes, against what the plan said.

    python tests/benchmarks/bench_memory.py --sides 4096 16384

The scenes are made by repeating the real one that ships with tilemap; the model is a narrow U-Net.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tilemap import api

sys.path.insert(0, str(Path(__file__).parent))

from bench_pipeline import make_model, make_scene

MIB = 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    arguments = parser.parse_args()
    peaks = []
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_model(folder / "model", 10, arguments.width)
            scene = make_scene(folder / "scene.tif", side)
            result = api.segment(
                scene, model=folder / "model", out=folder / "run", precision=arguments.precision
            )
            memory, record = result.record["memory"], result.record
            peaks.append(memory["peak_bytes"])
            print(
                f"{side:6d}^2: peak {memory['peak_bytes'] / MIB:.0f} MiB in a worker, "
                f"{memory['planned_bytes'] / MIB:.0f} planned; {record['tiles']['count']} tiles, "
                f"core {record['identity']['grid']['core']}, {record['mpx_per_s']:.2f} Mpx/s",
                flush=True,
            )
    print(f"largest over smallest peak: {max(peaks) / min(peaks):.3f}")


if __name__ == "__main__":
    main()
