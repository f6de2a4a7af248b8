"""The label-robust score of DD-Ranking, from accuracies in fractions."""

from __future__ import annotations

import math

from latentdc.errors import InputError


def score(alpha: float) -> float:
    """Squash a gain into [0, 1]: (e^α − e^−1) / (e − e^−1), so α = −1 → 0, α = 0 → 0.269, α = 1 → 1.

    Args:
        alpha: a difference of accuracies in fractions, in [−1, 1].

    Raises:
        InputError: ``alpha`` outside [−1, 1]: accuracies in per cent were given.

    *Reference:* Li et al. 2025, DD-Ranking, arXiv 2505.13300.
    *Differs from the authors' code:* fractions, as the definition needs; v0.2 feeds per cent into the exponential.
    """
    if not -1.0 <= alpha <= 1.0:
        raise InputError(f"alpha = {alpha:g} must lie in [-1, 1]: give accuracies as fractions, not per cent")
    return (math.exp(alpha) - math.exp(-1.0)) / (math.e - math.exp(-1.0))


def label_robust_score(synthetic: float, random: float, full: float | None = None, *, weight: float = 0.5) -> float:
    """LRS = score(α) with α = weight · IOR − (1 − weight) · HLR; without ``full``, α = IOR alone.

    IOR = synthetic − random (same student and recipe on both); HLR = full − synthetic with hard labels.

    Args:
        synthetic: accuracy on the condensed set, a fraction in [0, 1].
        random: accuracy on a random real subset of the same size, a fraction.
        full: accuracy on all real data, a fraction, when known.
        weight: share of IOR.

    Raises:
        InputError: an accuracy outside [0, 1].
    """
    for what, value in (("synthetic", synthetic), ("random", random), ("full", full)):
        if value is not None and not 0.0 <= value <= 1.0:
            raise InputError(f"accuracy {what} = {value:g}: give a fraction in [0, 1], not per cent")
    gain = synthetic - random
    return score(gain if full is None else weight * gain - (1.0 - weight) * (full - synthetic))
