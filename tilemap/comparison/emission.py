"""What a stored probability says for a class: the evidence of one date."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tilemap.errors import ConfigError
from tilemap.probability import MOST, NODATA, VALUES

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def emission_table(prior: npt.ArrayLike, tau: float) -> FloatArray:
    """Evidence of each stored probability, ``b = (p / prior)^tau``.

    Args:
        prior: share of each class that the model learned from, (K,), above 0, sums to 1.
        tau: how far a date is trusted, 0 or more: 1 as its probabilities say, less where the
            dates share their mistakes.

    Returns:
        float64 (K, 256): of the probability of every stored byte; 1, no evidence, at 255.

    Raises:
        ConfigError: if the prior is no distribution over the classes, or tau is negative.
    """
    shares = np.asarray(prior, dtype=np.float64)
    sound = shares.ndim == 1 and len(shares) and np.isfinite(shares).all() and np.all(shares > 0)
    if not (sound and abs(shares.sum() - 1) <= 1e-6):
        raise ConfigError(f"a prior must be above 0 for each class and sum to 1, got {shares}")
    if not (tau >= 0 and math.isfinite(tau)):
        raise ConfigError(f"tau must be a number of 0 or more, got {tau}")
    table: FloatArray = (VALUES / shares[:, None]) ** tau
    table[:, NODATA] = 1
    return table


def emissions(quantised: ByteArray, table: FloatArray) -> FloatArray:
    """Evidence of every date and class, ``b = (p / prior)^tau`` with p summing to 1 over classes.

    ``smooth`` looks its evidence up without the sum: a factor that all classes of a date share
    changes neither the likeliest path nor any probability.

    Args:
        quantised: probability, uint8 (date, class, pixel), see ``probability``; 255 in every
            class where not observed.
        table: of ``emission_table``, float64 (class, 256).

    Returns:
        float64 (date, class, pixel), above 0; 1 where not observed.

    Raises:
        ConfigError: if the arrays do not fit together.
    """
    check_quantised(quantised, table)
    classes = np.arange(len(table))[:, None]
    evidence: FloatArray = table[classes, quantised]
    # the table is a power law, so its slope gives tau back
    half = MOST // 2
    tau = math.log(table[0, MOST] / table[0, half]) / math.log(VALUES[MOST] / VALUES[half])
    observed = quantised[:, 0] != NODATA
    total = np.where(observed, VALUES[quantised].sum(axis=1), 1)
    evidence *= np.where(observed, total**-tau, 1.0)[:, None]
    return evidence


def check_quantised(quantised: ByteArray, table: FloatArray) -> None:
    """See that stored probabilities and the table of their evidence fit together.

    Raises:
        ConfigError: if they do not.
    """
    if quantised.ndim != 3 or quantised.dtype != np.uint8 or 0 in quantised.shape[:2]:
        raise ConfigError(
            "probabilities must be uint8 (date, class, pixel) with a date and a class, got "
            f"{quantised.dtype} {quantised.shape}"
        )
    if table.shape != (quantised.shape[1], 256):
        raise ConfigError(
            f"evidence of {quantised.shape[1]} classes must be ({quantised.shape[1]}, 256), got "
            f"{table.shape}"
        )
    if not (np.isfinite(table).all() and np.all(table > 0) and np.all(table[:, -1] == 1)):
        raise ConfigError("evidence must be above 0, and 1 where not observed")
