"""When, where and by what a study was made."""

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.study.store import Record

_CPUINFO = Path("/proc/cpuinfo")


def facts(records: Sequence[Record], *, command: str, jobs: int, data_digest: str) -> dict[str, Any]:
    """What the page says of the study; times are sums over runs that may have been made at different times."""
    last = [record.result.points[-1] for record in records]
    wall, processor = (sum(getattr(point, name) for point in last) for name in ("wall_seconds", "processor_seconds"))
    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.localtime(max(record.ended for record in records))),
        "elapsed_minutes": covered((record.started, record.ended) for record in records) / 60,
        "processor_minutes": processor / 60,
        "core_share": processor / wall,
        "jobs": jobs,
        "processors": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "torch": torch.__version__,
        "revisions": sorted({record.git_revision for record in records}),
        "data_digest": data_digest,
    }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of ``spans`` was going on."""
    total, until = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
