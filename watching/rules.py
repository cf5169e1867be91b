"""What the chart's rules of drift and of the estimate say: they own windows, thresholds and the least number of images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DRIFT = Path(__file__).parents[1] / "helm" / "chiffre" / "rules" / "drift.yaml"
# Rules that state a number, and the label by which there are several.
_CONSTANTS = {
    "chiffre:drift:least_images": "",
    "chiffre:drift:design_effect": "statistic",
    "chiffre:drift:threshold": "window",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class RulesError(ValueError):
    """A rule file that does not say what is looked for; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The drift alarm.

    Args:
        interval_seconds: Between two evaluations.
        least_images: With fewer in a window nothing is said.
        design_effects: How many images tell as much as one, by statistic.
        thresholds: Of the score, by window, shortest first.
    """

    interval_seconds: int
    least_images: float
    design_effects: dict[str, float]
    thresholds: dict[str, float]

    @property
    def windows(self) -> dict[str, int]:
        """Seconds of each window by its name."""
        return {window: seconds(window) for window in self.thresholds}


def read_rules(path: Path = DRIFT) -> Rules:
    """The drift alarm of the rule group at ``path``. Raises `RulesError`."""
    group = yaml.safe_load(path.read_text())
    constants: dict[str, dict[str, float]] = {}
    for rule in group["rules"]:
        name, labels = rule.get("record", ""), rule.get("labels", {})
        if name in _CONSTANTS:
            constants.setdefault(name, {})[labels.get(_CONSTANTS[name], "")] = _constant(rule)
    if missing := sorted(_CONSTANTS.keys() - constants):
        message = f"{path}: expected rules that state {', '.join(missing)}"
        raise RulesError(message)
    thresholds = constants["chiffre:drift:threshold"]
    return Rules(
        interval_seconds=seconds(group["interval"]),
        least_images=constants["chiffre:drift:least_images"][""],
        design_effects=constants["chiffre:drift:design_effect"],
        thresholds={window: thresholds[window] for window in sorted(thresholds, key=seconds)},
    )


def seconds(duration: str) -> int:
    """A duration of PromQL with one unit, such as 8m. Raises `RulesError`."""
    if found := re.fullmatch(r"(\d+)([smhd])", duration):
        return int(found[1]) * _UNITS[found[2]]
    message = f"duration: expected a number and s, m, h or d, got {duration!r}"
    raise RulesError(message)


def _constant(rule: dict[str, Any]) -> float:
    """Rules that state a number are written ``vector(NUMBER)``."""
    if found := re.fullmatch(r"vector\(([\d.]+)\)", str(rule["expr"]).strip()):
        return float(found[1])
    message = f"{rule['record']}: expected vector(NUMBER), got {rule['expr']!r}"
    raise RulesError(message)
