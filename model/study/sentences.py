"""What can be said of figures, whichever they are: each sentence is chosen by the numbers it holds. Pure."""

import statistics
from collections.abc import Sequence
from itertools import pairwise

from model.study.findings import Findings, Group
from model.study.plan import BATCH_SIZE
from model.study.statistics import Interval

# Validation accuracies whose first sight is timed; the highest that two methods reach is told.
_REACHED = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985)


def points(value: Interval) -> str:
    """An interval of points."""
    return f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f})"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def best(groups: Sequence[Group]) -> Group:
    """The group of highest mean accuracy on the test images."""
    return max(groups, key=lambda group: group.accuracy.mean)


def ranking(groups: Sequence[Group], prefix: str = "") -> str:
    """Who is best, who cannot be told from it, and who is surely behind."""
    first = best(groups)
    leads = {prefix + group.label: first.minus(group, len(groups) - 1) for group in groups if group is not first}
    next_ = min(leads, key=lambda label: leads[label].mean)
    near = [label for label, lead in leads.items() if lead.sign <= 0]
    far = [label for label, lead in leads.items() if lead.sign > 0]
    lead = leads[next_]
    text = [
        f"The highest mean is that of {prefix}{first.label}, {first.accuracy.mean:.2f} %;",
        f"the next is {next_}, {lead.mean:.2f} points behind ({lead.low:+.2f} to {lead.high:+.2f}).",
    ]
    if near:
        text.append(f"By these seeds it cannot be told from {listed(near)}: the interval of the difference holds 0.")
    if far:
        text.append(f"It is ahead of {listed(far)} by more than seeds explain.")
    return " ".join(text)


def versus(one: Group, other: Group) -> str:
    """How two groups compare."""
    difference = one.minus(other)
    verdict = "more than seeds explain" if difference.sign else "which seeds alone may explain"
    direction = "above" if difference.mean >= 0 else "below"
    return (
        f"{one.label} ends {abs(difference.mean):.2f} points {direction} {other.label} "
        f"({difference.low:+.2f} to {difference.high:+.2f}), {verdict}."
    )


def gradient_descent(findings: Findings) -> str:
    """What a step an epoch comes to beside the same number of images in small batches."""
    groups = findings.optimizers()
    full, small = groups["gd"], groups["sgd"]
    end = group_mean(full, "validation_accuracy", -1)
    means = [group_mean(small, "validation_accuracy", index) for index in range(small.evaluations)]
    first = next((index for index, mean in enumerate(means) if mean >= end), None)
    text = (
        f"An epoch of gradient descent is one step. It had {full.trial.epochs} epochs, {findings.settings.gd_factor} times as "
        f"many as the others, and ended at {100 * end:.2f} % on validation images."
    )
    if first is None:
        return f"{text} {small.label} in batches of {BATCH_SIZE} did not get there in its {small.trial.epochs} epochs."
    return f"{text} {small.label} in batches of {BATCH_SIZE} had that after {epochs(small.median('epoch', first))}."


def epochs(number: float) -> str:
    """A number of them, in words."""
    return "1 epoch" if number == 1 else f"{number:.2g} epochs"


def soonest(group: Group, accuracy: float) -> str:
    """Epochs, steps and time until a validation accuracy, by the median of the seeds; nothing where fewer than half got there."""
    found = [point for point in group.reaching(accuracy) if point]
    if 2 * len(found) <= len(group.results):
        return "not reached"
    epoch, step, seconds = (
        statistics.median(getattr(point, name) for point in found) for name in ("epoch", "step", "processor_seconds")
    )
    return f"{epochs(epoch)}, {step:,.0f} steps, {seconds:.1f} s"


def reached(findings: Findings) -> float:
    """The highest of some validation accuracies that two methods reach with most seeds, or the lowest of them."""
    groups = findings.optimizers().values()

    def count(accuracy: float) -> int:
        return sum(2 * sum(point is not None for point in group.reaching(accuracy)) > len(group.results) for group in groups)

    return max((accuracy for accuracy in _REACHED if count(accuracy) >= 2), default=_REACHED[0])


def overfitting(groups: Sequence[Group]) -> str:
    """Whose validation loss had its least before the end, and rose by a tenth."""
    risen = []
    for group in groups:
        means = [group_mean(group, "validation_loss", index) for index in range(group.evaluations)]
        least = min(range(len(means)), key=means.__getitem__)
        if means[-1] > 1.1 * means[least]:
            after = epochs(group.median("epoch", least))
            risen.append(f"{group.label} ({means[least]:.3f} after {after}, {means[-1]:.3f} at the end)")
    if not risen:
        return "No validation loss ended a tenth or more above its least."
    return f"The validation loss of {listed(risen)} ended a tenth or more above its least: overfitting, by loss."


def group_mean(group: Group, name: str, index: int) -> float:
    """A figure of an evaluation, the mean over seeds."""
    return statistics.fmean(getattr(result.points[index], name) for result in group.results)


def edges(findings: Findings) -> str:
    """How far grids were extended, and whether an optimum is still on an edge."""
    grids = findings.grids()
    tried = sum(len(grid.losses) for grid in grids.values())
    extended = sum(len(grid.losses) > 3 for grid in grids.values())
    left = [f"{kind.method} with batches of {kind.batch_size:,}" for kind, grid in grids.items() if grid.is_edge]
    text = f"{tried} rates were tried in {len(grids)} grids, {extended} of which were extended beyond the first three rates"
    return (
        f"{text}; the best of each has a worse one on either side." if not left else f"{text}; on an edge still: {listed(left)}."
    )


def rate_trend(findings: Findings) -> str:
    """How the best rate goes with the batch size."""
    found = [(size, group.trial.learning_rate) for size, group in findings.batches().items()]
    (small, low), (large, high) = found[0], found[-1]
    rates = [rate for _, rate in found]
    way = "falling nowhere in between" if rates == sorted(rates) else "with a fall in between"
    return f"The best rate is {low:g} with batches of {small:,} and {high:g} with {large:,}, {way}."


def dropout_gap(groups: Sequence[Group]) -> str:
    """What dropout does to the gap between training and validation."""
    gaps = [100 * (group.last("train_accuracy").mean - group.last("validation_accuracy").mean) for group in groups]
    is_shrinking = all(before > after for before, after in pairwise(gaps))
    tail = "smaller at each rate than at the one before" if is_shrinking else "not smaller at each rate than at the one before"
    return (
        f"Accuracy on training images less that on validation images is {gaps[0]:+.2f} points with dropout {groups[0].label} and "
        f"{gaps[-1]:+.2f} with {groups[-1].label}: {tail}."
    )
