"""What a drill saw: one line for each challenger, as a table."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

_HEAD = ("challenger", "golden accuracy", "outcome", "reason", "at", "verdict after", "over after", "users' requests", "failed")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The last one of a roll-out's evidence file, and how it ended."""

    outcome: str
    reason: str
    percent: int
    time: datetime

    @classmethod
    def read(cls, output: Path) -> "Verdict":
        """From the directory that the roll-out wrote to."""
        content: dict[str, Any] = json.loads((output / "evidence.json").read_text())
        last = content["steps"][-1]
        assert content["outcome"] == last["verdict"]["outcome"], content["sentence"]
        return cls(
            outcome=content["outcome"],
            reason=last["verdict"]["reason"],
            percent=last["percent"],
            time=datetime.fromisoformat(last["time"]),
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """A challenger's roll-out; accuracy is None where it is the champion's."""

    name: str
    accuracy: float | None
    verdict: Verdict
    begun: datetime
    ended: datetime
    requests: int
    failed: int

    def cells(self) -> tuple[str, ...]:
        """As the table has them."""
        return (
            self.name,
            "the champion's" if self.accuracy is None else f"{self.accuracy:.2%}",
            self.verdict.outcome,
            self.verdict.reason,
            f"{self.verdict.percent} %",
            f"{(self.verdict.time - self.begun).total_seconds():.0f} s",
            f"{(self.ended - self.begun).total_seconds():.0f} s",
            f"{self.requests:,}",
            str(self.failed),
        )


def table(rows: list[Row]) -> str:
    """In Markdown."""
    lines = [_HEAD, ["---"] * len(_HEAD), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
