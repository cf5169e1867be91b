"""A detector to compare the alarm with: Kolmogorov and Smirnov's statistic of the last requests' own values, which nobody keeps.

What `scipy.stats.ks_2samp` computes, for many windows at once; a test holds both equal.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from watching.alarm import Drawn, Reference
from watching.detector import Counts

# Looked at so many times in a window.
LOOKS = 4
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
STATISTICS = ("confidence", "mean_ink", "offset")


def distances(values: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], window: int) -> Counts:
    """The largest distance of two distribution functions, times sqrt(n m / (n + m)), at each look: (looks,).

    Of the last ``window`` of ``values`` (requests,), in the order they came, and of ``reference`` (m,), rising.
    """
    different, ranks = np.unique(values, return_inverse=True)
    below, up_to = (np.asarray(np.searchsorted(reference, different, side=side), np.float64) for side in _SIDES)
    windows = np.lib.stride_tricks.sliding_window_view(ranks.astype(np.int32), window)[:: window // LOOKS]
    ordered = np.sort(windows, axis=1)
    steps = np.arange(window + 1) / window
    above = (steps[1:] - up_to[ordered] / len(reference)).max(axis=1)
    beneath = (below[ordered] / len(reference) - steps[:-1]).max(axis=1)
    found: Counts = np.maximum(above, beneath) * np.sqrt(window * len(reference) / (window + len(reference)))
    return found


def look(drawn: list[Drawn], references: dict[str, Reference], windows: dict[str, int]) -> dict[tuple[str, str], Counts]:
    """`distances` by statistic and window, of so many requests as a window has seconds."""
    return {
        (name, window): distances(
            np.concatenate([part.population.values[name][part.images] for part in drawn]), references[name].values, requests
        )
        for name in STATISTICS
        for window, requests in windows.items()
    }
