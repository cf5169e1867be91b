"""The quality report's page: what was measured, as one HTML file that needs nothing else."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from model.bundle import LABELS, Bundle, Profile
from model.report_findings import Accuracy, Calibration, Findings, Mistake, Slice
from model.report_plots import LEAST_ANSWERS, draw_calibration, draw_classes, draw_digit, draw_profile, draw_shifts

_TEMPLATE = Path(__file__).with_name("report.html")


def render(bundle: Bundle, findings: Findings, data_digest: str) -> str:
    """The page on ``bundle``; ``data_digest`` is that of the data it was measured with."""
    return Template(_TEMPLATE.read_text()).substitute(
        title=escape(title(bundle)),
        images=f"{findings.clean.accuracy.count:,}",
        tiles=_tiles(bundle, findings),
        lineage=_lineage(bundle, data_digest),
        confusion=_confusion(findings),
        classes_plot=draw_classes(findings),
        classes=_classes(findings),
        temperature=f"{bundle.temperature:.3f}",
        calibration_plots=_figures(draw_calibration(findings.before, findings.after)),
        least_answers=LEAST_ANSWERS,
        calibration=_calibration("before", findings.before) + _calibration("after", findings.after),
        mistakes_told=_mistakes_told(findings),
        mistakes="".join(_mistake(each) for each in findings.mistakes),
        shifts_plot=draw_shifts(findings),
        shifts_told=_shifts_told(bundle, findings),
        shifts=_shifts(findings),
        profile_images=f"{bundle.profile.images:,}",
        profile_plots=_figures(draw_profile(bundle.profile)),
        profile=_profile(bundle.profile),
        metrics=_table("Figures in bundle.json", ("figure", "value"), [(name, f"{v:.6g}") for name, v in bundle.metrics.items()]),
    )


def title(bundle: Bundle) -> str:
    """What the model is called: its name and version in the registry, or the beginning of its digest."""
    registration = bundle.registration
    return f"{registration.name}, version {registration.version}" if registration else f"Unpublished model {bundle.version}"


def _tiles(bundle: Bundle, findings: Findings) -> str:
    accuracy, by_class = findings.clean.accuracy, findings.by_class
    weakest = min(LABELS, key=lambda label: by_class[label].share)
    worst = min(findings.shifted, key=lambda each: each.accuracy.share)
    tiles = [
        ("accuracy", _share(accuracy.share), _interval(accuracy)),
        ("weakest class", f"{weakest}: {_share(by_class[weakest].share)}", _interval(by_class[weakest])),
        (
            "calibration error",
            f"{findings.after.error:.4f}",
            f"{findings.before.error:.4f} before the temperature of {bundle.temperature:.3f}",
        ),
        (
            f"worst of {len(findings.shifted)} shifts",
            _share(worst.accuracy.share),
            f"{worst.name}; {_share(worst.expected)} expected",
        ),
    ]
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>" for name, value, more in tiles
    )


def _lineage(bundle: Bundle, data_digest: str) -> str:
    lineage, registration = bundle.lineage, bundle.registration
    rows = {
        "registered as": f"{registration.name}, version {registration.version}" if registration else "not published",
        "MLflow run": lineage.run_id or "none",
        "git revision": lineage.git_revision or "unknown",
        "data": lineage.data_digest,
        "data of this report": "the same"
        if data_digest == lineage.data_digest
        else f"other than it was trained on: {data_digest}",
        "split seed": str(lineage.split_seed),
        "network": ", ".join(f"{name} {value}" for name, value in bundle.network.items()),
        "temperature": f"{bundle.temperature:.6g}",
        "ONNX beside torch": f"logits differ by at most {bundle.onnx_max_abs_difference:.2g}",
        "digest of bundle.json": bundle.digest,
    } | {f"digest of {name}": digest for name, digest in bundle.files.items()}
    return _table("Where the model comes from", None, rows.items(), kind="lineage")


def _confusion(findings: Findings) -> str:
    counts = findings.confusion
    totals = counts.sum(axis=1)
    largest = max((counts[row, column] for row in LABELS for column in LABELS if row != column), default=1)
    head = "".join(f'<th scope="col">{label}</th>' for label in LABELS)
    body = ""
    for row in LABELS:
        cells = "".join(
            _confusion_cell(int(counts[row, column]), int(totals[row]), int(largest), is_right=row == column) for column in LABELS
        )
        body += f'<tr><th scope="row">{row}</th>{cells}<td>{totals[row]:,}</td></tr>'
    return _wide(
        "Confusion matrix",
        '<table class="confusion"><caption>Test images by label (row) and answer (column)</caption><thead><tr>'
        f'<th scope="col">label</th>{head}<th scope="col">images</th></tr></thead><tbody>{body}</tbody></table>',
    )


def _confusion_cell(count: int, total: int, largest: int, *, is_right: bool) -> str:
    """Mistakes are shaded by the root of their number, so that one is still seen beside thirty."""
    if not count:
        return '<td class="none">0</td>'
    colour = (
        f"--good) / {0.35 * count / total:.2f}" if is_right else f"--bad) / {0.12 + 0.4 * (count / max(largest, 1)) ** 0.5:.2f}"
    )
    share = 100 * count / total
    return f'<td style="background: rgb(var({colour})">{count:,} <small>{share:.{1 if is_right else 2}f} %</small></td>'


def _classes(findings: Findings) -> str:
    rows = []
    for label, accuracy in zip(LABELS, findings.by_class, strict=True):
        wrong = [(int(count), answer) for answer, count in enumerate(findings.confusion[label]) if answer != label and count]
        taken = ", ".join(f"{answer} ({count})" for count, answer in sorted(wrong, key=lambda each: (-each[0], each[1]))[:3])
        rows.append(
            (str(label), f"{accuracy.count:,}", f"{accuracy.right:,}", _share(accuracy.share), _interval(accuracy), taken)
        )
    head = ("class", "images", "right", "accuracy", "95 % interval", "most often taken for")
    return _table("Accuracy by class", head, rows)


def _calibration(when: str, calibration: Calibration) -> str:
    rows = [
        (
            f"{each.low:g} to {each.high:g}",
            f"{each.accuracy.count:,}",
            f"{each.confidence:.4f}",
            f"{each.accuracy.share:.4f}",
            f"{each.accuracy.bounds[0]:.4f} to {each.accuracy.bounds[1]:.4f}",
        )
        for each in calibration.bins
    ]
    caption = f"{when.capitalize()} the temperature: calibration error {calibration.error:.4f}"
    return _table(caption, ("confidence", "images", "mean", "accuracy", "95 % interval"), rows)


def _mistakes_told(findings: Findings) -> str:
    wrong = findings.clean.accuracy.count - findings.clean.accuracy.right
    if not wrong:
        return "There are none."
    shown = len(findings.mistakes)
    which = "All of them" if shown == wrong else f"The {shown} of {wrong:,} that the model was surest of"
    return f"{which}, the surest first; numbers count the test images from 0."


def _mistake(mistake: Mistake) -> str:
    picture = base64.b64encode(draw_digit(mistake.image)).decode()
    told = (
        f"test image {mistake.number}: a {mistake.label} taken for a {mistake.answer} with probability {mistake.probability:.3f}"
    )
    return (
        f'<li><figure><img src="data:image/png;base64,{picture}" width="28" height="28" alt="{told}">'
        f"<figcaption>{mistake.label}, taken for <b>{mistake.answer}</b><br>p {mistake.probability:.3f}<br>"
        f'<span class="soft">no. {mistake.number:,}</span></figcaption></figure></li>'
    )


def _shifts_told(bundle: Bundle, findings: Findings) -> str:
    validation = bundle.metrics["validation_accuracy"]
    estimate, constant = findings.estimate_errors(validation)
    return (
        f"Over the {len(findings.shifted)} shifts it is off by {100 * estimate:.1f} points on average; who took the validation "
        f"accuracy of {_share(validation)} to stay would be off by {100 * constant:.1f}."
    )


def _shifts(findings: Findings) -> str:
    rows = [_shift(each) for each in (findings.clean, *findings.shifted)]
    return _table("Accuracy under each shift", ("shift", "accuracy", "95 % interval", "expected", "difference, points"), rows)


def _shift(each: Slice) -> tuple[str, ...]:
    error = 100 * (each.expected - each.accuracy.share)
    return each.name, _share(each.accuracy.share), _interval(each.accuracy), _share(each.expected), f"{error:+.2f}"


def _profile(profile: Profile) -> str:
    rows = [("class", str(label), f"{count:,}") for label, count in zip(LABELS, profile.class_counts, strict=True)]
    for name, histogram in profile.histograms.items():
        pairs = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
        rows += [(name, f"{low:g} to {high:g}", f"{count:,}") for low, high, count in pairs]
    return _table("The reference profile", ("statistic", "bin", "images"), rows)


def _table(caption: str, head: Sequence[str] | None, rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """A table whose rows begin with their heading; all texts are escaped."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head or ())
    body = ""
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(text)}</td>" for text in rest)
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    above = f"<thead><tr>{columns}</tr></thead>" if head else ""
    opening = f'<table class="{kind}">' if kind else "<table>"
    return _wide(caption, f"{opening}<caption>{escape(caption)}</caption>{above}<tbody>{body}</tbody></table>")


def _wide(label: str, content: str) -> str:
    """What scrolls by itself, by keyboard too, where the window is narrow."""
    return f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0">{content}</div>\n'


def _figures(drawn: Iterable[str]) -> str:
    return "".join(f"<figure>{each}</figure>\n" for each in drawn)


def _share(share: float) -> str:
    return f"{100 * share:.2f} %"


def _interval(accuracy: Accuracy) -> str:
    low, high = accuracy.bounds
    return f"{100 * low:.2f} to {100 * high:.2f} %"
