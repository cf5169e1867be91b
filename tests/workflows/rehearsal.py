"""Scripts run for real, in a checkout, but for the programs that `standin` stands in for."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.workflows import standin
from tests.workflows.standin import PROGRAMS, ROOT

# A rehearsal has its own.
_OWN = (".git", "build")
# What earlier steps leave.
_LEFT = {
    "build/version": "7\n",
    "build/pushed": "serve=registry.example.com/chiffre-serve\n",
    "build/load/summary.md": "# Load\n",
}
_LINE = '#!/bin/sh\nexec {python} {standin} {program} "$@"\n'


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a script ended, what it wrote, and each call that it made of a program with a stand-in."""

    code: int
    output: str
    calls: list[list[str]]


@dataclass(frozen=True)
class Rehearsal:
    """A checkout in ``folder``, whose build folder is its own, and a PATH with the stand-ins before all else."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in ROOT.iterdir():
            if path.name not in _OWN:
                (self.folder / path.name).symlink_to(path)
        for name, text in _LEFT.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        (self.folder / "bin").mkdir()
        for program in PROGRAMS:
            path = self.folder / "bin" / program
            path.write_text(_LINE.format(python=sys.executable, standin=Path(standin.__file__), program=program))
            path.chmod(0o755)

    def run(self, script: str, **environment: str) -> Outcome:
        """Run it as a step of GitHub's is run."""
        calls = self.folder / "calls"
        calls.write_text("")
        github = {
            name: str(self.folder / name.lower())
            for name in ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "GATEWAY", "MLFLOW_"))}
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={
                **inherited,
                **github,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "CALLS": str(calls),
                **self.environment,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        made = [json.loads(line) for line in calls.read_text().splitlines()]
        return Outcome(code=done.returncode, output=done.stdout, calls=made)
