"""Numbers of a JSON body straight into numpy, by SIMD and without a Python object for each of them (pysimdjson).

Only what is plainly good is read here. Whatever is not gives None, and the caller's slower, exact reader answers: it knows
which field is wrong, and may find that nothing is.
"""

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import simdjson

# What pysimdjson raises for bodies that are no JSON, numbers of another kind, and integers above 64 bits.
_ERRORS = (ValueError, TypeError, RuntimeError, LookupError)
# A parser keeps the memory that its largest document took, so that only small ones are read by one that is kept.
_KEPT_BYTES = 64 * 1024
# Lengths that are looked at here at all: a product of them must stay a number.
_MAX_LENGTH = 1 << 20


class _Kept(threading.local):
    """A parser for each thread: what one has read is gone when it reads the next."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


_kept = _Kept()


def read_instances(body: bytes, row_shapes: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.float64] | None:
    """All numbers, flat, of ``{"instances": [...]}`` whose instances all have one of ``row_shapes``."""
    try:
        document: Any = _parser(body).parse(body)
        if not isinstance(document, simdjson.Object) or list(document.keys()) != ["instances"]:
            return None
        array: Any = document["instances"]
        for shape in row_shapes:
            values: npt.NDArray[np.float64] | None = _numbers(array, (len(array), *shape), body, other_lists=0)
            if values is not None:
                return values
    except _ERRORS:
        pass
    return None


def read_tensor(body: bytes, of_type: str = "d") -> dict[str, Any] | None:
    """The payload of a V2 request of one input, whose ``data`` is a flat array of ``of_type`` (d double, u unsigned integer).

    The data lie flat in the body or as ``shape`` says.
    """
    try:
        document: Any = _parser(body).parse(body)
        payload = _without(document, "inputs")
        (tensor,) = document["inputs"]
        values = _without(tensor, "data")
        data, shape = tensor["data"], tuple(values["shape"])
        if not all(type(length) is int and 0 < length <= _MAX_LENGTH for length in shape):
            return None
        # Each list but those of the data opens one bracket; a bracket in a string only sends the body to the slower reader.
        others = 2 + _lists(list(payload.values()), values.get("parameters"))
        for candidate in ((math.prod(shape),), shape):
            if (numbers := _numbers(data, candidate, body, others, of_type)) is not None:
                return {**payload, "inputs": [{**values, "data": numbers}]}
    except _ERRORS:
        pass
    return None


def _parser(body: bytes) -> simdjson.Parser:
    if body[:1] == b"\xef":
        message = "a byte order mark, which JSON has none of"
        raise ValueError(message)
    return _kept.parser if len(body) <= _KEPT_BYTES else simdjson.Parser()


def _numbers(array: Any, shape: tuple[int, ...], body: bytes, other_lists: int, of_type: str = "d") -> Any:
    """The numbers of ``array`` if it has ``shape``: its lengths are looked at, and that no list more is in the body."""
    lists = rows = 1
    for length in shape[:-1]:
        rows *= length
        lists += rows
    if body.count(b"[") != other_lists + lists or not _has_shape(array, shape):
        return None
    return np.frombuffer(array.as_buffer(of_type=of_type), np.float64 if of_type == "d" else np.uint64)


def _has_shape(array: Any, shape: tuple[int, ...]) -> bool:
    if not isinstance(array, simdjson.Array) or len(array) != shape[0] or not len(array):
        return False
    return len(shape) == 1 or all(_has_shape(row, shape[1:]) for row in array)


def _without(value: Any, omitted: str) -> dict[str, Any]:
    """The other members of ``value``. Raises `ValueError` where a name stands twice: which one counts is the slow reader's."""
    if not isinstance(value, simdjson.Object):
        message = "no object"
        raise TypeError(message)
    names = list(value.keys())
    if len(set(names)) != len(names):
        message = "a name stands twice"
        raise ValueError(message)
    return {name: _plain(value[name]) for name in names if name != omitted}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _lists(*values: Any) -> int:
    """How many lists are in ``values``, themselves not counted."""
    return sum(
        isinstance(inner, list) + _lists(inner)
        for value in values
        for inner in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    )
