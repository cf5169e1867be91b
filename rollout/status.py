"""Where a release is, once or until a roll-out is over; nothing is changed."""

import argparse
import json
import time
from typing import Any

from rollout.decision import Outcome
from rollout.edges import Edges
from rollout.journey import Place
from rollout.report import say
from rollout.story import Stage

_POLL_SECONDS = 5.0


def show(options: argparse.Namespace, at: Edges) -> Outcome:
    """One look, as JSON with ``json``."""
    place = at.locator.locate()
    found = describe(place, dict(at.locator.view().shares))
    print(json.dumps(found, indent=1) if options.json else sentence(place, found["traffic"]))
    return Outcome.PROMOTE


def watch(options: argparse.Namespace, at: Edges) -> Outcome:
    """Say what changes until no roll-out is on, and then how the last one ended."""
    del options
    said = ""
    while True:
        place = at.locator.locate()
        now = sentence(place, dict(at.locator.view().shares))
        if now != said:
            say(now)
        said = now
        if (place.story is None or place.story.is_over) and place.is_settled:
            rolled_back = place.story is not None and place.story.stage is Stage.ROLLED_BACK
            return Outcome.ROLLBACK if rolled_back else Outcome.PROMOTE
        time.sleep(_POLL_SECONDS)


def describe(place: Place, traffic: dict[str, int]) -> dict[str, Any]:
    """For programs."""
    story = place.story
    return {
        "revision": place.revision,
        "model": place.model,
        "version": place.version,
        "image": place.image,
        "percent": place.percent,
        "settled": place.is_settled,
        "trouble": place.trouble,
        "alias": place.alias,
        "traffic": traffic,
        "rollout": None
        if story is None
        else {
            "version": story.version,
            "champion": story.champion,
            "baseline": story.baseline,
            "stage": str(story.stage),
            "percent": story.percent,
            "note": story.note,
        },
    }


def sentence(place: Place, traffic: dict[str, int]) -> str:
    """For people."""
    shares = ", ".join(f"{name} {percent} %" for name, percent in traffic.items()) or "no traffic"
    doing = place.story or f"{place.model} version {place.version}, no roll-out"
    settled = "" if place.is_settled else f"; not settled yet {place.trouble}".rstrip()
    return f"revision {place.revision}: {doing}; {shares}{settled}"
