"""Reading a bundle's JSON files: each value is checked, and each error names the file and the field."""

import json
import math
import sys
from pathlib import Path
from typing import Any, NoReturn, Self


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
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            message = f"{path}: missing"
            raise BundleError(message) from None
        except (OSError, ValueError, RecursionError) as error:
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


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max
