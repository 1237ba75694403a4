"""Accuracy and calibration of change where the truth is known, for each kind of shared error.

    python tests/benchmarks/bench_change_truth.py --seeds 3

The rows are as a table of Markdown. User's and producer's accuracy are of the change between the
first date and the last, with both classes right. Bins are of P(change): what is said, on average,
and the share that did change.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from tilemap.comparison.emission import emission_table, emissions
from tilemap.comparison.hmm import smooth, smooth_emissions
from tilemap.comparison.pairs import pcc
from tilemap.comparison.shared_error import decorrelate, discourage, estimate
from tilemap.comparison.smoothed import Smoothed
from tilemap.comparison.transition import from_rate, steps
from tilemap.testing import ERRORS, TrueSeries, simulate_change

RATE = 0.01
BINS = np.arange(6) / 5


def named_epochs(errors: str, series: TrueSeries) -> tuple[str, ...]:
    """Epochs as a person who knows the dates would name them."""
    if errors == "seasons":
        return tuple("ab"[t % 2] for t in range(len(series.days)))
    return series.epochs


def answers(errors: str, series: TrueSeries) -> Iterator[tuple[str, Smoothed]]:
    """Each method and what it says."""
    stored, classes = series.quantised, series.posterior.shape[1]
    uniform = np.full(classes, 1 / classes)
    matrices = steps(from_rate(RATE, classes), series.days)
    table = emission_table(uniform, 1.0)
    yield "pcc", pcc(stored)
    yield "hmm", smooth(stored, uniform, matrices, table)
    evidence, seen = emissions(stored, table), np.ones((len(stored), stored.shape[2]), dtype=bool)
    shared = estimate(evidence[..., :20_000], seen[:, :20_000], named_epochs(errors, series))
    weighed = decorrelate(evidence, seen, shared)
    yield "hmm, epochs", smooth_emissions(weighed, uniform, discourage(matrices, shared))


def counts(found: Smoothed, series: TrueSeries) -> np.ndarray:
    """Said, true and right changes; then of each bin pixels, sum of what is said, changed ones."""
    first, last = found.labels[0], found.labels[-1]
    said, true = first != last, series.truth[0] != series.truth[-1]
    right = said & true & (first == series.truth[0]) & (last == series.truth[-1])
    place = np.clip(np.digitize(found.p_change, BINS) - 1, 0, 4)
    bins = [
        np.bincount(place, weight, 5)
        for weight in (np.ones(place.size), found.p_change, series.changed.astype(float))
    ]
    return np.concatenate([[said.sum(), true.sum(), right.sum()], *bins])


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=RATE)
    arguments = parser.parse_args()
    print("| errors | method | user's | producer's | 0 to 0.2 | to 0.4 | to 0.6 | to 0.8 | to 1 |")
    print("|" + " --- |" * 9)
    for errors in ERRORS:
        total: dict[str, np.ndarray] = {}
        for seed in range(arguments.seeds):
            series = simulate_change(errors, rate=arguments.rate, seed=seed)
            for name, found in answers(errors, series):
                total[name] = total.get(name, 0) + counts(found, series)
        for name, sums in total.items():
            said, true, right = sums[:3]
            size, mean, share = sums[3:].reshape(3, 5)
            bins = [f"{m / n:.2f}: {s / n:.2f}" for n, m, s in zip(size, mean, share, strict=True)]
            row = [errors, name, f"{right / said:.2f}", f"{right / true:.2f}", *bins]
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
