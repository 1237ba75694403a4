"""A hidden Markov model of each pixel: its likeliest classes, and how sure a change is.

The class of a pixel changes from date to date as the transition matrices say; each date gives
evidence for every class. Labels are the likeliest path (Viterbi), the probability of change is
that of all paths (forward-backward), see Rabiner (1989), Proceedings of the IEEE 77(2), 257-286.
A date that was not observed gives the same evidence to all classes.

Paths are compared by sums of logarithms rounded to multiples of 2^-32, which float64 adds without
any error. So two paths of equal steps in another order, as with a change around a date that
was not observed, are equally likely to the last bit, and of equals the lowest class wins.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tilemap.comparison import hmm_numpy
from tilemap.comparison.compiled import compiled
from tilemap.comparison.emission import check_quantised
from tilemap.comparison.hmm_numpy import scores
from tilemap.comparison.smoothed import Smoothed
from tilemap.comparison.transition import check_stochastic
from tilemap.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
Engine = Literal["numba", "numpy"]
Number = TypeVar("Number", bound=np.generic)

NONE = 255
_SCRATCH = 40_000
"""Numbers a block of pixels may hold at once, so that they stay in a core's cache."""


class _Model(NamedTuple):
    """Probabilities and their scores of the first date and of each step."""

    initial: FloatArray
    initial_score: FloatArray
    steps: FloatArray
    step_scores: FloatArray


class _Scratch(NamedTuple):
    """Of a block of pixels, (date, class, pixel) but where it says otherwise."""

    evidence: FloatArray
    score: FloatArray
    alpha: FloatArray
    best: FloatArray
    work: FloatArray  # (2, class, pixel)
    rows: FloatArray  # (3, pixel)
    scale: FloatArray  # (date, pixel): one over the evidence of each date given those before it


class _Answer(NamedTuple):
    """What ``Smoothed`` holds."""

    labels: ByteArray
    p_change: npt.NDArray[np.floating]
    p_step: npt.NDArray[np.floating]


def smooth(
    quantised: ByteArray, initial: FloatArray, transitions: FloatArray, table: FloatArray
) -> Smoothed:
    """Classes and change of pixels from stored probabilities.

    Args:
        quantised: probability, uint8 (date, class, pixel), see ``probability``; 255 in every
            class where not observed.
        initial: probability of each class at the first date, float64 (K,).
        transitions: from each date to the next, float64 (date - 1, from, to); see ``steps``.
        table: evidence of each stored number, float64 (K, 256); see ``emission_table``.

    Returns:
        Labels of every date, also of those not observed; 255, with probabilities of 0, where none
        was. Probabilities are float32.

    Raises:
        ConfigError: if the arrays do not fit together, or are no probabilities.
    """
    table = np.asarray(table, dtype=np.float64)
    check_quantised(quantised, table)
    model = _model(quantised.shape, initial, transitions)
    answer = _answer(quantised.shape, np.float32)
    scratch = _scratch(quantised.shape)
    tables = np.stack([table, scores(table)])
    _smooth_stored(_sealed(quantised), tables, model, scratch, answer)
    return Smoothed(*answer)


def smooth_emissions(
    emission: FloatArray,
    initial: FloatArray,
    transitions: FloatArray,
    engine: Engine = "numba",
) -> Smoothed:
    """Classes and change of pixels from evidence.

    Args:
        emission: evidence, float64 (date, class, pixel), above 0; 1 for every class where not
            observed. A factor that all classes of a pixel and date share changes nothing.
        initial: probability of each class at the first date, float64 (K,).
        transitions: from each date to the next, float64 (date - 1, from, to).
        engine: "numpy" is the plain twin: the same labels, probabilities equal but for rounding.

    Returns:
        Labels of every date, none of them 255: without any evidence they are those of the model.
        Probabilities are float64.

    Raises:
        ConfigError: if the arrays do not fit together, or are no probabilities.
    """
    emission = np.asarray(emission, dtype=np.float64)
    if emission.ndim != 3 or 0 in emission.shape[:2]:
        raise ConfigError(
            f"evidence must be (date, class, pixel) with a date and a class, got {emission.shape}"
        )
    if not (np.isfinite(emission).all() and np.all(emission > 0)):
        raise ConfigError("evidence must be finite and above 0; 1 where not observed")
    model = _model(emission.shape, initial, transitions)
    score = scores(emission)
    if engine == "numpy":
        return hmm_numpy.smooth_emissions(emission, score, *model)
    answer = _answer(emission.shape, np.float64)
    scratch = _scratch(emission.shape)
    _smooth_floats(_sealed(emission), _sealed(score), model, scratch, answer)
    return Smoothed(*answer)


