"""Every rule and alert of the chart: taken by Prometheus, tested in a situation that it is for, and explained.

The tests of a group are GROUP.yaml beside this file, one or more documents in promtool's form without ``rule_files``. In a
document ``groups`` names further groups that are evaluated with it, and ``values`` are values of the chart.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rules.groups import NAMES, RUNBOOKS, Rule, groups, left_over, promtool, rules, write

HERE = Path(__file__).parent
GROUPS = groups()
RULES = rules(GROUPS)
ALERTS = [rule for rule in RULES if rule.is_alert]
PARTS = ("## Meaning", "## Look at", "## Likely causes", "## What to do")


def situations(group: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((HERE / f"{group}.yaml").read_text()))


def test_each_file_is_a_group_of_its_name() -> None:
    assert sorted(GROUPS) == NAMES
    assert sorted(path.stem for path in HERE.glob("*.yaml")) == NAMES
    for group in GROUPS.values():
        assert {"name", "interval", "rules"} == set(group)


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    code, output = promtool("check", "rules", "--lint=all", "--lint-fatal", *write(GROUPS, tmp_path), directory=tmp_path)
    assert code == 0, output


@pytest.mark.parametrize("group", NAMES)
def test_promtool_finds_the_situations_as_expected(group: str, tmp_path: Path) -> None:
    for number, content in enumerate(situations(group)):
        values = content.pop("values", {})
        rendered = groups(**values) if values else GROUPS
        together = {name: rendered[name] for name in (group, *content.pop("groups", []))}
        folder = tmp_path / str(number)
        folder.mkdir()
        content |= {"rule_files": write(together, folder), "group_eval_order": list(together)}
        (folder / "situations.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        code, output = promtool("test", "rules", "situations.yaml", directory=folder)
        assert code == 0, output


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_a_situation_and_each_alert_a_quiet_one_too(rule: Rule) -> None:
    tests = [test for content in situations(rule.group) for test in content["tests"]]
    if rule.is_alert:
        cases = [case for test in tests for case in test.get("alert_rule_test", []) if case["alertname"] == rule.name]
        assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}
    else:
        cases = [case for test in tests for case in test.get("promql_expr_test", []) if rule.name in case["expr"]]
        assert any(case.get("exp_samples") for case in cases)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_no_token_is_left_over(rule: Rule) -> None:
    assert not left_over(str(rule.content))
    if not rule.is_alert:
        assert rule.name.startswith("chiffre:")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_says_what_it_is_about_and_where_it_is_explained(alert: Rule) -> None:
    labels, annotations = alert.content["labels"], alert.content["annotations"]
    assert labels["severity"] in {"page", "ticket"}
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/runbooks/{alert.name}.md"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_has_a_runbook(alert: Rule) -> None:
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(PARTS)


def test_each_runbook_is_of_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert.name for alert in ALERTS}
    assert len({rule.name for rule in ALERTS}) == len(ALERTS)


def test_alerts_link_to_where_the_runbooks_are_shown() -> None:
    place = "https://git.example/team/chiffre/blob/main/docs/runbooks"
    found = rules(groups(monitoring={"rules": {"kind": "PrometheusRule", "runbooks": place}}))
    for rule in found:
        if rule.is_alert:
            assert rule.content["annotations"]["runbook_url"] == f"{place}/{rule.name}.md"
