"""An environment for each peer, from its file of pinned requirements.

    python loadtests/peers/run.py --setup-only

What pip is told by its configuration and its environment variables holds here too.
"""

import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

from loadtests.peers.contestants import Contestant

HERE = Path(__file__).parent
_INSTALL_SECONDS = 900


class SetupError(RuntimeError):
    """An environment that could not be made."""


def python_of(contestant: Contestant, root: Path) -> Path:
    """The interpreter that ``contestant`` runs with."""
    if not contestant.own_environment:
        return Path(sys.executable)
    return (root / contestant.name / "venv" / "bin" / "python").absolute()


def prepare(contestant: Contestant, root: Path) -> None:
    """Make the environment of ``contestant`` below ``root`` unless its requirements are installed already.

    Raises `SetupError`.
    """
    if not contestant.own_environment:
        return
    requirements = HERE / f"{contestant.name}.txt"
    directory = root / contestant.name / "venv"
    digest, stamp = hashlib.sha256(requirements.read_bytes()).hexdigest(), directory / "requirements.sha256"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    print(f"{contestant.name}: installing {requirements.name}", file=sys.stderr, flush=True)
    venv.create(directory, clear=True, with_pip=True)
    command = [str(python_of(contestant, root)), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        message = f"{contestant.name}: pip did not end within {_INSTALL_SECONDS} s"
        raise SetupError(message) from error
    if result.returncode:
        message = f"{contestant.name}: pip failed: {' '.join(result.stderr.split())[-300:]}"
        raise SetupError(message)
    stamp.write_text(digest)


def versions(contestant: Contestant, root: Path) -> dict[str, str]:
    """Each package that is installed for ``contestant``, and its version."""
    command = [str(python_of(contestant, root)), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return {package["name"]: package["version"] for package in json.loads(result.stdout)}
