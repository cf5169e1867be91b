"""The way of a roll-out: to its end, to a pause, back; killed at each effect and started again; and beside somebody else's."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from rollout import judgement
from rollout.alarms import count_alarms
from rollout.decision import Outcome, Policy, Verdict, decide
from rollout.errors import RolloutError
from rollout.evidence import Evidence
from rollout.journey import Wish
from rollout.release import HelmError
from rollout.story import Stage, Story
from tests.rollout.world import POLICY, ROLL_BACK, Killed, World, process, run_killed, uri

WISH = Wish(version="7")


@pytest.fixture(autouse=True)
def _verdicts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real ones; the same evidence comes again and again here."""
    monkeypatch.setattr(judgement, "decide", _decide)


def _decide(evidence: Evidence, policy: Policy, *, look: int) -> Verdict:
    key = (repr(evidence), look)
    if key not in _VERDICTS:
        _VERDICTS[key] = decide(evidence, policy, look=look)
    return _VERDICTS[key]


_VERDICTS: dict[tuple[str, int], Verdict] = {}
FAULTS = ["accuracy", "latency", "errors", "bad_input", "not_ready"]


def world_of(fault: str) -> World:
    return World(never_ready=frozenset({"7"} if fault == "not_ready" else ()))


def stories(world: World) -> list[str]:
    return [entry.description for entry in world.entries[1:]]


def test_a_good_challenger_is_promoted_step_by_step(tmp_path: Path) -> None:
    world = World()
    assert process(world, tmp_path, WISH).run() is Outcome.PROMOTE
    told = [
        f"roll-out of version 7: {what} (from version 6 of revision 1)"
        for what in ("0 %", "5 %", "25 %", "50 %", "100 %", "promoted")
    ]
    assert stories(world) == told
    assert world.is_clean
    assert world.alias == "7"
    assert world.events[-1] == "RolloutPromoted: version 7 has all traffic, and is the champion"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_challenger_is_rolled_back_before_any_user_meets_it(fault: str, tmp_path: Path) -> None:
    world = world_of(fault)
    conductor = process(world, tmp_path, WISH, fault=fault)
    assert conductor.run() is Outcome.ROLLBACK
    assert conductor.judgement.report
    assert conductor.judgement.report.end["reason"] == fault
    assert world.is_clean
    assert world.alias == "6"
    assert world.seen_by_users == {uri("6")}
    assert [story.partition(": ")[2].partition(" (")[0] for story in stories(world)] == [
        "0 %",
        f"putting back, {fault}",
        f"rolled back, {fault}",
    ]


@pytest.mark.parametrize("percent", ["5", "50", "100"])
def test_one_that_fails_with_users_is_rolled_back_from_there(percent: str, tmp_path: Path) -> None:
    world = World()
    assert process(world, tmp_path, WISH, fault="errors", at=percent).run() is Outcome.ROLLBACK
    assert world.is_clean
    assert world.alias == "6"


def test_one_that_cannot_be_told_from_worse_is_held_and_goes_on_later(tmp_path: Path) -> None:
    world = World()
    assert process(world, tmp_path, WISH, fault="open").run() is Outcome.INCONCLUSIVE
    assert stories(world)[-1].startswith("roll-out of version 7: 0 %")
    assert world.events[-1].startswith("RolloutHeld: held at 0 %: accuracy_open")
    assert process(world, tmp_path / "another", WISH).run() is Outcome.PROMOTE


def test_it_pauses_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    world, wish = World(), replace(WISH, pause_at=25)
    assert process(world, tmp_path, wish).run() is Outcome.INCONCLUSIVE
    assert stories(world)[-1] == "roll-out of version 7: 25 %, paused (from version 6 of revision 1)"
    assert process(world, tmp_path, wish).run() is Outcome.PROMOTE
    assert world.is_clean


def test_evidence_of_before_is_not_gathered_twice(tmp_path: Path) -> None:
    world, wish = World(), replace(WISH, pause_at=25)
    process(world, tmp_path, wish).run()
    again = process(world, tmp_path, wish)
    assert again.run() is Outcome.PROMOTE
    assert "begin" not in again.judgement.witness.asked  # type: ignore[attr-defined] # the test's own


