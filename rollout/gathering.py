"""Evidence on two revisions, from the probe, the golden images and the shadow; each image is asked once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from model.bundle import Floats, Labels
from rollout import guards
from rollout.decision import Outcome, Policy
from rollout.evidence import GOLDEN, Arm, Evidence, Pairs, Watch
from rollout.probe import Arms, NotReadyError, check_bad_input, compare, measure
from rollout.shadow import mirror
from rollout.slices import golden, shifted
from rollout.users import Users

_WARM_UP = 50
_MOST_MIRRORED = 500
_WATCH_REQUESTS, _WATCH_SECONDS = 200, 5.0


class Gathering:
    """Asks both revisions, and ``users`` about theirs."""

    def __init__(self, data_dir: str, policy: Policy, users: Users, say: Callable[[str], None]) -> None:
        self._data_dir, self._policy, self._users, self._say = data_dir, policy, users, say
        self._images: dict[str, Floats] = {}
        self._labels: Labels = np.empty(0, np.int64)

    def begin(self, arms: Arms) -> Evidence:
        """What no user may meet: bad input, and live requests whose answers are discarded; or that it does not wake up."""
        try:
            bad_input = check_bad_input(arms)
        except NotReadyError as error:
            return Evidence(not_ready=str(error))
        self._say(f"bad input: {len(bad_input)} wrong answers")
        mirrored = mirror(self._users.samples(), arms, most=_MOST_MIRRORED)
        self._say(f"live requests mirrored: {mirrored.requests:,}, {mirrored.failed:,} failed")
        return Evidence(bad_input=bad_input, challenger=mirrored)

    def look(self, arms: Arms, evidence: Evidence, number: int) -> Evidence:
        """The images that are new in a look, of all slices."""
        start, stop = (0, *self._policy.looks)[number : number + 2]
        slices = dict(evidence.slices)
        for name, images in self._load().items():
            pairs, champion, challenger = compare(arms, images[start:stop], self._labels[start:stop])
            slices[name] = add_pairs(slices.get(name, Pairs()), pairs)
            evidence = _count(evidence, champion, challenger)
        found = slices[GOLDEN]
        only = f"only the champion right on {found.champion_only}, only the challenger on {found.challenger_only}"
        self._say(f"golden images: {found.count:,}, {only}")
        return replace(evidence, slices=slices)

    def load(self, arms: Arms, evidence: Evidence, requests: int) -> Evidence:
        """Further requests of one image to each, in turns."""
        images = self._load()[GOLDEN]
        champion, challenger = measure(arms, images, requests=requests, warm_up=_WARM_UP)
        return _count(evidence, champion, challenger)

    def watch(self, arms: Arms | None, evidence: Evidence, seconds: float) -> Evidence:
        """The time of a step with users: some requests every few seconds, to both, besides theirs.

        It ends before only where the errors so far roll back: users are not to wait for the end of a step with what fails them.
        """
        deadline, asked, before = time.monotonic() + seconds, Evidence(), self._users.read()
        while True:
            if arms:
                asked = self.load(arms, asked, _WATCH_REQUESTS)
            users = self._users.since(before, asked.champion, asked.challenger)
            found = _watched(evidence, _count(asked, *users))
            left = deadline - time.monotonic()
            if left <= 0 or guards.errors(found, self._policy).outcome is Outcome.ROLLBACK:
                break
            time.sleep(min(left, _WATCH_SECONDS))
        champion, challenger = users
        self._say(f"users: {champion.requests:,} requests to the champion, {challenger.requests:,} to the challenger")
        return found

    def _load(self) -> Mapping[str, Floats]:
        if not self._images:
            images, self._labels = golden(self._data_dir)
            wanted = {name: found for name, found in shifted(images).items() if name in self._policy.slice_margin_points}
            self._images = {GOLDEN: images, **wanted}
        return self._images


def add_pairs(first: Pairs, second: Pairs) -> Pairs:
    """Both sets of images together."""
    return Pairs(
        both_right=first.both_right + second.both_right,
        champion_only=first.champion_only + second.champion_only,
        challenger_only=first.challenger_only + second.challenger_only,
        both_wrong=first.both_wrong + second.both_wrong,
        differing=first.differing + second.differing,
    )


def add_arms(first: Arm, second: Arm, *, most_examples: int = 10) -> Arm:
    """Both sets of requests together, the second behind the first."""
    return Arm(
        latencies_ms=(*first.latencies_ms, *second.latencies_ms),
        requests=first.requests + second.requests,
        failed=first.failed + second.failed,
        examples=(*first.examples, *second.examples)[:most_examples],
    )


def _count(evidence: Evidence, champion: Arm, challenger: Arm) -> Evidence:
    return replace(evidence, champion=add_arms(evidence.champion, champion), challenger=add_arms(evidence.challenger, challenger))


def _watched(evidence: Evidence, found: Evidence) -> Evidence:
    """With what came during a watch, which is in the arms and by itself."""
    champion, challenger = (Arm(requests=arm.requests, failed=arm.failed) for arm in (found.champion, found.challenger))
    watch = Watch(number=evidence.watch.number + 1, champion=champion, challenger=challenger)
    return replace(_count(evidence, found.champion, found.challenger), watch=watch)
