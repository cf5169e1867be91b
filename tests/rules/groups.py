"""The chart's groups of rules as Helm renders them, and promtool, Debian's, which knows them."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.chart.rendering import CHART, one, render
from tests.processes import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
NAMES = sorted(path.stem for path in (CHART / "rules").glob("*.yaml"))
_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A recording rule or an alert."""

    group: str
    name: str
    is_alert: bool
    content: dict[str, Any]


def program(name: str) -> str:
    """``prometheus`` or ``promtool``."""
    found = shutil.which(name)
    assert found, f"{name}: not found; it comes with Debian's package prometheus, which `make test` installs"
    return found


def promtool(*arguments: str, directory: Path) -> tuple[int, str]:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=directory, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    return done.returncode, done.stdout + done.stderr


def groups(**values: Any) -> dict[str, dict[str, Any]]:
    """By name, for the release digits in the namespace chiffre."""
    monitoring = {"monitoring": {"rules": {"kind": "PrometheusRule"}}}
    rendered = one(render({"model": {"uri": "mlflow://digits/1"}, **monitoring, **values}), "PrometheusRule")
    return {group["name"]: group for group in rendered["spec"]["groups"]}


def rules(found: dict[str, dict[str, Any]]) -> list[Rule]:
    return [
        Rule(group=name, name=rule.get("alert") or rule["record"], is_alert="alert" in rule, content=rule)
        for name, group in found.items()
        for rule in group["rules"]
    ]


def write(found: dict[str, dict[str, Any]], directory: Path) -> list[str]:
    """A rule file for each group; their names."""
    for name, group in found.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    return [f"{name}.yaml" for name in found]


def left_over(text: str) -> set[str]:
    """Tokens that nothing replaced; alerts have some of Prometheus' own."""
    return set(re.findall(r"\$[A-Za-z]\w*", text)) - {"$labels", "$value", "$externalLabels"}
