"""A generated request, and what is done to bytes whatever they mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from model.bundle import Floats

Origin = Literal["valid", "mutated", "made"]

V1_PATH = "/v1/models/digits:predict"
V2_PATH = "/v2/models/digits/infer"
V1_FEEDBACK_PATH = "/v1/models/digits:feedback"
V2_FEEDBACK_PATH = "/v2/models/digits/feedback"

# What parsers of all kinds trip over.
_TOKENS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b":",
    b"\\",
    b"1e400",
    b"-",
    b"NaN",
    b"null",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """A request: ``target`` is a path of REST, or a method of gRPC's service.

    ``is_good`` says that it has to be answered, ``count`` with how many predictions, and ``images`` (n, 28, 28) for what, where
    that is known.
    """

    content: bytes
    target: str
    origin: Origin
    headers: dict[str, bytes] = field(default_factory=dict)
    is_good: bool = False
    count: int | None = None
    images: Floats | None = None


Source = Callable[[Random], Body]


def draw(random: Random, *sources: tuple[int, Source]) -> Body:
    """A body of one of ``sources``, which come with their weights."""
    (source,) = random.choices([source for _, source in sources], [weight for weight, _ in sources])
    return source(random)


def spans(random: Random, content: bytes, longest: int = 64) -> tuple[int, int]:
    """Where a random part of ``content`` starts and stops."""
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + 1 + min(int(random.expovariate(0.1)), longest))


def _flip(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _set(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + random.randbytes(1) + content[place + 1 :]


def _insert(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.randbytes(random.randint(1, 8)) + content[place:]


def _insert_token(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content) + 1)
    return content[:place] + random.choice(_TOKENS) * random.choice((1, 1, 2, 50)) + content[place:]


def _delete(random: Random, content: bytes) -> bytes:
    start, stop = spans(random, content)
    return content[:start] + content[stop:]


def _duplicate(random: Random, content: bytes) -> bytes:
    start, stop = spans(random, content, 4096)
    return content[:stop] + content[start:stop] * random.choice((1, 1, 3, 40)) + content[stop:]


def _move(random: Random, content: bytes) -> bytes:
    start, stop = spans(random, content)
    rest = content[:start] + content[stop:]
    place = random.randrange(len(rest) + 1)
    return rest[:place] + content[start:stop] + rest[place:]


def _truncate(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content))]


_MUTATIONS: Sequence[Callable[[Random, bytes], bytes]] = (
    _flip,
    _flip,
    _set,
    _insert,
    _insert_token,
    _delete,
    _duplicate,
    _move,
    _truncate,
)


def mutate_bytes(random: Random, content: bytes, *, start: int = 0) -> bytes:
    """``content`` with one to four mutations at or behind ``start``."""
    head, tail = content[:start], content[start:]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if tail:
            tail = random.choice(_MUTATIONS)(random, tail)
    return head + tail
