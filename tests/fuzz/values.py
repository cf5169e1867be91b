"""Mutations of JSON values at random paths, and what to write that no JSON library writes."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Raw:
    """Text that goes into the JSON as it is."""

    text: str


NUMBERS = (
    *(
        "0",
        "1",
        "-0",
        "-0.0",
        "0.5",
        "1.0",
        "1e0",
        "0.1E1",
        "5e-324",
        "1e-400",
        "0e99999",
        "0.99999999999999999999",
        "1.00000001",
    ),
    *("-1", "2", "28", "255", "256", "784", "1024", "1025", "-1e-9", "1e19", "1e39", "1e308", "1e400", "-1e400"),
    *("NaN", "nan", "Infinity", "-Infinity", "+1", ".5", "1.", "01", "0x1", "1_0", "1e", "--1", "1" * 400, "0." + "1" * 5000),
    *("2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "-18446744073709551616", "123456789012345678901234567890"),
)
_STRINGS = (
    *('""', '"0.5"', '"images"', '"labels"', '"FP32"', '"INT64"', '"BYTES"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"é"'),
    *('"\U0001f600"', '"\u202e7"', '"' + "x" * 3000 + '"', '"[[["', '"\\"]}"', "'7'", '"\\x"', '"\t"', '"\ufeff"', '"a\u0000b"'),
)
_OTHERS = (
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    '{"": ""}',
    '{"b64": ""}',
    '{"b64": 7}',
    "undefined",
    "/* */ 0",
    "",
)
_KEYS = ("", "instances", "inputs", "data", "shape", "b64", "name", "__proto__", "id", "x" * 2000, "é", "\u0000", "instances ")


def deep(random: Random) -> Raw:
    """Lists or objects in one another, closed or not."""
    depth = random.choice((2, 5, 100, 900, 1022, 1023, 1024, 1025, 5000, 100_000))
    start, middle, stop = random.choice((("[", "", "]"), ("[", "0.5", "]"), ('{"a":', "0", "}"), ('[{"a":', "[]", "}]")))
    return Raw(start * depth + middle + (stop * depth if random.random() < 0.8 else ""))


def surprise(random: Random) -> Any:
    """A value that nobody expects at its place."""
    kind = random.random()
    if kind < 0.45:
        return Raw(random.choice(NUMBERS))
    if kind < 0.65:
        return Raw(random.choice(_STRINGS))
    if kind < 0.9:
        return Raw(random.choice(_OTHERS))
    if kind < 0.96:
        return random.choice(
            ([0] * 784, [[0.5] * 28] * 28, [0.5] * 783, [[1] * 27] * 28, [[[0]] * 28] * 28, "7" * 784, [True] * 784)
        )
    return deep(random)


def mutate(random: Random, value: Any) -> Any:
    """A copy of ``value`` with one to three changes, each at a random path."""
    changed = {"": deepcopy(value)}
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holder: Any = changed
        key: Any = ""
        while isinstance(inner := holder[key], dict | list) and inner and random.random() < 0.75:
            holder, key = inner, random.choice(list(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
        random.choice(_CHANGES)(random, holder, key)
        if not changed:
            break
    return changed.get("")


def _replace(random: Random, holder: Any, key: Any) -> None:
    holder[key] = surprise(random)


def _drop(random: Random, holder: Any, key: Any) -> None:
    del random
    del holder[key]


def _double(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder[key:key] = [holder[key]] * random.choice((1, 1, 2, 28))
    elif key:
        # The name again, with the same value or another.
        holder[f"{key}\x00twice"] = holder[key] if random.random() < 0.5 else surprise(random)


def _rename(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, dict) and key:
        holder[random.choice(_KEYS)] = holder.pop(key)
    else:
        holder[key] = [holder[key]]


def _add(random: Random, holder: Any, key: Any) -> None:
    inner = holder[key]
    if isinstance(inner, dict):
        inner[random.choice(_KEYS)] = surprise(random)
    elif isinstance(inner, list):
        inner.append(surprise(random))
    else:
        holder[key] = surprise(random)


def _wrap(random: Random, holder: Any, key: Any) -> None:
    holder[key] = random.choice(([holder[key]], {"data": holder[key]}, json.dumps(holder[key], default=str)))


def _nudge(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = random.choice((random.random(), 0, 1, 0.5, -holder[key], holder[key] + 1, round(holder[key])))
    else:
        _replace(random, holder, key)


_CHANGES: tuple[Callable[[Random, Any, Any], None], ...] = (
    _replace,
    _replace,
    _drop,
    _double,
    _rename,
    _add,
    _wrap,
    _nudge,
    _nudge,
)


def write(random: Random, value: Any, *, is_plain: bool = False) -> bytes:
    """The JSON text of ``value``: dense or not, escaped or not, and unless ``is_plain`` at times in another encoding."""
    raws: list[str] = []

    def keep(raw: Raw) -> str:
        raws.append(raw.text)
        return f"@raw{len(raws) - 1}@"

    is_dense = random.random() < 0.7
    text = json.dumps(value, default=keep, ensure_ascii=random.random() < 0.5, separators=(",", ":") if is_dense else None)
    text = re.sub(r'"@raw(\d+)@"', lambda found: raws[int(found[1])], text).replace("\\u0000twice", "")
    if random.random() < 0.03:
        text = re.sub("[,:]", lambda found: random.choice((" ", "\n", "\t")) + found[0] + "\r\n", text, count=200)
    if random.random() < 0.02:
        # Names with escapes are the same names.
        text = re.sub('"([a-z0-9])', lambda found: f'"\\u{ord(found[1]):04x}', text)
    kind = 1.0 if is_plain else random.random()
    if kind < 0.01:
        return text.encode("utf-8-sig", "surrogatepass")
    if kind < 0.015:
        return text.encode(random.choice(("utf-16", "utf-32", "utf-16-le")), "surrogatepass")
    return text.encode("utf-8", "surrogatepass")
