"""A bundle's files: names, digests, and its JSON, each value of which is checked; each error names the file and the field.

Only the standard library is imported here, for what fetches a bundle at every start of a pod.
"""

import hashlib
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

FORMAT_VERSION = 1

CHECKPOINT = "model.ckpt"
ONNX = "model.onnx"
MANIFEST = "bundle.json"
REGISTRATION = "registration.json"


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and what is wrong with it."""


class Reader:
    """Takes values out of a JSON object; each error names the file and the field."""

    def __init__(self, path: Path, value: Any, prefix: str = "") -> None:
        self.path, self.value, self.prefix = path, value, prefix
        if not isinstance(value, dict):
            message = f"{path}: {prefix[:-1]}{': ' if prefix else ''}expected a JSON object, got {json.dumps(value)[:80]}"
            raise BundleError(message)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the file at ``path``."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            message = f"{path}: missing"
            raise BundleError(message) from None
        except OSError as error:
            message = f"{path}: cannot be read ({error})"
            raise BundleError(message) from None
        return cls.parse(path, content)

    @classmethod
    def parse(cls, path: Path, content: bytes) -> Self:
        """Read ``content``, which is that of the file at ``path``."""
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            message = f"{path}: cannot be read as JSON ({error})"
            raise BundleError(message) from None
        return cls(path, value)

    def fail(self, name: str, expected: str, found: Any) -> NoReturn:
        """Raise `BundleError`."""
        message = f"{self.path}: {self.prefix}{name}: expected {expected}, got {json.dumps(found)[:80]}"
        raise BundleError(message)

    def raw(self, name: str) -> Any:
        """What stands at ``name``, unchecked."""
        if name not in self.value:
            message = f"{self.path}: {self.prefix}{name}: missing"
            raise BundleError(message)
        return self.value[name]

    def text(self, name: str) -> str:
        """A string that is not empty."""
        found = self.raw(name)
        if not isinstance(found, str) or not found:
            self.fail(name, "a string", found)
        return str(found)

    def optional_text(self, name: str) -> str | None:
        """A string that is not empty, or null."""
        return None if self.raw(name) is None else self.text(name)

    def whole(self, name: str) -> int:
        """A whole number."""
        found = self.raw(name)
        if type(found) is not int:
            self.fail(name, "a whole number", found)
        return int(found)

    def number(self, name: str, *, above: float = -math.inf) -> float:
        """A finite number larger than ``above``."""
        found = self.raw(name)
        if not _is_number(found) or not found > above:
            self.fail(name, f"a number above {above:g}" if above > -math.inf else "a number", found)
        return float(found)

    def numbers(self, name: str) -> list[float]:
        """A list of finite numbers."""
        found = self.raw(name)
        if not isinstance(found, list) or not all(map(_is_number, found)):
            self.fail(name, "a list of numbers", found)
        return list(found)

    def exactly(self, name: str, expected: Any) -> Any:
        """``expected`` and nothing else."""
        found = self.raw(name)
        if found != expected:
            self.fail(name, json.dumps(expected), found)
        return found

    def inner(self, name: str) -> "Reader":
        """The object at ``name``."""
        return Reader(self.path, self.raw(name), f"{self.prefix}{name}.")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The registry's name and version of a published bundle."""

    name: str
    version: str

    @classmethod
    def find(cls, directory: Path) -> Self | None:
        """What is noted beside the bundle in ``directory``, if it was published. Raises `BundleError`."""
        path = directory / REGISTRATION
        if not path.exists():
            return None
        noted = Reader.open(path)
        return cls(name=noted.text("name"), version=noted.text("version"))

    def save(self, directory: Path) -> None:
        """Note it in ``directory``, whole or not at all."""
        scratch = directory / f".{REGISTRATION}"
        scratch.write_text(json.dumps(asdict(self)) + "\n")
        scratch.replace(directory / REGISTRATION)


def read_digests(manifest: Reader) -> dict[str, str]:
    """The sha256 of each file that a manifest lists, which are a bundle's and no others: no name in it leads anywhere else.

    Raises `BundleError`.
    """
    manifest.exactly("format_version", FORMAT_VERSION)
    listed = manifest.inner("files")
    digests = {name: listed.text(name) for name in (CHECKPOINT, ONNX)}
    if strange := sorted(listed.value.keys() - digests.keys()):
        manifest.fail("files", f"{CHECKPOINT} and {ONNX} alone", strange)
    return digests


def verify_digest(path: Path, found: str, expected: str) -> None:
    """Raise `BundleError` where the sha256 of the file at ``path`` is not the one that is listed."""
    if found != expected:
        message = f"{path}: sha256 is {found[:12]}..., {MANIFEST} says {expected[:12]}...: the file was altered or cut short"
        raise BundleError(message)


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max