@pytest.mark.parametrize("keeps_directory", [True, False])
@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_killed_anywhere_and_started_again_it_ends_as_if_it_had_not_been(
    fault: str, keeps_directory: bool, tmp_path: Path
) -> None:
    expected = Outcome.ROLLBACK if fault else Outcome.PROMOTE
    directories = count()

    def start(world: World) -> Outcome:
        directory = tmp_path if keeps_directory else tmp_path / str(next(directories))
        return process(world, directory, WISH, fault=fault).run()

    killed = 0
    for number, world, outcome in run_killed(start, lambda: world_of(fault)):
        assert outcome is expected, number
        assert world.is_clean, number
        assert world.alias == ("6" if fault else "7")
        assert not fault or world.seen_by_users == {uri("6")}, number
        killed += 1
        for path in tmp_path.glob("*.*"):
            path.unlink()
    assert killed >= 15


def killed_at(story: str, directory: Path, fault: str = "", at: str = "0") -> World:
    """A world whose process died when its release had come to ``story``."""
    for number in count():
        world = World(kill_at=number)
        with pytest.raises(Killed):
            process(world, directory / str(number), WISH, fault=fault, at=at).run()
        if story in world.entries[-1].description:
            world.kill_at = None
            return world
    raise AssertionError(story)


def test_killed_while_it_puts_back_it_goes_on_with_that_and_does_not_begin_again(tmp_path: Path) -> None:
    world = killed_at("putting back", tmp_path, fault="errors", at="5")
    told = stories(world)
    # The fault does not show any more.
    assert process(world, tmp_path / "another", WISH).run() is Outcome.ROLLBACK
    assert stories(world) == [*told, "roll-out of version 7: rolled back, errors (from version 6 of revision 1)"]


def test_killed_before_the_alias_moved_its_evidence_is_not_the_next_ones(tmp_path: Path) -> None:
    world, recorded = killed_at("promoted", tmp_path), []
    assert world.alias == "6"
    following = process(
        world, tmp_path, replace(WISH, version="8"), fault="accuracy", record=lambda _, story: recorded.append(story.version)
    )
    assert following.run() is Outcome.ROLLBACK
    assert (recorded, world.alias) == (["7"], "7")
    assert following.judgement.report
    assert following.judgement.report.head["challenger"]["version"] == "8"


def test_what_was_done_already_is_a_success_without_a_change(tmp_path: Path) -> None:
    world = promoted(tmp_path)
    before = list(world.entries)
    assert process(world, tmp_path, WISH).run() is Outcome.PROMOTE
    assert world.entries == before


def test_evidence_by_another_policy_is_not_gone_on_with(tmp_path: Path) -> None:
    world = World()
    process(world, tmp_path, replace(WISH, pause_at=25)).run()
    again = process(world, tmp_path, WISH)
    again.judgement.policy = replace(POLICY, looks=(5000,))
    with pytest.raises(RolloutError, match="judged by another policy until now"):
        again.run()


def test_what_an_earlier_roll_out_left_is_kept_in_a_folder_of_its_own(tmp_path: Path) -> None:
    world = promoted(tmp_path)
    evidence, record = tmp_path / "evidence.json", tmp_path / "record.json"
    record.write_text("{}")
    text = evidence.read_text()
    # Neither what is done already nor what asks nobody touches it.
    process(world, tmp_path, WISH).run()
    forced = process(world, tmp_path, replace(WISH, version="8"))
    forced.force = "there is a fire"
    assert forced.run() is Outcome.PROMOTE
    assert (evidence.read_text(), record.read_text()) == (text, "{}")
    assert process(world, tmp_path, replace(WISH, version="9"), fault="accuracy").run() is Outcome.ROLLBACK
    (folder,) = tmp_path.glob("until-*")
    assert (folder / "evidence.json").read_text() == text
    assert (folder / "record.json").exists()
    assert not record.exists()


def test_the_rounds_of_a_self_test_each_ask_for_themselves(tmp_path: Path) -> None:
    world = World()
    conductor = process(world, tmp_path, Wish(version="6"))
    assert len(count_alarms(conductor, 3).verdicts) == 3
    assert conductor.judgement.witness.asked.count("begin") == 3  # type: ignore[attr-defined] # the test's own
    assert world.is_clean


