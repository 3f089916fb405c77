"""Probabilities where another share of the images is abnormal; no torch.

Calibration holds at the prevalence of the cases that it was fitted on. If abnormal images look
alike at the site and only their share differs, Bayes' rule moves every log odds by one constant.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

STEPS = 10_000
SETTLED = 1e-10
RESAMPLES = 1000
LEAST, MOST = 1e-6, 1 - 1e-6


class SitePrevalence(BaseModel):
    """The share of abnormal images at a site, to which probabilities are corrected.

    Who activates the bundle that holds it approves it. ``low`` and ``high`` are the interval of
    the proposal, where it was proposed and not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prevalence: float = Field(gt=0, lt=1)
    source: str = Field(min_length=1, description="how it is known, in words")
    low: float | None = None
    high: float | None = None
    images: int | None = None


class PrevalenceProposal(NamedTuple):
    """What unlabelled scores say of the prevalence, with a 95 % interval by resampling."""

    prevalence: float
    low: float
    high: float
    images: int
    groups: int


def correct_for_prevalence(probability: float, fitted_at: float, site: float) -> float:
    """Move a probability that holds at one prevalence to another.

    Source: Saerens, Latinne and Decaestecker 2002, equation 2.4, for two classes.
    """
    abnormal = probability * site / fitted_at
    other = (1 - probability) * (1 - site) / (1 - fitted_at)
    return abnormal / (abnormal + other)


def estimate_prevalence(probabilities: ArrayLike, fitted_at: float) -> float:
    """Find the prevalence under which unlabelled images are likeliest.

    Args:
        probabilities: Calibrated at ``fitted_at``, (N,).
        fitted_at: The calibrator's prevalence.

    Source: Saerens, Latinne and Decaestecker 2002, equations 2.9: expectation maximisation; the
        likelihood is concave in the prevalence, so where it starts does not matter.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return _weighted(p, np.ones(len(p)), fitted_at)


def propose_prevalence(
    probabilities: ArrayLike,
    fitted_at: float,
    *,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PrevalenceProposal:
    """Estimate the prevalence, with the percentiles of a bootstrap over groups.

    The interval covers the draw of the images. It does not cover an error of calibration, nor
    abnormal images that look otherwise than where the model was calibrated.

    Args:
        probabilities: Calibrated at ``fitted_at``, (N,).
        fitted_at: The calibrator's prevalence.
        groups: (N,), patients, drawn whole. Default: each image by itself.
        resamples: How many.
        seed: Of the draws.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    named = np.arange(len(p)) if groups is None else np.asarray(groups)
    _, group_of = np.unique(named, return_inverse=True)
    count = int(group_of.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = [
        _weighted(p, generator.multinomial(count, np.full(count, 1 / count))[group_of], fitted_at)
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return PrevalenceProposal(
        estimate_prevalence(p, fitted_at), float(low), float(high), len(p), count
    )


def _weighted(p: NDArray[np.float64], weights: NDArray[np.generic], fitted_at: float) -> float:
    """Expectation maximisation with a weight for each image."""
    share, total = fitted_at, float(np.sum(weights))
    for _ in range(STEPS):
        abnormal = p * (share / fitted_at)
        posterior = abnormal / (abnormal + (1 - p) * ((1 - share) / (1 - fitted_at)))
        new = float(np.dot(weights, posterior)) / total
        if abs(new - share) < SETTLED:
            break
        share = min(max(new, LEAST), MOST)
    return share
