"""The commands that ask the revisions, or change the release."""

import argparse
import json
import socket
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

from model.idx import DataError
from rollout import alarms, planning, values
from rollout.conductor import Conductor
from rollout.decision import Outcome, Policy
from rollout.edges import Edges
from rollout.errors import RolloutError
from rollout.gathering import Gathering
from rollout.journey import FULL, Judged, Place, Wish
from rollout.judgement import Judgement
from rollout.lease import Lease
from rollout.promotion import Recorder
from rollout.report import say
from rollout.slices import golden
from rollout.story import Story
from rollout.users import Users
from rollout.versions import Version

_CONNECT_SECONDS = 10.0
_ALARMS = "alarms.json"


def plan(options: argparse.Namespace, at: Edges) -> Outcome:
    """Say what a verdict will take; nothing is changed."""
    place = at.locator.locate()
    _find(at, place.model, options.model_version)
    wish = _wish(version=options.model_version, steps=options.steps)
    settings = at.release.values(place.deployed, defaults=True)
    pace = planning.Pace(step_seconds=options.step_seconds, steps=len(wish.steps))
    print(
        f"{place.model} version {wish.version} in the place of version {place.version}, by 0, {', '.join(map(str, wish.steps))} %"
    )
    for line in planning.plan(policy(options, settings), pace).lines():
        print(line)
    return Outcome.PROMOTE


def start(options: argparse.Namespace, at: Edges) -> Outcome:
    """Begin a roll-out, or go on with it."""
    _prepare(options)
    place = at.locator.locate()
    _find(at, place.model, options.model_version)
    if options.image:
        values.read_image(options.image)
    wish = _wish(version=options.model_version, image=options.image, steps=options.steps, pause_at=options.pause_at)
    with Lease(at.cluster.api, at.release.name, at.release.namespace) as lease:
        return _conductor(options, at, place, wish, lease.verify).run()


def promote(options: argparse.Namespace, at: Edges) -> Outcome:
    """Give the challenger of a roll-out all the traffic, if a verdict of its own allows it, or with ``force``."""
    _prepare(options)
    place = at.locator.locate()
    story = _story(place)
    if story.is_over:
        message = f"no roll-out is on: {story}"
        raise RolloutError(message)
    _find(at, place.model, story.version)
    with Lease(at.cluster.api, at.release.name, at.release.namespace) as lease:
        conductor = _conductor(options, at, place, Wish(version=story.version, steps=(FULL,)), lease.verify)
        conductor.force = " ".join(options.force.split())
        return conductor.run()


def rollback(options: argparse.Namespace, at: Edges) -> Outcome:
    """Put the champion back, from a roll-out that is on, or from the promotion that was the last."""
    place = at.locator.locate()
    wish = Wish(version=_story(place).version)
    judged = Judged(outcome=Outcome.ROLLBACK, reason=" ".join(options.reason.split()))
    with Lease(at.cluster.api, at.release.name, at.release.namespace) as lease:
        _conductor(options, at, place, wish, lease.verify).run(judged)
    return Outcome.PROMOTE


def self_test(options: argparse.Namespace, at: Edges) -> Outcome:
    """Roll the champion against itself, and count the false alarms."""
    _prepare(options)
    place = at.locator.locate()
    with Lease(at.cluster.api, at.release.name, at.release.namespace) as lease:
        found = alarms.count_alarms(_conductor(options, at, place, Wish(version=place.version), lease.verify), options.rounds)
    say(str(found))
    (options.output / _ALARMS).write_text(json.dumps(found.to_json(), indent=1) + "\n", encoding="utf-8")
    return Outcome.PROMOTE


def policy(options: argparse.Namespace, settings: dict[str, Any]) -> Policy:
    """The options', and the release's own objective for failed requests where they say nothing of it. Raises `RolloutError`."""
    usual = values.value(settings, ("slo", "errorRate"))
    named = ("margin_points", "latency_ratio", "latency_ms", "latency_requests", "false_alarm", "looks")
    given = {name: getattr(options, name) for name in named if hasattr(options, name)}
    rate = getattr(options, "error_rate", usual)
    try:
        return Policy(**given) if rate is None else Policy(**given, error_rate=rate)
    except ValueError as error:
        raise RolloutError(str(error)) from None


def _wish(**wanted: Any) -> Wish:
    try:
        return Wish(**wanted)
    except ValueError as error:
        raise RolloutError(str(error)) from None


def _story(place: Place) -> Story:
    if not place.story:
        message = f"no roll-out made revision {place.deployed}: there is nothing to promote or to put back"
        raise RolloutError(message)
    return place.story


def _find(at: Edges, model: str, version: str) -> Version:
    if not at.versions:
        message = "tracking_uri: expected MLflow's address, there or in MLFLOW_TRACKING_URI, got nothing"
        raise RolloutError(message)
    if not version.isdecimal() or version.startswith("0"):
        message = f"model_version: expected a version's number, got {version!r}"
        raise RolloutError(message)
    return at.versions.find(model, version)


def _conductor(
    options: argparse.Namespace,
    at: Edges,
    place: Place,
    wish: Wish,
    verify: Callable[[], None],
) -> Conductor:
    settings = at.release.values(place.deployed, defaults=True)
    found = policy(options, settings)
    users = Users(at.cluster.api, options.namespace, options.release, at.locator.view, say)
    judgement = Judgement(
        witness=Gathering(options.data_dir, found, users, say),
        policy=found,
        view=at.locator.view,
        settings=settings,
        directory=options.output,
        namespace=options.namespace,
        release=options.release,
        gateway=options.gateway,
        step_seconds=getattr(options, "step_seconds", 0.0),
        say=say,
    )
    recorder = Recorder(cluster=at.cluster, release=options.release, key=getattr(options, "key", ""), say=say)

    def record(place: Place, story: Story) -> None:
        # The promotion may be of an earlier roll-out, whose end is made up for.
        recorder.write(judgement.open(place, story), _find(at, place.model, story.version))

    return Conductor(
        locator=at.locator,
        judgement=judgement,
        notices=at.cluster,
        aliases=at.names,
        wish=wish,
        verify=verify,
        record=record,
        say=say,
    )


def _prepare(options: argparse.Namespace) -> None:
    """What can be found missing before anything is done. Raises `RolloutError`."""
    if options.gateway:
        _reach(options.gateway)
    try:
        # By force nobody is asked.
        if not getattr(options, "force", ""):
            golden(options.data_dir)
    except DataError as error:
        message = f"data_dir: {error}"
        raise RolloutError(message) from None
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        # Not by its permissions, which say nothing of who may write everywhere.
        TemporaryFile(dir=options.output).close()
    except OSError as error:
        message = f"output: {options.output} is no directory to write to: {error.strerror}"
        raise RolloutError(message) from None


def _reach(gateway: str) -> None:
    """Raises `RolloutError` where nobody listens there."""
    parts = urlsplit(gateway)
    expected = f"gateway: expected the address of the cluster's ingress, http://HOST:PORT, got {gateway!r}"
    if parts.scheme not in ("http", "https") or parts.path.strip("/"):
        raise RolloutError(expected)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS):
            pass
    except (OSError, ValueError) as error:
        message = f"{expected}: {error}"
        raise RolloutError(message) from None
