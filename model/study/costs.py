"""The parts of the page about what a step costs: time and memory."""

from model.study.findings import Findings
from model.study.markdown import paragraph, table
from model.study.memory import Memory
from model.study.sentences import listed


def gradients(findings: Findings, folder: str) -> list[str]:
    """A batch at once, and image by image."""
    found = findings.gradients
    rows = [
        [
            row.images,
            f"{row.vectorised_ms:.2f}",
            f"{row.loop_ms:.2f}",
            f"{row.ratio:.1f} ({row.least_ratio:.1f} to {row.greatest_ratio:.1f})",
            f"{row.difference:.1g}",
        ]
        for row in found
    ]
    most = max(found, key=lambda row: row.ratio)
    return [
        "## Vectorised and by a loop over images",
        table(["images", "vectorised, ms", "loop, ms", "ratio (least to greatest)", "difference"], rows),
        paragraph(
            "The gradient of a batch in one pass, and as the mean of the gradients that a Python loop takes image by image; one",
            "thread, both ways in turns, medians over rounds. The difference is the largest of any element, as a share of the",
            f"largest one. The loop takes up to {most.ratio:.0f} times as long, with {most.images} images.",
        ),
        f"![Times of a gradient, and memory of a step]({folder}/costs.png)",
    ]


def memory(findings: Findings, folder: str) -> list[str]:
    """Of a step, by batch size."""
    del folder
    if not findings.memory:
        return ["## Memory", "Not measured: this system does not tell a process its peak."]
    rows = [
        [
            f"{row.batch_size:,}" + (f", in parts of {row.chunk:,}" if row.chunk < row.batch_size else ""),
            f"{row.median_mib:,.1f} ({row.least_mib:,.1f} to {row.greatest_mib:,.1f})",
            f"{row.baseline_mib:,.0f}",
        ]
        for row in findings.memory
    ]
    whole = findings.memory[-1]
    ratios = [f"{_ratio(whole, row)} times that of {name}" for row, (name, *_) in zip(findings.memory[:-1], rows, strict=False)]
    return [
        "## Memory",
        table(["images a step", "peak, MiB", "baseline, MiB"], rows),
        paragraph(
            "What a fresh process holds at most in two steps of Adam, beyond the baseline of libraries, data and weights: the",
            "batch, activations, gradients and Adam's state; medians (least to greatest) of as many processes",
            "as there were rounds,",
            f"{whole.rounds}. The peak of the whole training set in one pass is {listed(ratios)} images. In parts, the gradient",
            "is the same but for rounding.",
        ),
    ]


def _ratio(whole: Memory, row: Memory) -> str:
    return f"{whole.median_mib / max(row.median_mib, 0.1):.1f}"
