"""Simulated traffic: images drawn from those that no model was trained on, one by one or writer by writer."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.bundle import Labels
from watching.detector import SCRAPE_SECONDS, Counts

Bins = npt.NDArray[np.intp]
Values = dict[str, npt.NDArray[np.floating]]

# Writers' images are as many as this or up to twice as many.
_LEAST_CLUSTER = 8


@dataclass(frozen=True)
class Writers:
    """The images of a population in clusters of one class that look alike: ``order`` has each cluster's images in a row."""

    order: Bins
    starts: Bins
    sizes: Bins


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests of one image each, at random times.

    Args:
        rate: Requests a second.
        session: A writer sends so many images in a row on average (geometric), of one cluster; 1 is independent images.
    """

    rate: float = 1.0
    session: float = 1.0


@dataclass
class Population:
    """Images by their values of each statistic (n,), and the writers they are of."""

    values: Values
    writers: Writers
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = len(next(iter(self.values.values())))

    def draw(self, traffic: Traffic, scrapes: int, generator: np.random.Generator) -> tuple[Bins, Bins]:
        """Indices of the images that came between ``scrapes`` scrapes, and the scrape that counted each: (requests,) each."""
        arrived = generator.poisson(traffic.rate * SCRAPE_SECONDS, scrapes)
        counted = np.repeat(np.arange(scrapes), arrived)
        return self._images(len(counted), traffic.session, generator), counted

    def _images(self, count: int, session: float, generator: np.random.Generator) -> Bins:
        first = generator.integers(self.size, size=count)
        if session == 1:
            return first
        # Each request may begin a session. Clusters are drawn by their size, so that all images stay as likely.
        begins = generator.random(count) < 1 / session
        begins[:1] = True
        cluster = self._cluster_of[first[begins]][begins.cumsum() - 1]
        place = (generator.random(count) * self.writers.sizes[cluster]).astype(np.intp)
        images: Bins = self.writers.order[self.writers.starts[cluster] + place]
        return images

    @property
    def _cluster_of(self) -> Bins:
        found = np.empty(self.size, np.intp)
        found[self.writers.order] = np.repeat(np.arange(len(self.writers.sizes)), self.writers.sizes)
        return found


def gather_writers(values: Values, labels: Labels) -> Writers:
    """Halve each class's images at the median, by one statistic after the other, until a cluster would be too small.

    The images of a cluster are then alike in all statistics at once: the more so, the more a session's images count as one. MNIST
    does not say who wrote what; this is a worse case than writers are.
    """
    ranked = [found.argsort(kind="stable").argsort(kind="stable") for name, found in values.items() if name != "class"]
    clusters: list[Bins] = []
    todo = [(np.flatnonzero(labels == label), 0) for label in np.unique(labels)]
    while todo:
        images, depth = todo.pop()
        if len(images) < 2 * _LEAST_CLUSTER:
            clusters.append(images)
            continue
        images = images[ranked[depth % len(ranked)][images].argsort()]
        half = len(images) // 2
        todo += [(images[:half], depth + 1), (images[half:], depth + 1)]
    sizes = np.array([len(cluster) for cluster in clusters])
    return Writers(order=np.concatenate(clusters), starts=sizes.cumsum() - sizes, sizes=sizes)


def count(bins: Bins, counted: Bins, scrapes: int, bin_count: int) -> Counts:
    """Images by bin and scrape: (bin_count, scrapes), of the ``bins`` and scrapes (requests,) of all images."""
    flat = np.bincount(bins * scrapes + counted, minlength=scrapes * bin_count)
    return flat.reshape(bin_count, scrapes).astype(np.float64)
