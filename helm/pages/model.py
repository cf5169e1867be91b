"""How the model does: what it answers, what it is asked beside its reference, and how often it is right."""

from helm.pages.panel import RATE, Page, Panel, R

_VERSION = f'{R},version=~"$version"'
# Over an hour.
_IMAGES = f"increase(chiffre_predictions_total{{{_VERSION}}}[1h])"
_CORRECT = f"increase(chiffre_expected_correct_total{{{_VERSION}}}[1h])"

PAGE = Page(
    name="model",
    title="Chiffre: model",
    variables=(
        ("version", f"label_values(chiffre_model_info{{{R}}}, version)"),
        ("statistic", f"label_values(chiffre_reference_images{{{R}}}, statistic)"),
    ),
    rows={
        "Predictions": (
            Panel(
                title="Labels given",
                description="Share of each label over an hour, by version.",
                queries=(
                    (
                        f"sum by (version, label) ({_IMAGES}) / on (version) group_left sum by (version) ({_IMAGES})",
                        "{{label}} (version {{version}})",
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Mean confidence",
                description="The calibrated probability of the label that was given, over an hour.",
                queries=((f"sum by (version) ({_CORRECT}) / sum by (version) ({_IMAGES})", "version {{version}}"),),
                unit="percentunit",
            ),
            Panel(
                title="Images",
                description="A second, by version: a canary's share shows here.",
                queries=((f"sum by (version) (rate(chiffre_predictions_total{{{_VERSION}}}{RATE}))", "version {{version}}"),),
            ),
        ),
        "Drift": (
            Panel(
                title="$statistic of images beside the bundle's reference",
                description="Share of images in each bin over 6 hours, and of the reference, which validation images made.",
                queries=(
                    (f'chiffre:drift:share{{{_VERSION},statistic="$statistic",window="6h"}}', "{{bin}}"),
                    (f'chiffre:drift:reference_share{{{_VERSION},statistic="$statistic"}}', "{{bin}}, reference"),
                ),
                unit="percentunit",
                kind="barchart",
                width=12,
            ),
            Panel(
                title="Distance from the reference",
                description="Score of each statistic over an hour; 1 is chance, beyond the bound is the alarm.",
                queries=(
                    (f'chiffre:drift:score{{{_VERSION},window="1h"}}', "{{statistic}} (version {{version}})"),
                    (f'chiffre:drift:threshold{{{R},window="1h"}}', "bound"),
                ),
                width=12,
            ),
        ),
        "Accuracy": (
            Panel(
                title="Estimated from confidence",
                description="Expected accuracy over an hour with twice its sampling error; not given while inputs drift.",
                queries=(
                    (f"chiffre:estimate:accuracy{{{_VERSION}}}", "version {{version}}"),
                    (f"chiffre:estimate:accuracy{{{_VERSION}}} - 2 * chiffre:estimate:sampling_error{{{_VERSION}}}", "from"),
                    (f"chiffre:estimate:accuracy{{{_VERSION}}} + 2 * chiffre:estimate:sampling_error{{{_VERSION}}}", "to"),
                    (f"chiffre:estimate:validation_accuracy{{{_VERSION}}}", "validation images, version {{version}}"),
                ),
                unit="percentunit",
            ),
            Panel(
                title="By feedback",
                description="Share of right answers among those asked about at random, over a day, with Wilson's interval.",
                queries=(
                    (f'chiffre:feedback_accuracy{{{_VERSION},source="asked"}}', "version {{version}}"),
                    (f'chiffre:feedback_accuracy_lower{{{_VERSION},source="asked"}}', "from"),
                    (f'chiffre:feedback_accuracy_upper{{{_VERSION},source="asked"}}', "to"),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Recall by feedback",
                description="Of the images of each digit that were asked about at random, those that were told to be it.",
                queries=((f'chiffre:feedback_recall{{{_VERSION},source="asked"}}', "{{label}} (version {{version}})"),),
                unit="percentunit",
            ),
            Panel(
                title="Images of feedback",
                description="Over a day, by source; what was volunteered estimates nothing.",
                queries=((f"chiffre:feedback_images{{{_VERSION}}}", "{{source}} (version {{version}})"),),
                width=12,
            ),
            Panel(
                title="Feedback that is not counted",
                description="A second: on answers of another version, and what came faster than it is taken.",
                queries=(
                    (
                        f"sum by (source) (rate(chiffre_feedback_other_version_total{{{_VERSION}}}{RATE}))",
                        "other version, {{source}}",
                    ),
                    (f"sum(rate(chiffre_feedback_limited_total{{{_VERSION}}}{RATE}))", "too fast"),
                ),
                width=12,
            ),
        ),
    },
)
