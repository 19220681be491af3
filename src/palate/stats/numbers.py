"""Small functions that every estimator needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def finite(value: Any) -> float | None:
    """The value as JSON can hold it: None where it is missing, infinite or not a number."""
    return None if value is None or not math.isfinite(value) else float(value)


def logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), of any shape."""
    from scipy.special import expit

    return np.asarray(expit(values), dtype=np.float64)


def log_logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of 1 / (1 + exp(-x)), of any shape."""
    from scipy.special import log_expit

    return np.asarray(log_expit(values), dtype=np.float64)
