"""Findings as CSV files, and back: plots and page are made from what these hold and from nothing else.

`study.csv` holds settings and facts (values in JSON), `runs.csv` a training run a line, `curves.csv` an evaluation a line,
`gradients.csv` and `memory.csv` the measurements.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from model.study.findings import Findings
from model.study.gradients import Gradient
from model.study.memory import Memory
from model.study.plan import Settings, Trial
from model.study.training import Point, Result

STUDY, RUNS, CURVES, GRADIENTS, MEMORY = (f"{name}.csv" for name in ("study", "runs", "curves", "gradients", "memory"))

Row = Mapping[str, Any]
Kind = TypeVar("Kind")


def write(directory: Path, findings: Findings) -> None:
    """Write the five files; numbers are cut to six digits."""
    facts = {**asdict(findings.settings), **findings.facts}
    _write(directory / STUDY, [{"name": name, "value": json.dumps(value)} for name, value in facts.items()])
    runs, curves = [], []
    for number, (trial, result) in enumerate(findings.results.items(), 1):
        figures = {"test_accuracy": result.test_accuracy, "has_diverged": result.has_diverged}
        runs.append({"run": number, **asdict(trial), **figures})
        curves += [{"run": number, **asdict(point)} for point in result.points]
    _write(directory / RUNS, runs)
    _write(directory / CURVES, curves)
    _write(directory / GRADIENTS, [asdict(row) for row in findings.gradients], Gradient)
    _write(directory / MEMORY, [asdict(row) for row in findings.memory], Memory)


def read(directory: Path) -> Findings:
    """What was written."""
    facts = {row["name"]: json.loads(row["value"]) for row in _read(directory / STUDY)}
    given = {field.name: facts.pop(field.name) for field in fields(Settings)}
    curves = defaultdict(list)
    for row in _read(directory / CURVES):
        curves[row["run"]].append(_build(Point, row))
    results = {
        _build(Trial, row): Result(
            points=tuple(curves[row["run"]]),
            test_accuracy=float(row["test_accuracy"]) if row["test_accuracy"] else None,
            has_diverged=row["has_diverged"] == "True",
        )
        for row in _read(directory / RUNS)
    }
    options: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Findings(
        settings=Settings(**options),
        facts=facts,
        results=results,
        gradients=[_build(Gradient, row) for row in _read(directory / GRADIENTS)],
        memory=[_build(Memory, row) for row in _read(directory / MEMORY)],
    )


def _write(path: Path, rows: Sequence[Row], kind: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(kind)] if kind else list(rows[0])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )


def _read(path: Path) -> Iterable[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _build(kind: type[Kind], row: Mapping[str, str]) -> Kind:
    """A dataclass of plain fields from a line's texts."""
    parsers: dict[Any, Any] = {int: int, float: float, str: str, bool: lambda text: text == "True"}
    return kind(**{field.name: parsers[field.type](row[field.name]) for field in fields(kind)})  # type: ignore[arg-type]
