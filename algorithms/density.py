"""Density ratios of a golden source to the others, from classifiers on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import PreferenceData, UserError

RIDGE = 1e-2
RANGE = (0.1, 10.0)


def density_ratios(
    data: PreferenceData, golden: str | None, features: Callable[[], NDArray[np.float32]]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """How similar each row is to the golden source: the mean over its images, float64, (N,); and a note for the record.

    Ratios are scaled to mean 1, clipped to `RANGE` and scaled to mean 1 again, which may move them outside `RANGE`.

    Args:
        data: rows of captions and images, with the sources of the images where they are known.
        golden: name of the source to resemble; None if the data has one source or names none, and then every ratio is 1.
        features: returns the embeddings of captions and images, (N, 1 + K, D), captions first; called only when needed.

    Raises:
        UserError: the data names several sources and ``golden`` is not one of them.
    """
    from scipy.special import expit

    names = source_names(data)
    if len(names) < 2 and golden is None:
        return np.ones(len(data)), {"ratio": 1.0, "why": f"the data names {len(names)} sources"}
    if golden not in names:
        raise UserError(
            f"golden={golden!r} is not a source of {data.report.source}; set --set golden=... to one of {', '.join(names) or 'none'}"
        )
    sources = np.asarray(data.sources)
    embedded = features()[:, 1:]
    chances, imbalances, shares = [], [], []
    for name in names:
        share = float((sources == name).mean())
        shares.append(share)
        if name == golden:
            chances.append(np.full(sources.shape, 0.5))
            imbalances.append(1.0)
            continue
        chosen = (sources == golden) | (sources == name)
        weights = fit_logistic(embedded[chosen], (sources == golden)[chosen])
        chances.append(expit(embedded @ weights[:-1] + weights[-1]))
        imbalances.append(share / float((sources == golden).mean()))
    ratios = calibration(np.stack(chances, axis=-1), np.asarray(imbalances), np.asarray(shares)).mean(1)
    ratios = np.clip(ratios / ratios.mean(), *RANGE)
    ratios /= ratios.mean()
    effective = float(ratios.sum() ** 2 / np.square(ratios).sum())
    return ratios, {"golden": golden, "sources": names, "effective_sample_size": effective}


def source_names(data: PreferenceData) -> list[str]:
    """The generators that the data names, each once."""
    return sorted({name for row in data.sources or () for name in row})


def calibration(
    chances: NDArray[np.float64], imbalances: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The paper's h with its stabiliser: ``1/n sum_i gamma_i c_i / (b_i (1 - c_i) + 1/n)``; (..., n) to (...).

    Args:
        chances: c, the classifiers' P(golden), one per source.
        imbalances: gamma, number of images of the source per golden image.
        shares: b, the sources' shares of all images.
    """
    count = chances.shape[-1]
    return np.asarray((imbalances * chances / (shares * (1 - chances) + 1 / count)).mean(-1))


def fit_logistic(features: NDArray[np.float32], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Ridge-regularised logistic regression: (N, D) and (N,) to the weights followed by the intercept, float64, (D + 1,)."""
    from scipy.optimize import minimize
    from scipy.special import expit

    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    signs = np.where(labels, 1.0, -1.0)

    def objective(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (inputs @ weights)
        value = np.logaddexp(0, -margins).mean() + 0.5 * RIDGE * float(weights[:-1] @ weights[:-1])
        gradient = -(inputs.T @ (signs * expit(-margins))) / len(inputs)
        gradient[:-1] += RIDGE * weights[:-1]
        return float(value), gradient

    return np.asarray(minimize(objective, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x)
