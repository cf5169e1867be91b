"""What the quality report states: measured on the test images, through the ONNX export that serves, and under each shift."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.bundle import LABELS, Bundle, Floats, Labels, Profile, expected_correct, probabilities, profile_statistics
from model.export import onnx_logits
from model.profile import calibration_error
from model.shifts import SHIFTS

SHOWN_MISTAKES = 30
# Narrow where most answers are.
_CONFIDENCE_EDGES = np.concatenate([np.linspace(0.1, 0.9, 9), [0.95, 0.98, 0.99, 0.995, 0.999, 1.0]])


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many of ``count`` answers were right."""

    right: int
    count: int

    @classmethod
    def of(cls, right: npt.NDArray[np.bool_]) -> "Accuracy":
        """Of answers that were right or not (n,)."""
        return cls(right=int(right.sum()), count=len(right))

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.right / self.count

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval of Wilson 1927, which also holds near 0 and 1."""
        interval = stats.binomtest(self.right, self.count).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """The answers whose confidence lies from ``low`` to ``high``, and its mean."""

    low: float
    high: float
    confidence: float
    accuracy: Accuracy


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence and accuracy lie apart: in one number (see `calibration_error`), and by bins that hold an answer."""

    error: float
    bins: list[ConfidenceBin]

    @classmethod
    def of(cls, predicted: Floats, labels: Labels) -> "Calibration":
        """Of the probabilities ``predicted`` (n, 10)."""
        confidence, right = predicted.max(axis=1).astype(np.float64), predicted.argmax(axis=1) == labels
        places = np.clip(np.digitize(confidence, _CONFIDENCE_EDGES) - 1, 0, len(_CONFIDENCE_EDGES) - 2)
        bins = [
            ConfidenceBin(
                low=float(_CONFIDENCE_EDGES[place]),
                high=float(_CONFIDENCE_EDGES[place + 1]),
                confidence=float(confidence[places == place].mean()),
                accuracy=Accuracy.of(right[places == place]),
            )
            for place in np.unique(places)
        ]
        return cls(error=calibration_error(predicted, labels), bins=bins)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Images of one kind: how many were answered right, and how many that would be by what a server expects without labels."""

    name: str
    accuracy: Accuracy
    expected: float

    @classmethod
    def of(cls, name: str, images: Floats, predicted: Floats, labels: Labels, profile: Profile) -> "Slice":
        """Of ``images`` (n, 28, 28) and the calibrated probabilities ``predicted`` for them (n, 10)."""
        expected = float(expected_correct(profile, profile_statistics(images, predicted)).mean())
        return cls(name=name, accuracy=Accuracy.of(predicted.argmax(axis=1) == labels), expected=expected)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test image (28, 28), counted from 0, that was taken for another digit with ``probability``."""

    number: int
    image: Floats
    label: int
    answer: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was measured. ``confusion`` (10, 10) counts images by their label, and by the answer they got.

    ``shifted`` has the strongest mistakes first in ``mistakes``, and the shifts in their own order.
    """

    confusion: npt.NDArray[np.int64]
    before: Calibration
    after: Calibration
    mistakes: list[Mistake]
    clean: Slice
    shifted: list[Slice]

    @property
    def by_class(self) -> list[Accuracy]:
        """One for each label."""
        return [Accuracy(right=int(row[label]), count=int(row.sum())) for label, row in enumerate(self.confusion)]

    def estimate_errors(self, validation_accuracy: float) -> tuple[float, float]:
        """Mean distance from the accuracy over all shifts: of the expected accuracy, and of one that is taken to stay."""
        truth = np.array([each.accuracy.share for each in self.shifted])
        expected = np.array([each.expected for each in self.shifted])
        return float(np.abs(expected - truth).mean()), float(np.abs(validation_accuracy - truth).mean())


def measure(bundle: Bundle, images: Floats, labels: Labels) -> Findings:
    """Ask the model of ``bundle`` for ``images`` (n, 28, 28), and for the same under each shift, saying what came of it."""
    logits = onnx_logits(bundle.onnx_path, images)
    predicted = probabilities(logits, bundle.temperature)
    shifted = []
    for each in _shifted(bundle, images, labels):
        print(f"{each.name}: accuracy {each.accuracy.share:.2%}, expected {each.expected:.2%}", flush=True)
        shifted.append(each)
    return Findings(
        confusion=_confusion(predicted, labels),
        before=Calibration.of(probabilities(logits, 1.0), labels),
        after=Calibration.of(predicted, labels),
        mistakes=_mistakes(images, predicted, labels),
        clean=Slice.of("none", images, predicted, labels, bundle.profile),
        shifted=shifted,
    )


def _shifted(bundle: Bundle, images: Floats, labels: Labels) -> Iterator[Slice]:
    for shift in SHIFTS:
        shifted = shift.apply(images)
        predicted = probabilities(onnx_logits(bundle.onnx_path, shifted), bundle.temperature)
        yield Slice.of(shift.name, shifted, predicted, labels, bundle.profile)


def _confusion(predicted: Floats, labels: Labels) -> npt.NDArray[np.int64]:
    counts = np.bincount(labels * len(LABELS) + predicted.argmax(axis=1), minlength=len(LABELS) ** 2)
    return counts.reshape(len(LABELS), len(LABELS))


def _mistakes(images: Floats, predicted: Floats, labels: Labels) -> list[Mistake]:
    answers, confidence = predicted.argmax(axis=1), predicted.max(axis=1)
    wrong = np.flatnonzero(answers != labels)
    # Stable, so that equals stay in their order and a page is the same each time.
    chosen = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN_MISTAKES]
    return [
        Mistake(
            number=int(place),
            image=images[place],
            label=int(labels[place]),
            answer=int(answers[place]),
            probability=float(confidence[place]),
        )
        for place in chosen
    ]
