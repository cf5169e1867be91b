"""The page of a study, from its findings: no figure and no sentence that another run would make false.

python -m model.study.page docs/study.md      # make the page and its plots again, from docs/study/*.csv
"""

import argparse
from pathlib import Path

from model.study import tables
from model.study.comparisons import batches, dropout, optimizers, rates
from model.study.costs import gradients, memory
from model.study.findings import Findings
from model.study.markdown import paragraph
from model.study.plan import BATCH_SIZE, DROPOUT_RATE, GRID_SEED, SEEN_IMAGES, seeds
from model.study.sentences import best, listed


def publish(findings: Findings, page: Path) -> None:
    """Write the tables into the folder of ``page``'s name beside it, and plots and page from what they hold."""
    tables.write(page.with_suffix(""), findings)
    rewrite(page)


def rewrite(page: Path) -> None:
    """Make plots and page again from the tables."""
    from model.study import plots  # noqa: PLC0415 -- matplotlib wants a second, and a folder to write to, of whoever imports it

    findings = tables.read(page.with_suffix(""))
    plots.draw(findings, page.with_suffix(""))
    page.write_text(text(findings, page.stem))


def text(findings: Findings, folder: str) -> str:
    """The page, whose plots and tables are in ``folder``."""
    sections = (_made, optimizers, rates, batches, dropout, gradients, memory, _limits)
    return "\n\n".join(block for section in sections for block in section(findings, folder) if block) + "\n"


def _made(findings: Findings, folder: str) -> list[str]:
    settings, facts = findings.settings, findings.facts
    revisions = listed([f"`{revision[:12]}`" for revision in facts["revisions"]])
    return [
        "# Study: optimizers, batch sizes, dropout",
        paragraph(
            f"Made by `{facts['command']}` on {facts['date']}, with its plots and its tables ([runs]({folder}/{tables.RUNS}),",
            f"[curves]({folder}/{tables.CURVES}), [facts]({folder}/{tables.STUDY})): all figures are from that run, and the",
            "figures chose the sentences.",
            f"{len(findings.results)} training runs took {facts['elapsed_minutes']:.1f} minutes, and",
            f"{facts['processor_minutes']:.1f} minutes of a processor for training alone, {facts['jobs']} at a time on",
            f"{facts['processors']} cores ({facts['processor']}), of which a run had",
            f"{100 * facts['core_share']:.0f} % of one while it",
            f"trained. torch {facts['torch']}; code {revisions}; data `{facts['data_digest'][:12]}`.",
        ),
        paragraph(
            f"The network has one hidden layer, of {settings.hidden_size}, and is trained on",
            f"{settings.train_images:,} images at a",
            f"constant learning rate, with dropout {DROPOUT_RATE:g} and batches of {BATCH_SIZE} where nothing",
            "else is said; a test",
            "holds that its losses are those of `python -m model fit`. Figures are means over the seeds",
            f"{seeds(settings)[0]} to {seeds(settings)[-1]} with 95 % intervals over seeds (Student's t).",
            "Differences are taken seed",
            "by seed, since runs of one seed start from the same weights and see the images in the same order; those in one",
            "table hold together (Bonferroni). Accuracies in tables are those on the 10,000 test images after the last epoch: no",
            f"epoch is chosen. Learning rates are chosen on validation images, by runs of seed {GRID_SEED}.",
            "Bands in plots go from the",
            "least to the greatest of the seeds; training figures are of",
            f"{min(SEEN_IMAGES, settings.train_images):,} training images,",
            "without dropout.",
        ),
    ]


def _limits(findings: Findings, folder: str) -> list[str]:
    del folder
    accuracy = best(list(findings.optimizers().values())).accuracy.mean / 100
    error = 100 * (accuracy * (1 - accuracy) / 10_000) ** 0.5
    return [
        "## What this does not tell",
        paragraph(
            "The intervals are over seeds: they say what another seed would give, not what other images would. For the best",
            f"optimizer's accuracy, the standard error of 10,000 test images is {error:.2f} points. The best of",
            "several means is,",
            "by being chosen, a little too high. Rates half a decade apart, each judged by one run, may",
            "miss a better one; a",
            "schedule could change the order. Wall times are also of what else the machine did, which is why tables tell",
            "processor time, of a process of one thread.",
        ),
    ]


def main() -> None:
    """Make a page again."""
    parser = argparse.ArgumentParser(description="Make a study's page and plots again from its tables.")
    parser.add_argument("page", type=Path, help="The page; its tables are in the folder of its name beside it.")
    rewrite(parser.parse_args().page)


if __name__ == "__main__":
    main()
