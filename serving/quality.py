"""What is counted of images and of the answers to them: how the model does, as far as that shows while nobody says what is right.

Every series has the label ``version``, so that a canary's images are told from the champion's. Bins are counted one by one, not
cumulatively as a histogram's are: a rule compares them with the reference's bin by bin, and PromQL cannot subtract neighbours.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from model.bundle import Bundle, Floats, expected_correct, profile_statistics
from serving.engine import Answer

Row = npt.NDArray[np.float64]


class Quality:
    """Counts of the images that ``bundle`` answered: ``size`` numbers of a row, from ``start`` on.

    Images fall in the bins in which the bundle's profile counted the reference, `model.bundle.Histogram`, each named by its upper
    edge, or by its label. A statistic that this server does not know is left out.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.start = 0
        self._version, self._labels, self._profile = bundle.version, bundle.labels, bundle.profile
        self._accuracy = bundle.metrics.get("validation_accuracy")
        self._reference = {"class": [float(count) for count in bundle.profile.class_counts]}
        self._bins = {"class": [str(label) for label in bundle.labels]}
        self._edges: dict[str, npt.NDArray[np.float64]] = {}
        known = profile_statistics(np.zeros((1, *bundle.input_shape), np.float32), np.ones((1, len(bundle.labels)), np.float32))
        for name, histogram in bundle.profile.histograms.items():
            if name in known:
                self._edges[name] = np.array(histogram.edges[1:-1])
                self._reference[name] = [float(count) for count in histogram.counts]
                self._bins[name] = [f"{edge:.12g}" for edge in histogram.edges[1:]]
        # The sums of p and of p (1 - p) come after the bins.
        self._expected = sum(map(len, self._bins.values()))
        self.size = self._expected + 2

    def count(self, images: Floats, answer: Answer) -> Row:
        """What ``images`` (n, 28, 28) and the answer to them add to the block: (size,)."""
        counts = np.zeros(self.size)
        bins = [np.bincount(answer.labels, minlength=len(self._labels))]
        values = profile_statistics(images, answer.probabilities)
        for name, edges in self._edges.items():
            bins.append(np.bincount(np.searchsorted(edges, values[name], side="right"), minlength=len(edges) + 1))
        counts[: self._expected] = np.concatenate(bins)
        correct = expected_correct(self._profile, values)
        counts[self._expected :] = correct.sum(), (correct * (1 - correct)).sum()
        return counts

    def collect(self, total: Row) -> Iterator[Metric]:
        """The families, from the rows' sum."""
        counts = total[self.start : self.start + self.size].tolist()
        bins = [(statistic, name) for statistic, names in self._bins.items() for name in names]
        images = CounterMetricFamily(
            "chiffre_profile_images",
            "Images by bin of each statistic of the profile; not cumulative.",
            labels=["version", "statistic", "bin"],
        )
        predictions = CounterMetricFamily(
            "chiffre_predictions", "Images by the label they were given.", labels=["version", "label"]
        )
        for place, (statistic, name) in enumerate(bins):
            images.add_metric([self._version, statistic, name], counts[place])
            if statistic == "class":
                predictions.add_metric([self._version, name], counts[place])
        yield images
        yield predictions
        yield from self._collect_reference(bins)
        expected = {
            "chiffre_expected_correct": "Sum of p, the probability that an answer is right: how many are expected to be.",
            "chiffre_expected_correct_variance": "Sum of p (1 - p): the variance of how many are right.",
        }
        for (name, documentation), count in zip(expected.items(), counts[self._expected :], strict=True):
            family = CounterMetricFamily(name, documentation, labels=["version"])
            family.add_metric([self._version], count)
            yield family

    def _collect_reference(self, bins: list[tuple[str, str]]) -> Iterator[Metric]:
        reference = GaugeMetricFamily(
            "chiffre_reference_images",
            "The bundle's reference profile: validation images in the same bins.",
            labels=["version", "statistic", "bin"],
        )
        numbers: list[Any] = [count for counts in self._reference.values() for count in counts]
        for (statistic, name), count in zip(bins, numbers, strict=True):
            reference.add_metric([self._version, statistic, name], count)
        yield reference
        if self._accuracy is not None:
            accuracy = GaugeMetricFamily(
                "chiffre_validation_accuracy", "Share of validation images answered right.", labels=["version"]
            )
            accuracy.add_metric([self._version], self._accuracy)
            yield accuracy