def test_killed_twice_it_ends_as_well(tmp_path: Path) -> None:
    # The first upgrade is the one whose putting back nothing tells of.
    for first in (1, 2, *range(0, 40, 3)):
        for second in range(0, 40, 5):
            world = World()
            for number in (first, second, None):
                world.kill_at = number
                try:
                    process(world, tmp_path, WISH).run()
                except Killed:
                    continue
                except RolloutError:
                    break
            assert world.is_clean
            assert world.alias == "7"
            (tmp_path / "evidence.json").unlink(missing_ok=True)


def promoted(directory: Path) -> World:
    world = World()
    process(world, directory, WISH).run()
    return world


def test_a_promotion_can_be_taken_back_and_killed_meanwhile(tmp_path: Path) -> None:
    def start(world: World) -> Outcome:
        return process(world, tmp_path, WISH).run(ROLL_BACK)

    for number, world, outcome in run_killed(start, lambda: promoted(tmp_path)):
        assert outcome is Outcome.ROLLBACK
        assert world.is_clean, number
        assert world.alias == "6"


def test_where_nothing_was_promoted_the_registry_is_not_asked_for(tmp_path: Path) -> None:
    world = World()
    process(world, tmp_path, replace(WISH, pause_at=25)).run()
    world.is_registry_away = True
    assert process(world, tmp_path, WISH).run(ROLL_BACK) is Outcome.ROLLBACK


@pytest.mark.parametrize("lost", ["7", ""])
def test_users_are_put_back_though_the_registry_is_away_or_what_was_promoted_is_not_ready(lost: str, tmp_path: Path) -> None:
    world = promoted(tmp_path)
    if lost:
        world.failed.add(len(world.revisions))
        process(world, tmp_path, WISH).run(ROLL_BACK)
        assert world.is_clean
        return
    world.is_registry_away = True
    with pytest.raises(RolloutError, match="version 6 has all traffic: by hand; who is called champion is not known: MLflow"):
        process(world, tmp_path, WISH).run(ROLL_BACK)
    assert world.view("digits").serves(uri=uri("6"), mark="", percent=None)
    world.is_registry_away = False
    # It is the same command that makes up for it.
    assert process(world, tmp_path, WISH).run(ROLL_BACK) is Outcome.ROLLBACK
    assert world.alias == "6"


def test_by_hand_a_roll_out_is_put_back_from_a_pause(tmp_path: Path) -> None:
    world = World()
    process(world, tmp_path, replace(WISH, pause_at=25)).run()
    assert process(world, tmp_path, WISH).run(ROLL_BACK) is Outcome.ROLLBACK
    assert world.is_clean
    assert stories(world)[-1] == "roll-out of version 7: rolled back, by hand (from version 6 of revision 1)"


def test_a_promotion_by_force_asks_nobody_and_says_so(tmp_path: Path) -> None:
    world = World()
    process(world, tmp_path, replace(WISH, pause_at=5)).run()
    recorded: list[Story] = []
    conductor = process(
        world, tmp_path, Wish(version="7", steps=(100,)), fault="accuracy", record=lambda _, story: recorded.append(story)
    )
    conductor.force = "the fire brigade asked for it"
    assert conductor.run() is Outcome.PROMOTE
    assert conductor.judgement.witness.asked == []  # type: ignore[attr-defined] # the test's own
    assert stories(world)[-1].startswith("roll-out of version 7: promoted, forced: the fire brigade asked for it (")
    assert Story.parse(stories(world)[-1])
    # The verdict at 5 % was a promotion; this one stands on nothing.
    assert recorded == []


