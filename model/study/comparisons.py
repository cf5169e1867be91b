"""The parts of the page that compare runs: optimizers, learning rates, batch sizes, dropout."""

from collections.abc import Sequence

from model.study.findings import Findings, Group
from model.study.markdown import paragraph, table
from model.study.plan import BATCH_METHOD, DROPOUT_METHOD, DROPOUT_RATE, METHODS
from model.study.sentences import (
    best,
    dropout_gap,
    edges,
    epochs,
    gradient_descent,
    listed,
    overfitting,
    points,
    ranking,
    rate_trend,
    reached,
    soonest,
    versus,
)


def optimizers(findings: Findings, folder: str) -> list[str]:
    """Who learns best, and how fast."""
    named = findings.optimizers()
    groups, goal = list(named.values()), reached(findings)
    heads = [
        "",
        "rate",
        "epochs",
        "steps",
        "test accuracy, %",
        "s.d.",
        "less the best, points",
        f"to {100 * goal:g} % on validation",
    ]
    rows = [
        [
            group.label,
            f"{group.trial.learning_rate:g}",
            group.trial.epochs,
            f"{findings.settings.steps(group.trial):,}",
            *_accuracy(group),
            _behind(groups, group),
            soonest(group, goal),
        ]
        for group in groups
    ]
    pairs = (("momentum", "sgd"), ("nesterov", "momentum"), ("adam", "rmsprop"))
    return [
        "## Optimizers",
        table(heads, rows),
        paragraph(
            f"The last column is the first evaluation, of {groups[0].trial.evaluations} an epoch at most, that reached so",
            "much: medians over seeds of epochs, steps and processor time, where most seeds reached it.",
        ),
        paragraph(ranking(groups)),
        paragraph(gradient_descent(findings)),
        paragraph(*(versus(named[one], named[other]) for one, other in pairs), "Each of these intervals holds by itself."),
        paragraph(overfitting(groups), *_diverged(groups)),
        f"![Loss over epochs, wall time and steps, on training and on validation images]({folder}/optimizers-loss.png)",
        f"![Accuracy over epochs, wall time and steps, on training and on validation images]({folder}/optimizers-accuracy.png)",
    ]


def rates(findings: Findings, folder: str) -> list[str]:
    """What rates were tried."""
    return [
        "## Learning rates",
        paragraph(
            "Rates are half a decade apart, and judged by the validation loss at the end of one run, as long as those it is",
            "chosen for (the first epoch alone of single images). Where the best is on an edge, the grid is extended.",
            edges(findings),
        ),
        f"![Validation loss by learning rate, for each method and batch size]({folder}/rates.png)",
    ]


def batches(findings: Findings, folder: str) -> list[str]:
    """From single images to the whole training set."""
    groups, most = list(findings.batches().values()), findings.settings.batch_epochs
    budget = min(group.median("processor_seconds") for group in groups)
    timed = {group.label: group.within(budget) for group in groups}
    heads = ["batch", "rate", "steps", f"test accuracy after {epochs(most)}, %", "s.d.", "less the best, points", "s an epoch"]
    rows = [
        [
            group.label,
            f"{group.trial.learning_rate:g}",
            f"{findings.settings.steps(group.trial):,}",
            *_accuracy(group),
            _behind(groups, group),
            f"{group.median('processor_seconds') / most:.2f}",
            f"{timed[group.label].mean:.2f} ± {timed[group.label].high - timed[group.label].mean:.2f}",
        ]
        for group in groups
    ]
    quickest = max(timed, key=lambda label: timed[label].mean)
    return [
        "## Batch sizes",
        paragraph(
            f"{METHODS[BATCH_METHOD].label}, each batch size at a rate of its own from a grid. All get {epochs(most)}, and so as",
            "many images; the last column is what all get in equal processor time.",
        ),
        table([*heads, f"validation accuracy within {budget:.1f} s, %"], rows),
        paragraph(
            ranking(groups, "batches of "),
            f"In equal time, {budget:.1f} s of a processor, the highest mean is that of batches of {quickest},",
            f"{timed[quickest].mean:.2f} % on validation images.",
            rate_trend(findings),
            *_diverged(groups),
        ),
        f"![Loss by batch size, on training and on validation images]({folder}/batches-loss.png)",
        f"![Accuracy by batch size, on training and on validation images]({folder}/batches-accuracy.png)",
    ]


def dropout(findings: Findings, folder: str) -> list[str]:
    """What it costs and brings."""
    groups = list(findings.dropouts().values())
    rows = [
        [
            group.label,
            *_accuracy(group),
            _behind(groups, group),
            f"{100 * group.last('train_accuracy').mean:.2f}",
            f"{100 * group.last('validation_accuracy').mean:.2f}",
            f"{group.last('train_loss').mean:.4f}",
            f"{group.last('validation_loss').mean:.4f}",
        ]
        for group in groups
    ]
    heads = ["dropout", "test accuracy, %", "s.d.", "less the best, points"]
    heads += ["training accuracy, %", "validation accuracy, %", "training loss", "validation loss"]
    return [
        "## Dropout",
        paragraph(
            f"{METHODS[DROPOUT_METHOD].label} at {groups[0].trial.learning_rate:g}, the rate that was best with dropout",
            f"{DROPOUT_RATE:g}; {epochs(groups[0].trial.epochs)}.",
        ),
        table(heads, rows),
        paragraph(ranking(groups, "dropout "), dropout_gap(groups), *_diverged(groups)),
        f"![Accuracy and loss at the end by dropout rate]({folder}/dropout.png)",
    ]


def _accuracy(group: Group) -> list[str]:
    found = group.accuracy
    return [f"{found.mean:.2f} ± {found.high - found.mean:.2f}", f"{found.deviation:.2f}"]


def _behind(groups: Sequence[Group], group: Group) -> str:
    first = best(groups)
    return "" if group is first else points(group.minus(first, len(groups) - 1))


def _diverged(groups: Sequence[Group]) -> list[str]:
    found = [f"{group.diverged} of {group.label}" for group in groups if group.diverged]
    return [f"Runs whose loss was no number in the end: {listed(found)}."] if found else []
