"""Protobuf's encoding, field by field: messages taken apart, and put together in ways that no library does.

https://protobuf.dev/programming-guides/encoding/
"""

from random import Random

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)

# Number, wire type, and the value: as an integer, or its bytes.
Field = tuple[int, int, int | bytes]


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (content[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if content[place - 1] < 0x80:
            return value, place


def read_fields(content: bytes) -> list[Field]:
    """The fields of a good message whose values are numbers without a fixed size, or bytes."""
    fields: list[Field] = []
    place = 0
    while place < len(content):
        key, place = _read_varint(content, place)
        value, place = _read_varint(content, place)
        if key & 7 == _BYTES:
            fields.append((key >> 3, _BYTES, content[place : place + value]))
            place += value
        else:
            fields.append((key >> 3, _VARINT, value))
    return fields


def write_fields(fields: list[Field]) -> bytes:
    """The message of ``fields``."""
    parts = []
    for number, wire_type, value in fields:
        content = _varint(value) if isinstance(value, int) else value
        length = _varint(len(content)) if wire_type == _BYTES and not isinstance(value, int) else b""
        parts.append(_varint(number << 3 | wire_type) + length + content)
    return b"".join(parts)


def random_field(random: Random) -> Field:
    """A field of any number and type, also of those that there are not."""
    wire_type = random.choice((_VARINT, _FIXED64, _BYTES, _BYTES, _BYTES, _GROUP, _GROUP_END, _FIXED32, 6, 7))
    value = random.choice((random.getrandbits(64), random.randbytes(random.choice((0, 4, 8, 30))), 2**63, 0, 1 << 69, b"digits"))
    return random.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 1000, 2**29 - 1, 0)), wire_type, value


def mutate_fields(random: Random, fields: list[Field]) -> list[Field]:
    """Another order, number, type or content of some of ``fields``, which may be changed."""
    place = random.randrange(len(fields))
    number, wire_type, value = fields[place]
    change = random.random()
    if change < 0.4 and number == 5 and isinstance(value, bytes):
        return [
            *fields[:place],
            (number, wire_type, write_fields(mutate_fields(random, read_fields(value)))),
            *fields[place + 1 :],
        ]
    if change < 0.55:
        return [*fields[:place], *fields[place + 1 :]]
    if change < 0.7:
        fields.insert(random.randrange(len(fields) + 1), fields[place])
        return fields
    if change < 0.85:
        fields.insert(random.randrange(len(fields) + 1), random_field(random))
        return random.sample(fields, len(fields))
    fields[place] = random.choice(((number, random.randrange(8), value), (random.randrange(20), wire_type, value)))
    return fields
