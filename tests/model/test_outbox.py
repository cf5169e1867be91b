import json
from pathlib import Path

import pytest

from model.outbox import Entry, Outbox


def entries(count: int) -> list[Entry]:
    return [{"kind": "metrics", "step": step} for step in range(count)]


def test_what_was_sent_is_not_pending_also_for_another_process(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for entry in entries(3):
        outbox.append(entry)
    sent: list[Entry] = []
    outbox.deliver(sent.append)
    assert sent == entries(3)
    assert Outbox(tmp_path).pending() == []
    Outbox(tmp_path).append({"kind": "late"})
    assert outbox.pending() == [{"kind": "late"}]


def test_a_failure_keeps_the_entry_and_all_behind_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for entry in entries(5):
        outbox.append(entry)

    def send(entry: Entry) -> None:
        if entry["step"] == 2:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        outbox.deliver(send)
    assert outbox.pending() == entries(5)[2:]


def test_a_line_cut_by_a_kill_is_dropped_and_what_follows_is_whole(tmp_path: Path) -> None:
    Outbox(tmp_path).append({"kind": "whole"})
    with (tmp_path / "outbox.jsonl").open("a") as journal:
        journal.write('{"kind": "hal')
    assert Outbox(tmp_path).pending() == [{"kind": "whole"}]
    Outbox(tmp_path).append({"kind": "next"})
    assert [json.loads(line)["kind"] for line in (tmp_path / "outbox.jsonl").read_text().splitlines()] == ["whole", "next"]
