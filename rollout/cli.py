"""The command line.

    python -m rollout plan     --release digits --model-version 7    # what a verdict will take, before anything is done
    python -m rollout start    --release digits --model-version 7    # begin, or go on; ends promoted, rolled back or held
    python -m rollout status   --release digits                      # where it is; `watch` goes on until it is over
    python -m rollout promote  --release digits                      # all the traffic now, after a verdict of its own
    python -m rollout rollback --release digits                      # the champion back
    python -m rollout aa       --release digits --rounds 5           # the champion against itself
    python -m rollout verify   --record FILE --evidence FILE         # a promotion record, offline

Exit codes: 0 promoted, or done; 1 rolled back; 2 held, or paused; 3 the command, release or cluster must be mended first;
130 and 143 stopped by Ctrl-C and SIGTERM, the release stays where it is.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rollout import verification
from rollout.decision import Policy
from rollout.errors import RolloutError

_GOING = ("start", "promote", "rollback", "aa")
_ASKING = ("plan", "start", "promote", "aa")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RolloutError(message)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command and its options. Raises `RolloutError`."""
    assert __doc__
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="python -m rollout", description=__doc__, formatter_class=layout, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = {name: _command(commands, name) for name in (*_GOING, "plan", "status", "watch")}
    for name in _GOING:
        _add_way(add[name])
    for name in ("plan", "start"):
        add[name].add_argument("--model-version", "--model_version", required=True, metavar="N", help="The challenger, a number.")
    for name in _ASKING:
        _add_policy(add[name])
    for name in ("plan", "start"):
        add[name].add_argument("--steps", type=_numbers, default="5,25,50,100", help="Percent of the traffic, rising to 100.")
        add[name].add_argument("--step_seconds", type=_seconds, default="60", help="How long each step with users takes.")
    add["start"].add_argument("--pause_at", type=int, metavar="PERCENT", help="Stop at this share; the same command goes on.")
    image = "The challenger's image, REPOSITORY:TAG or REPOSITORY@sha256:...; without it the image stays."
    add["start"].add_argument("--image", default="", help=image)
    for name in ("start", "promote"):
        key = "cosign's private key for the promotion record; without it keyless, where there is a token for that."
        add[name].add_argument("--key", default="", help=key)
    add["promote"].add_argument(
        "--force", default="", metavar="REASON", help="Promote without a verdict; the reason is recorded."
    )
    add["rollback"].add_argument("--reason", default="by hand", help="Goes into the release's history.")
    add["aa"].add_argument("--rounds", type=int, default=3, help="How many times.")
    add["status"].add_argument("--json", action="store_true", help="For programs.")
    verification.add_arguments(commands.add_parser("verify", allow_abbrev=False))
    return parser.parse_args(words)


def _command(commands: Any, name: str) -> argparse.ArgumentParser:
    layout = argparse.ArgumentDefaultsHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(name, formatter_class=layout, allow_abbrev=False)
    parser.add_argument("--release", required=True, help="The Helm release.")
    parser.add_argument("--namespace", default="chiffre", help="Where it is.")
    uri = "MLflow's address."
    parser.add_argument("--tracking_uri", default=os.environ.get("MLFLOW_TRACKING_URI", ""), help=uri)
    return parser


def _add_way(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chart", default="helm/chiffre", help="The chart.")
    parser.add_argument("--ready_seconds", type=_seconds, default="300", help="How long a new revision may take to be ready.")
    parser.add_argument("--output", type=Path, default="build/rollout", help="Directory for evidence, summary and record.")
    gateway = "Address of the cluster's ingress; without it the service's own host names are asked."
    parser.add_argument("--gateway", default=os.environ.get("GATEWAY", ""), help=gateway)
    parser.add_argument("--data_dir", default="data/mnist", help="Folder with the MNIST files.")


def _add_policy(parser: argparse.ArgumentParser) -> None:
    usual, group = Policy(), parser.add_argument_group("policy")
    group.add_argument("--margin_points", type=float, default=usual.margin_points, help="How much less accurate it may be.")
    group.add_argument("--latency_ratio", type=float, default=usual.latency_ratio, help="How many times slower at p95 it may be,")
    group.add_argument("--latency_ms", type=float, default=usual.latency_ms, help="or how many milliseconds.")
    group.add_argument(
        "--latency_requests", type=int, default=usual.latency_requests, help="How many answers are compared at first."
    )
    rate = "Share of requests that may fail; the release's slo.errorRate where it is not given."
    group.add_argument("--error_rate", type=float, default=argparse.SUPPRESS, help=rate)
    group.add_argument("--false_alarm", type=float, default=usual.false_alarm, help="Probability of rolling back an equal one.")
    group.add_argument("--looks", type=_numbers, default=",".join(map(str, usual.looks)), help="Golden images at each look.")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"expected numbers with commas between them, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        message = f"expected a number of seconds, 0 or more, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return found
