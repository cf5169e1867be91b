"""The storage initializer's process, as a pod runs it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import ROOT


@dataclass(frozen=True, kw_only=True)
class Ended:
    code: int
    lines: list[dict[str, Any]]
    errors: str
    reason: str
    seconds: float


def command(uri: str, directory: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "serving.storage", uri, str(directory), *flags]


def environment(registry: str, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**others, "MLFLOW_TRACKING_URI": registry, **(variables or {})}


def bring(
    uri: str,
    directory: Path,
    registry: str,
    *flags: str,
    limits: Callable[[], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Run it to its end; ``reason`` is what Kubernetes would show."""
    log = directory.parent / f"{directory.name}-termination-log"
    log.touch()
    begin = time.monotonic()
    done = subprocess.run(
        command(uri, directory, "--termination_log", str(log), *flags),
        cwd=ROOT,
        env=environment(registry, variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limits,
    )
    seconds = time.monotonic() - begin
    assert "Traceback" not in done.stderr, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return Ended(code=done.returncode, lines=lines, errors=done.stderr, reason=log.read_text(), seconds=seconds)
