from pathlib import Path

import pytest
import yaml

from model.bundle import Bundle
from watching.rules import DRIFT, RulesError, read_rules, seconds


def test_the_rules_numbers_are_read_from_the_chart() -> None:
    rules = read_rules()
    assert rules.interval_seconds == 30
    assert list(rules.windows.values()) == [480, 3600, 21_600]
    assert set(rules.thresholds) == set(rules.windows)
    assert min(rules.design_effects.values()) > 1


def test_each_statistic_of_a_bundle_has_a_design_effect_and_each_rule_a_window(bundle: Bundle) -> None:
    rules = read_rules()
    assert set(rules.design_effects) == {"class", *bundle.profile.histograms}
    counted = {
        rule["labels"]["window"]
        for rule in yaml.safe_load(DRIFT.read_text())["rules"]
        if rule.get("record") == "chiffre:drift:images"
    }
    assert counted == set(rules.windows)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("chiffre:drift:threshold", "chiffre:drift:bound", "expected rules that state chiffre:drift:threshold"),
        ("vector(100)", "vector(time())", "least_images: expected vector"),
        ("interval: 30s", "interval: often", "duration: expected a number"),
    ],
)
def test_rules_that_say_something_else_are_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "drift.yaml"
    path.write_text(DRIFT.read_text().replace(old, new))
    with pytest.raises(RulesError, match=says.replace("(", r"\(")):
        read_rules(path)


def test_durations() -> None:
    assert [seconds(one) for one in ("30s", "8m", "6h", "2d")] == [30, 480, 21_600, 172_800]
