"""Take out of the serving image's environment what its server never imports, and compile what stays.

    python image/trim.py /opt/chiffre/lib/python3.11/site-packages

Exit code 1 where something listed here is not there any more: the list has to follow the dependencies. tests/test_image.py
starts a server to which all of this is missing, and asks it on every route.
"""

import compileall
import py_compile
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

DISTRIBUTIONS = (
    # kserve names one class of it in annotations; serving/kserve_app.py stands in for it.
    "pandas",
    "pytz",
    "tzdata",
    # kserve requires them to be new enough, and imports none.
    "cryptography",
    "cffi",
    "pycparser",
    "pyasn1",
    "PyJWT",
    # Compiles protocol buffers; kserve ships its own compiled.
    "grpcio-tools",
    "setuptools",
    # What kubernetes.aio needs; see below.
    "aiohttp",
    "aiohttp-retry",
    "aiohappyeyeballs",
    "aiosignal",
    "attrs",
    "frozenlist",
    "multidict",
    "propcache",
    "yarl",
    # uvicorn's websockets and its --env-file.
    "websockets",
    "python-dotenv",
    # ONNX Runtime's tools.
    "flatbuffers",
)
PATHS = (
    "*/tests",
    "*/*/tests",
    # The asynchronous client, and the API's objects, which are imported when one is named: kserve's client does, its server not.
    "kubernetes/aio",
    "kubernetes/client/api",
    "kubernetes/client/models/[a-z]*.py",
    # For programs in C; Python's extension holds all of it itself.
    "onnxruntime/capi/libonnxruntime.so.*",
    # Conversion and tuning of models, which training does.
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
    # Building extensions.
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/random/lib",
    "uvloop/*.pyx",
    # Pictures are PNG or JPEG, and nothing is written on them.
    "PIL/_avif.*.so",
    "PIL/_imagingft.*.so",
    "pillow.libs/libavif-*",
    "pillow.libs/libfreetype-*",
    "pillow.libs/libharfbuzz-*",
)


class ListError(ValueError):
    """The list names what is not there; the message says what."""


def files_of(distribution: Distribution) -> list[Path]:
    """All files that installing ``distribution`` made."""
    return [Path(str(file.locate())) for file in distribution.files or ()]


def find(site_packages: Path) -> Iterator[Path]:
    """The files and directories that go. Raises `ListError`."""
    installed = {found.metadata["Name"]: found for found in distributions(path=[str(site_packages)])}
    for name in DISTRIBUTIONS:
        if name not in installed:
            message = f"{name}: not installed in {site_packages}; take it off the list"
            raise ListError(message)
        yield from files_of(installed[name])
    for pattern in PATHS:
        matches = list(site_packages.glob(pattern))
        if not matches:
            message = f"{pattern}: matches nothing in {site_packages}; take it off the list"
            raise ListError(message)
        yield from matches


def remove(paths: list[Path]) -> None:
    """Delete ``paths``, and the directories that are empty then."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in {path.parent.resolve() for path in paths}:
        parent = folder
        while parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent


def size(folder: Path) -> float:
    """MB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def main() -> int:
    """Remove, compile, and say how much that was."""
    site_packages = Path(sys.argv[1]).resolve()
    before = size(site_packages)
    try:
        paths = list(find(site_packages))
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Type stubs are for editors.
    remove([*paths, *site_packages.rglob("*.pyi")])
    trimmed = size(site_packages)
    # The root file system is read-only, and its times may be set to anything: the source is never looked at again.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compiled = compileall.compile_dir(site_packages, quiet=1, workers=0, invalidation_mode=mode)
    print(
        f"{site_packages}: {before:.0f} MB, {trimmed:.0f} MB without what is not imported, {size(site_packages):.0f} MB compiled"
    )
    return 0 if compiled else 1


if __name__ == "__main__":
    sys.exit(main())
