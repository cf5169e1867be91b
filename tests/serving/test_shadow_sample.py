import json
import os
import threading
from base64 import b64decode
from typing import Any

import pytest

from serving.shadow import INTERVAL_SECONDS, MAX_BODY_BYTES, Sample

PATH = "/v1/models/digits:predict"


def shown(sample: Sample) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sample.expose())["requests"]
    return found


def bodies(sample: Sample) -> list[bytes]:
    return sorted(b64decode(entry["body"]) for entry in shown(sample))


def test_what_was_kept_is_shown_as_it_came() -> None:
    sample = Sample(3)
    assert shown(sample) == []
    body = bytes(range(256))
    sample.keep(PATH, {"content-type": "image/png"}, body)
    (entry,) = shown(sample)
    assert b64decode(entry.pop("body")) == body
    assert entry == {"id": 0, "path": PATH, "headers": {"content-type": "image/png"}}


def test_the_last_ones_stay() -> None:
    sample = Sample(3)
    for number in range(10):
        sample.keep(PATH, {}, b"%d" % number)
        assert bodies(sample) == [b"%d" % one for one in range(max(0, number - 2), number + 1)]
    assert sorted(entry["id"] for entry in shown(sample)) == [7, 8, 9]


def test_large_bodies_push_out_older_ones_before_their_number_does() -> None:
    sample = Sample(64)
    written = [os.urandom(MAX_BODY_BYTES) for _ in range(40)]
    for number, body in enumerate(written):
        sample.keep(PATH, {}, body)
        kept = [b64decode(entry["body"]) for entry in sorted(shown(sample), key=lambda entry: int(entry["id"]))]
        # Whole, without a gap, and the newest is among them; a megabyte holds ten of them at any time.
        assert kept == written[number + 1 - len(kept) : number + 1]
        assert len(kept) >= min(number + 1, 10)
    sample.keep(PATH, {}, b"small")
    assert b"small" in bodies(sample)


def test_a_damaged_entry_is_not_shown() -> None:
    sample = Sample(2)
    sample.keep(PATH, {}, b"first")
    sample.keep(PATH, {}, b"second")
    whole = sample._memory[:]  # noqa: SLF001 -- as another process sees it in the middle of writing
    place = whole.index(b"Zmlyc3Q=")
    sample._memory[place : place + 1] = b"z"  # noqa: SLF001 -- as above
    assert bodies(sample) == [b"second"]


def test_a_request_is_due_some_time_after_the_one_before() -> None:
    sample = Sample(8)
    assert not sample.claim(100.0, MAX_BODY_BYTES + 1)
    assert sample.claim(100.0, MAX_BODY_BYTES)
    assert not sample.claim(100.0, 1)
    assert not sample.claim(100.0 + 0.9 * INTERVAL_SECONDS, 1)
    assert sample.claim(100.0 + 1.1 * INTERVAL_SECONDS, 1)


def test_any_process_shows_those_of_all() -> None:
    sample = Sample(4, workers=3)
    for worker in range(3):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                sample.take_row(worker)
                for number in range(6):
                    sample.keep(PATH, {}, b"%d of %d" % (number, worker))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(process, 0)[1] == 0
    assert bodies(sample) == [b"%d of %d" % (number, worker) for number in range(2, 6) for worker in range(3)]
    assert len({entry["id"] for entry in shown(sample)}) == 12
    sample.take_row(1)
    assert bodies(sample) == [b"%d of %d" % (number, worker) for number in range(2, 6) for worker in (0, 2)], "its successor's"


def test_what_is_shown_while_others_write_is_whole() -> None:
    sample, stop = Sample(8), threading.Event()

    def write(letter: bytes) -> None:
        for size in range(1, 4000):
            if stop.is_set():
                return
            sample.keep(PATH, {}, letter * (size * 16 % MAX_BODY_BYTES))

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for writer in writers:
        writer.start()
    try:
        for _ in range(50):
            for entry in shown(sample):
                assert len(set(b64decode(entry["body"]))) <= 1
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)


@pytest.mark.parametrize("requests", [1, 1024])
def test_it_takes_as_many_as_it_says(requests: int) -> None:
    sample = Sample(requests)
    for number in range(requests + 5):
        sample.keep(PATH, {}, b"%d" % number)
    assert len(shown(sample)) == requests
