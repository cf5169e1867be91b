"""What a roll-out leaves behind: evidence.json, summary.md, and lines with the time on standard output."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rollout.decision import Policy, Verdict
from rollout.evidence import Evidence
from rollout.signing import signature

EVIDENCE, SUMMARY, RECORD = "evidence.json", "summary.md", "record.json"


def say(line: str) -> None:
    """A line of progress."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A verdict, and what it was made of."""

    percent: int
    look: int
    time: str
    evidence: Evidence
    verdict: Verdict


@dataclass(kw_only=True)
class Report:
    """Of one roll-out; it is written anew after each verdict, so that what is killed leaves what it knew.

    Args:
        directory: Where to; made if it is not there.
        head: Release, namespace, versions, images and what else is known from the beginning.
        policy: By which was judged.
    """

    directory: Path
    head: dict[str, Any]
    policy: Policy
    steps: list[Step] = field(default_factory=list)
    end: dict[str, str] = field(default_factory=dict)

    def add(self, percent: int, look: int, evidence: Evidence, verdict: Verdict) -> None:
        """Note a verdict."""
        if not self.steps:
            _set_aside(self.directory)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self.steps.append(Step(percent=percent, look=look, time=time, evidence=evidence, verdict=verdict))
        self.write()

    def close(self, outcome: str, reason: str, sentence: str) -> None:
        """Note how it ended, in the job's summary of GitHub Actions too where this is one."""
        self.end = {"outcome": outcome, "reason": reason, "sentence": sentence}
        self.write()
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(self.markdown())

    def write(self) -> None:
        """Write both files, each at once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {**self.head, **self.end, "policy": self.policy.to_json(), "steps": [_json(step) for step in self.steps]}
        for name, text in ((EVIDENCE, json.dumps(content, indent=1) + "\n"), (SUMMARY, self.markdown())):
            scratch = self.directory / f".{name}"
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(self.directory / name)

    def markdown(self) -> str:
        """A table of the guards at the last verdict, under a line that says how it ended."""
        head, last = self.head, self.steps[-1] if self.steps else None
        title = f"## Roll-out of {head['model']} version {head['challenger']['version']}, release {head['release']}\n"
        lines = [title, self.end.get("sentence", "It is not over yet."), ""]
        if last:
            lines += [
                f"{last.verdict.outcome} ({last.verdict.reason}) at {last.percent} % of the traffic: {last.verdict.sentence}",
                "",
            ]
            lines += ["| guard | says | found | interval | allowed |", "|---|---|---:|---|---:|"]
            lines += [
                f"| {guard.name} | {guard.outcome} | {guard.estimate:.3g} {guard.unit} | {guard.low:.3g} to {guard.high:.3g} "
                f"| {guard.allowed:.3g} |"
                for guard in last.verdict.guards
            ]
            if last.verdict.more:
                lines += ["", f"What would settle it: {last.verdict.more}"]
        return "\n".join(lines).rstrip() + "\n\n"


def _set_aside(directory: Path) -> None:
    """Give what an earlier roll-out left a folder of its own: its record holds by its evidence, and is not this one's."""
    evidence = directory / EVIDENCE
    if not evidence.exists():
        return
    folder = directory / f"until-{datetime.fromtimestamp(evidence.stat().st_mtime, UTC):%Y%m%dT%H%M%SZ}"
    folder.mkdir(exist_ok=True)
    record = directory / RECORD
    for path in (evidence, directory / SUMMARY, record, signature(record)):
        if path.exists():
            path.replace(folder / path.name)


def _json(step: Step) -> dict[str, Any]:
    return {
        "percent": step.percent,
        "look": step.look,
        "time": step.time,
        "evidence": step.evidence.to_json(),
        "verdict": step.verdict.to_json(),
    }


def read(directory: Path, head: Mapping[str, Any], policy: Policy) -> Report:
    """The report of this roll-out, with what an earlier process wrote of it. Raises ValueError for a file that is none."""
    path = directory / EVIDENCE
    report = Report(directory=directory, head=dict(head), policy=policy)
    if not path.exists():
        return report
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if any(content.get(key) != part for key, part in head.items()):
            return report
        if Policy.from_json(content["policy"]) != policy:
            message = f"{path}: judged by another policy until now: expected the same options, or another --output"
            raise ValueError(message)
        report.steps += [_step(item) for item in content["steps"]]
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{path}: this is no evidence of a roll-out: {error!r}"
        raise ValueError(message) from error
    return report


def _step(content: Mapping[str, Any]) -> Step:
    evidence, verdict = Evidence.from_json(content["evidence"]), Verdict.from_json(content["verdict"])
    return Step(percent=content["percent"], look=content["look"], time=content["time"], evidence=evidence, verdict=verdict)