def test_a_new_image_comes_and_goes_with_its_roll_out(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    for fault, image in (("", f"chiffre-serve@{digest}"), ("accuracy", ":1")):
        world, recorded = World(), []
        wish = replace(WISH, version="6", image=f"chiffre-serve@{digest}")
        process(world, tmp_path / fault, wish, fault=fault, record=lambda _, story: recorded.append(story)).run()  # noqa: B023
        assert world.revisions[-1].image == image
        assert world.is_clean
        assert len(recorded) == int(not fault)


def conflict(change: Callable[[World], None], wish: Wish, directory: Path) -> str:
    world = World()
    change(world)
    before = list(world.entries)
    with pytest.raises(RolloutError) as raised:
        process(world, directory, wish).run()
    assert world.entries == before
    return str(raised.value)


def describe(world: World, description: str, percent: int | None) -> None:
    content = {**world.values(1), **({} if percent is None else {"canary": {"percent": percent}})}
    world.make(content, description)


def test_what_cannot_be_begun_changes_nothing(tmp_path: Path) -> None:
    assert "already" in conflict(lambda _: None, replace(WISH, version="6"), tmp_path)
    on = "roll-out of version 8: 25 % (from version 6 of revision 1)"
    assert "another roll-out is on, of version 8" in conflict(lambda world: describe(world, on, 25), WISH, tmp_path)
    assert "no roll-out set it" in conflict(lambda world: describe(world, "Upgrade complete", 10), WISH, tmp_path)
    test = "roll-out of version 6: A/A round, 2 (from version 6 of revision 1)"
    assert "an A/A test is on" in conflict(
        lambda world: describe(world, test, 0), replace(WISH, version="6", image=":1"), tmp_path
    )


def test_a_release_that_somebody_left_broken_is_refused(tmp_path: Path) -> None:
    def break_it(world: World) -> None:
        world.broken = 1
        with pytest.raises(HelmError):
            world.make(world.values(1), "Upgrade complete")

    assert "revision 2 failed" in conflict(break_it, WISH, tmp_path)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_where_helm_fails_half_way_the_release_is_where_it_was_and_goes_on_later(after: int, tmp_path: Path) -> None:
    world = World()
    conductor, done = process(world, tmp_path, WISH), count()

    def verify() -> None:
        world.broken = int(next(done) == after)

    conductor.verify = verify
    with pytest.raises(HelmError, match="where it was"):
        conductor.run()
    assert world.entries[-1].status == "deployed"
    assert process(world, tmp_path, WISH).run() is Outcome.PROMOTE
    assert world.is_clean


def test_a_champion_that_does_not_come_back_leaves_users_where_they_are(tmp_path: Path) -> None:
    world = World()
    process(world, tmp_path, replace(WISH, pause_at=25)).run()
    world.never_ready = frozenset({"6"})
    with pytest.raises(RolloutError, match="the champion's new revision is not ready, users are with its old one"):
        process(world, tmp_path, WISH).run(ROLL_BACK)
    assert world.view("digits").shares == {"r2": 0, "r1": 100}
    assert stories(world)[-1] == "roll-out of version 7: putting back, by hand (from version 6 of revision 1)"


@pytest.mark.parametrize(
    "story",
    [
        Story(version="7", champion="6", baseline=12, stage=Stage.SHARE, percent=25),
        Story(version="7", champion="6", baseline=12, stage=Stage.PAUSED, percent=0),
        Story(version="6", champion="6", baseline=12, stage=Stage.SELF_TEST, note="3"),
        Story(version="7", champion="6", baseline=12, stage=Stage.PUTTING_BACK, note="accuracy"),
        Story(version="7", champion="6", baseline=12, stage=Stage.ROLLED_BACK, note="by hand, (really), of revision 3)"),
        Story(version="7", champion="6", baseline=12, stage=Stage.PROMOTED),
    ],
)
def test_what_is_written_is_read_again(story: Story) -> None:
    assert Story.parse(str(story)) == story


@pytest.mark.parametrize("text", ["Upgrade complete", "Rollback to 3", "roll-out of version 7: 25 %", ""])
def test_what_others_wrote_is_no_roll_out(text: str) -> None:
    assert Story.parse(text) is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"steps": ()}, "steps"),
        ({"steps": (5, 50)}, "steps"),
        ({"steps": (50, 5, 100)}, "steps"),
        ({"steps": (0, 100)}, "steps"),
        ({"pause_at": 7}, "pause_at"),
        ({"pause_at": 100}, "pause_at"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wanted: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        replace(WISH, **wanted)  # type: ignore[arg-type] # any of them
