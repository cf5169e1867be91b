"""What is read on the event loop, and what beside it."""

from types import SimpleNamespace
from typing import Any

import pytest

from serving.rest import V2


@pytest.mark.parametrize(
    ("size", "length", "is_light"),
    [
        (1_000, "", True),
        (1_000, "1000", True),
        # A binary tensor behind a little JSON.
        (30_000_000, "200", True),
        (30_000_000, "", False),
        # JSON, to its last byte.
        (30_000_000, "30000000", False),
        (30_000_000, "9" * 5_000, False),
        (30_000_000, "-1", False),
        (30_000_000, "2\xb2", False),
    ],
)
def test_only_what_is_read_in_no_time_is_read_on_the_event_loop(size: int, length: str, is_light: bool) -> None:
    exchange: Any = SimpleNamespace(header=lambda name: length if name.lower() == b"inference-header-content-length" else "")
    service: Any = None
    assert V2(service).is_light(exchange, bytes(size)) is is_light