def _model(shape: tuple[int, ...], initial: FloatArray, transitions: FloatArray) -> _Model:
    dates, classes, _ = shape
    start = np.asarray(initial, dtype=np.float64)
    matrices = np.asarray(transitions, dtype=np.float64)
    if start.shape != (classes,) or matrices.shape != (dates - 1, classes, classes):
        raise ConfigError(
            f"{dates} dates of {classes} classes need {classes} initial probabilities and "
            f"{dates - 1} matrices, got {start.shape} and {matrices.shape}"
        )
    if classes > NONE:
        raise ConfigError(f"a label holds up to {NONE} classes, got {classes}")
    if not (np.all(start >= 0) and abs(start.sum() - 1) <= 1e-6):
        raise ConfigError(f"initial probabilities must be 0 or more and sum to 1, got {start}")
    check_stochastic(matrices, "transitions")
    return _Model(*map(_sealed, (start, scores(start), matrices, scores(matrices))))


def _answer(shape: tuple[int, ...], dtype: type[np.floating]) -> _Answer:
    dates, _, pixels = shape
    return _Answer(
        np.empty((dates, pixels), dtype=np.uint8),
        np.empty(pixels, dtype=dtype),
        np.empty((dates - 1, pixels), dtype=dtype),
    )


def _scratch(shape: tuple[int, ...]) -> _Scratch:
    dates, classes, pixels = shape
    width = min(max(_SCRATCH // (4 * dates * classes) // 16 * 16, 32), max(pixels, 1))
    block = (dates, classes, width)
    rest = ((2, classes, width), (3, width), (dates, width))
    return _Scratch(*(np.empty(shape) for shape in (block, block, block, block, *rest)))


def _sealed(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """A contiguous view that cannot be written: one type, so that one kernel serves all.

    What comes from another process or a file often cannot be written, and would compile anew.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


@compiled
def _smooth_stored(quantised, tables, model, scratch, answer):  # type: ignore[no-untyped-def]  # pragma: no cover
    pixels = quantised.shape[2]
    width = scratch.evidence.shape[2]
    for start in range(0, pixels, width):
        stop = min(start + width, pixels)
        stored = quantised[:, :, start:stop]
        _look_up(stored, tables, scratch)
        _block(start, stop, model, scratch, answer)
        _blank(stored, answer, start)


@compiled
def _look_up(stored, tables, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Evidence and scores of a block."""
    dates, classes, count = stored.shape
    for t in range(dates):
        for k in range(classes):
            numbers = stored[t, k]
            evidence, score = scratch.evidence[t, k], scratch.score[t, k]
            value_of, score_of = tables[0, k], tables[1, k]
            for i in range(count):
                evidence[i] = value_of[numbers[i]]
                score[i] = score_of[numbers[i]]


@compiled
def _blank(stored, answer, start):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Say nothing of pixels that no date observed."""
    dates, _, count = stored.shape
    for i in range(count):
        seen = False
        for t in range(dates):
            seen |= stored[t, 0, i] != NONE
        if not seen:
            answer.p_change[start + i] = 0
            answer.labels[:, start + i] = NONE
            answer.p_step[:, start + i] = 0


@compiled
def _smooth_floats(emission, scores, model, scratch, answer):  # type: ignore[no-untyped-def]  # pragma: no cover
    pixels = emission.shape[2]
    width = scratch.evidence.shape[2]
    for start in range(0, pixels, width):
        stop = min(start + width, pixels)
        scratch.evidence[:, :, : stop - start] = emission[:, :, start:stop]
        scratch.score[:, :, : stop - start] = scores[:, :, start:stop]
        _block(start, stop, model, scratch, answer)


@compiled
def _block(start, stop, model, scratch, answer):  # type: ignore[no-untyped-def]  # pragma: no cover
    """All of a block of pixels whose evidence and scores are there."""
    labels = answer.labels[:, start:stop]
    _best_scores(stop - start, model, scratch)
    _backtrack(model, scratch, labels)
    _forward(stop - start, model, scratch)
    _changed(model, scratch, answer.p_change[start:stop])
    _backward(model, scratch, answer.p_step[:, start:stop])


@compiled
def _best_scores(count, model, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Score of the best path to each class of each date."""
    dates, classes, _ = scratch.best.shape
    for k in range(classes):
        best, score = scratch.best[0, k], scratch.score[0, k]
        for i in range(count):
            best[i] = model.initial_score[k] + score[i]
    for t in range(1, dates):
        for k in range(classes):
            best, score = scratch.best[t, k], scratch.score[t, k]
            for i in range(count):
                best[i] = -np.inf
            for j in range(classes):
                before, step = scratch.best[t - 1, j], model.step_scores[t - 1, j, k]
                for i in range(count):
                    path = before[i] + step
                    best[i] = path if path > best[i] else best[i]
            for i in range(count):
                best[i] += score[i]


@compiled
def _backtrack(model, scratch, labels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The best path, from its end; of equals the lowest class."""
    dates, classes, _ = scratch.best.shape
    count = labels.shape[1]
    top = scratch.rows[0]
    for t in range(dates - 1, -1, -1):
        label = labels[t]
        for i in range(count):
            top[i] = -np.inf
            label[i] = 0
        for j in range(classes):
            best, number = scratch.best[t, j], np.uint8(j)
            # without a branch, which real pixels would make the processor guess wrong
            if t == dates - 1:
                for i in range(count):
                    label[i] = max(label[i], np.uint8(best[i] > top[i]) * number)
                    top[i] = max(top[i], best[i])
            else:
                after, step = labels[t + 1], model.step_scores[t, j]
                for i in range(count):
                    path = best[i] + step[after[i]]
                    label[i] = max(label[i], np.uint8(path > top[i]) * number)
                    top[i] = max(top[i], path)


@compiled
def _forward(count, model, scratch):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Probability of each class given the dates so far."""
    dates, classes, _ = scratch.alpha.shape
    for t in range(dates):
        total = scratch.scale[t]
        for i in range(count):
            total[i] = 0
        for k in range(classes):
            alpha, evidence = scratch.alpha[t, k], scratch.evidence[t, k]
            for i in range(count):
                alpha[i] = model.initial[k] if t == 0 else 0.0
            if t:
                for j in range(classes):
                    before, step = scratch.alpha[t - 1, j], model.steps[t - 1, j, k]
                    for i in range(count):
                        alpha[i] += before[i] * step
            for i in range(count):
                alpha[i] *= evidence[i]
                total[i] += alpha[i]
        for i in range(count):
            total[i] = 1 / total[i]
        for k in range(classes):
            alpha = scratch.alpha[t, k]
            for i in range(count):
                alpha[i] *= total[i]


@compiled
def _changed(model, scratch, p_change):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One minus the share of the paths that stay with one class."""
    dates, classes, _ = scratch.alpha.shape
    count = len(p_change)
    never, stays = scratch.rows[0], scratch.rows[1]
    for i in range(count):
        never[i] = 0
    for k in range(classes):
        for i in range(count):
            stays[i] = model.initial[k]
        for t in range(dates):
            stay = model.steps[t - 1, k, k] if t else 1.0
            evidence, scale = scratch.evidence[t, k], scratch.scale[t]
            for i in range(count):
                stays[i] *= stay * evidence[i] * scale[i]
        for i in range(count):
            never[i] += stays[i]
    for i in range(count):
        p_change[i] = min(max(1 - never[i], 0.0), 1.0)


@compiled
def _backward(model, scratch, p_step):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Probability of a change in each step, given all dates.

    What the later dates say of a class is scaled by the likeliest, each date anew: else classes
    that were ruled out early could grow beyond any number.
    """
    dates, classes, _ = scratch.alpha.shape
    count = p_step.shape[1]
    beta, weighted = scratch.work[0], scratch.work[1]
    same, whole, most = scratch.rows[0], scratch.rows[1], scratch.rows[2]
    for k in range(classes):
        later = beta[k]
        for i in range(count):
            later[i] = 1
    for t in range(dates - 1, 0, -1):
        for i in range(count):
            same[i] = 0
            whole[i] = 0
            most[i] = 0
        for k in range(classes):
            row, evidence, later = weighted[k], scratch.evidence[t, k], beta[k]
            before, stay = scratch.alpha[t - 1, k], model.steps[t - 1, k, k]
            for i in range(count):
                row[i] = evidence[i] * later[i]
                same[i] += before[i] * stay * row[i]
        for j in range(classes):
            later, before = beta[j], scratch.alpha[t - 1, j]
            for i in range(count):
                later[i] = 0
            for k in range(classes):
                row, step = weighted[k], model.steps[t - 1, j, k]
                for i in range(count):
                    later[i] += step * row[i]
            for i in range(count):
                whole[i] += before[i] * later[i]
                most[i] = max(most[i], later[i])
        change = p_step[t - 1]
        for i in range(count):
            change[i] = min(max(1 - same[i] / whole[i], 0.0), 1.0) if whole[i] > 0 else 0.0
            most[i] = 1 / most[i]
        for k in range(classes):
            later = beta[k]
            for i in range(count):
                later[i] *= most[i]
