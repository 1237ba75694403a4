"""Nanoseconds per pixel and date of the hidden Markov model, on one core.

    python tests/benchmarks/bench_change.py --classes 6 --dates 8

From stored probabilities to labels and probabilities of change, beside a loop that only reads the
bytes, labels compared without any model, and the NumPy twin.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from tilemap.comparison.compiled import compiled
from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.hmm import smooth, smooth_emissions
from tilemap.comparison.pairs import pcc
from tilemap.comparison.transition import from_rate, steps
from tilemap.probability import quantise


@compiled
def read(quantised):  # type: ignore[no-untyped-def]
    """Sum of all bytes: no kernel is faster."""
    total = 0
    for value in quantised.ravel():
        total += value
    return total


def nanoseconds(call: Callable[[], object], count: int, repeats: int) -> float:
    """Best of several, per pixel and date; the first one compiles and does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) / count * 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--dates", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=448 * 448)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    classes, dates, pixels = arguments.classes, arguments.dates, arguments.pixels
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(classes, 0.3), (dates, pixels)).transpose(0, 2, 1)
    quantised = quantise(p)
    quantised.transpose(0, 2, 1)[random.random((dates, pixels)) < 0.1] = 255
    prior = np.full(classes, 1 / classes)
    table = emission_table(prior, 1.0)
    matrices = steps(from_rate(0.01, classes), np.arange(dates) * 365)
    few = emissions(quantised[..., : pixels // 10], table)
    rows: list[tuple[str, Callable[[], object], int]] = [
        ("bytes read", lambda: read(quantised), pixels),
        ("hmm", lambda: smooth(quantised, prior, matrices, table), pixels),
        ("pcc", lambda: pcc(quantised), pixels),
        ("hmm in NumPy", lambda: smooth_emissions(few, prior, matrices, "numpy"), pixels // 10),
    ]
    print(f"{classes} classes, {dates} dates, {pixels} pixels; ns per pixel and date, one core")
    for name, call, count in rows:
        print(f"{name:14s}{nanoseconds(call, count * dates, arguments.repeats):8.2f}", flush=True)


if __name__ == "__main__":
    main()
