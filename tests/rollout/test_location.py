"""An upgrade that did not end is put back where it was a roll-out's, and left alone where it may be somebody else's."""

from pathlib import Path
from typing import Any

import pytest

from rollout.decision import Outcome
from rollout.journey import Wish
from rollout.release import Entry, HelmError
from tests.rollout.world import World, process, uri

WISH = Wish(version="7")


def leave_pending(world: World, content: dict[str, Any], status: str = "pending-upgrade") -> None:
    number = world.entries[-1].revision + 1
    world.given[number] = content
    world.entries.append(Entry(revision=number, status=status, description="Preparing upgrade"))


def test_somebody_elses_upgrade_that_takes_long_is_left_alone(tmp_path: Path) -> None:
    world, said = World(), list[str]()
    leave_pending(world, {**world.values(1), "replicas": 3})
    before = list(world.entries)
    with pytest.raises(
        HelmError, match="digits: revision 2 is still pending-upgrade, and no roll-out's: Preparing upgrade; mend"
    ):
        process(world, tmp_path, WISH, said=said).run()
    assert world.entries == before
    assert world.now >= 60
    assert "waiting for Helm, whose revision 2 is pending-upgrade" in said


def test_a_putting_back_that_did_not_end_is_done_again(tmp_path: Path) -> None:
    world = World()
    leave_pending(world, {**world.values(1), "model": {"uri": uri("7")}, "canary": {"percent": 0}})
    leave_pending(world, world.values(1), "pending-rollback")
    assert process(world, tmp_path, WISH).run() is Outcome.PROMOTE
    assert world.is_clean


@pytest.mark.parametrize("share", [0, 25])
def test_a_roll_outs_own_is_put_back_and_gone_on_with(share: int, tmp_path: Path) -> None:
    world, said = World(), list[str]()
    if share:
        process(world, tmp_path, Wish(version="7", pause_at=5)).run()
    leave_pending(world, {**world.values(1), "model": {"uri": uri("7")}, "canary": {"percent": share}})
    assert process(world, tmp_path, WISH, said=said).run() is Outcome.PROMOTE
    assert any(line.startswith("Helm left revision ") for line in said)
    assert world.is_clean
