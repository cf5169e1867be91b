"""The drift alarm of helm/chiffre/rules/drift.yaml in numpy: counters as they are scraped, `increase`, chi-square, the score."""

import numpy as np
import numpy.typing as npt

SCRAPE_SECONDS = 15

Counts = npt.NDArray[np.float64]


def increases(counts: Counts, window_seconds: int, interval_seconds: int) -> Counts:
    """What `increase` says of each bin at each evaluation: (bins, evaluations).

    ``counts`` (bins, scrapes) came between one scrape and the next. A window holds as many samples as scrapes fit into it, which
    span one scrape less than the window; Prometheus extrapolates to all of it. The first evaluation is after a whole window.
    https://github.com/prometheus/prometheus/blob/main/promql/functions.go, extrapolatedRate
    """
    total = np.zeros((len(counts), counts.shape[1] + 1))
    np.cumsum(counts, axis=1, out=total[:, 1:])
    spanned = window_seconds // SCRAPE_SECONDS - 1
    step = interval_seconds // SCRAPE_SECONDS
    inside = total[:, spanned + 1 :: step] - total[:, 1:-spanned:step]
    inside *= window_seconds / (window_seconds - SCRAPE_SECONDS)
    return inside


def chi_square(counts: Counts, reference: Counts) -> Counts:
    """Two-sample chi-square over its degrees of freedom of each column of ``counts`` (bins, n) and ``reference`` (bins,): (n,).

    1 is expected of equal distributions, however many images either sample has (Press et al., Numerical Recipes, 3rd edition,
    equation 14.3.3, for samples of different size). Where there are no images it is 0.
    """
    images, all_reference = counts.sum(axis=0), reference.sum()
    both = images + all_reference
    # Bin by bin, since rows lie in a row. Where the reference has none, a^2 / (a + b) is a.
    squares = sum(row * (row / (row + expected)) if expected else row for row, expected in zip(counts, reference, strict=True))
    # The sum of (m a - n b)^2 / (n m (a + b)), written out.
    spread = squares - images**2 / both
    scale = images * all_reference * (len(reference) - 1)
    found: Counts = np.divide(spread * both**2, scale, out=np.zeros(len(images)), where=scale > 0)
    return found


def inflation(images: Counts, reference_images: float, design_effect: float) -> Counts:
    """What chi-square is multiplied by where ``design_effect`` of the ``images`` tell as much as one.

    First-order correction of Rao and Scott 1981, Journal of the American Statistical Association 76; the reference's images are
    independent.
    """
    return (images + design_effect * reference_images) / (images + reference_images)


def scores(
    counts: Counts,
    reference: Counts,
    *,
    design_effect: float,
    window_seconds: int,
    interval_seconds: int,
    least_images: float,
) -> Counts:
    """Chi-square over what is expected of correlated traffic, at each evaluation: (evaluations,).

    1 is expected where nothing changed; it is 0 where a window has fewer than ``least_images``.
    """
    found = increases(counts, window_seconds, interval_seconds)
    images = found.sum(axis=0)
    corrected = chi_square(found, reference) / inflation(images, reference.sum(), design_effect)
    return np.where(images >= least_images, corrected, 0.0)
