"""Write the chart's values.yaml and the table in its README from values.schema.json, where every value is described.

python helm/document.py
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

CHART = Path(__file__).parent / "chiffre"
BEGIN, END = "<!-- values: made by helm/document.py -->\n", "<!-- end of values -->\n"

_WIDTH = 120
_HEAD = "# Made from values.schema.json by helm/document.py.\n"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value or, without a default, a group of values."""

    path: tuple[str, ...]
    description: str
    default: str | None

    @property
    def name(self) -> str:
        """As it is written after ``--set``."""
        return ".".join(self.path)


class SchemaError(ValueError):
    """A part of the schema that is open, or not described."""


def values(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Value]:
    """All values, each group before what is in it. Raises `SchemaError`."""
    if schema.get("additionalProperties") is not False:
        message = f"{'.'.join(path) or 'the schema'}: expected additionalProperties to be false"
        raise SchemaError(message)
    for key, part in schema["properties"].items():
        here = (*path, key)
        if not part.get("description"):
            message = f"{'.'.join(here)}: expected a description"
            raise SchemaError(message)
        is_group = "properties" in part
        if is_group == ("default" in part):
            message = f"{'.'.join(here)}: expected a default for a value, and none for a group of values"
            raise SchemaError(message)
        default = None if is_group else json.dumps(part["default"])
        yield Value(path=here, description=part["description"], default=default)
        if is_group:
            yield from values(part, here)


def values_yaml(schema: dict[str, Any]) -> str:
    """The text of values.yaml."""
    lines = []
    for value in values(schema):
        indent = "  " * (len(value.path) - 1)
        if not indent:
            lines.append("")
        lines += [f"{indent}# {line}" for line in wrap(value.description, _WIDTH - len(indent))]
        lines.append(f"{indent}{value.path[-1]}:" + ("" if value.default is None else f" {value.default}"))
    return _HEAD + "\n".join(lines) + "\n"


def table(schema: dict[str, Any]) -> str:
    """The README's table."""
    rows = [
        f"| `{value.name}` | `{value.default}` | {value.description} |" for value in values(schema) if value.default is not None
    ]
    return "\n".join(["| value | default | what it is |", "|---|---|---|", *rows]) + "\n"


def documents() -> dict[Path, str]:
    """The files and what they ought to hold."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return {CHART / "values.yaml": values_yaml(schema), readme: f"{before}{BEGIN}\n{table(schema)}\n{END}{after}"}


def main() -> None:
    """Write them."""
    for path, content in documents().items():
        path.write_text(content)


if __name__ == "__main__":
    main()
