"""Whether a promotion record holds, offline: what it says is compared with the evidence, and with what is to be deployed.

python -m rollout verify --record build/rollout/record.json --bundle build/bundle --image_digest sha256:...
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model.bundle import Bundle
from model.manifest import BundleError
from rollout.decision import Outcome, Policy, decide
from rollout.errors import RolloutError
from rollout.evidence import GOLDEN, Evidence, Pairs
from rollout.record import Record, RecordError, digest, read, sha256
from rollout.signing import GITHUB_ISSUER, Signer, SigningError, check_signature

# The larger one of these is, the more a policy lets pass.
_LIMITS = {
    "margin_points": "how much less accurate, in points, a challenger may be",
    "latency_ratio": "how many times slower at p95",
    "latency_ms": "or how many milliseconds",
    "error_rate": "the share of requests that may fail",
    "false_promotion": "the probability of promoting one that is worse",
}
# The tail of a few answers tells nothing, so that this one has a least.
_LEAST = {"latency_requests": "the fewest answers of each whose latency may be compared"}


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What is asked of a record; what is empty is not compared.

    Args:
        facts: Fields of the record by name: ``release``, ``bundle_digest``, ``image_digest``, ...
        policy: The record's may not be looser than it.
    """

    facts: dict[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)


def verify(record: Record, evidence: Sequence[Evidence], demand: Demand) -> tuple[str, ...]:
    """What is wrong with ``record``, a sentence each; ``evidence`` has the deciding one, among others or alone."""
    return (*_compare(record, demand.facts), *_compare_policies(record.policy, demand.policy), *_judge(record, evidence))


def _compare(record: Record, facts: dict[str, str]) -> Iterator[str]:
    for name, expected in facts.items():
        if expected and getattr(record, name) != expected:
            yield f"{name}: expected {expected}, the record has {getattr(record, name)}"


def _compare_policies(found: Policy, allowed: Policy) -> Iterator[str]:
    pairs = {name: (getattr(found, name), getattr(allowed, name)) for name in _LIMITS}
    margins = {
        name: (found.slice_margin_points.get(name, float("inf")), most) for name, most in allowed.slice_margin_points.items()
    }
    for name, (value, most) in (pairs | margins).items():
        if value > most:
            yield f"policy: {name}: expected at most {most:g}, the record has {value:g}"
    for name in _LEAST:
        fewest, count = getattr(allowed, name), getattr(found, name)
        if count < fewest:
            yield f"policy: {name}: expected {fewest} or more, the record has {count}"


def _judge(record: Record, evidence: Sequence[Evidence]) -> Iterator[str]:
    """Whether the evidence is the record's, and says what the record says."""
    deciding = next((one for one in evidence if digest(one) == record.evidence_digest), None)
    if deciding is None:
        yield f"evidence: expected one with the digest {record.evidence_digest}, none of {len(evidence)} has it"
        return
    try:
        verdict = decide(deciding, record.policy, look=record.look)
    except ValueError as error:
        yield f"evidence: cannot be judged by the record's policy: {error}"
        return
    # A later look may err more than an earlier one.
    asked, expected = deciding.slices.get(GOLDEN, Pairs()).count, record.policy.looks[record.look]
    if asked != expected:
        yield f"evidence: look {record.look} is at {expected} golden images, {asked} were asked"
    said = {"outcome": (record.outcome, verdict.outcome), "reason": (record.reason, verdict.reason)}
    for name, (recorded, found) in {**said, "sentence": (record.sentence, verdict.sentence)}.items():
        if recorded != found:
            yield f"{name}: the evidence says {found}, the record {recorded}"
    if verdict.outcome is not Outcome.PROMOTE:
        yield f"outcome: expected {Outcome.PROMOTE}, the evidence says {verdict.outcome}: {verdict.sentence}"


def load_evidence(path: Path) -> tuple[Evidence, ...]:
    """That of all steps of a roll-out's report, or the one alone that a file holds. Raises `RecordError`."""
    try:
        content = read(path)
        steps = content["steps"] if isinstance(content, dict) and "steps" in content else [{"evidence": content}]
        return tuple(Evidence.from_json(step["evidence"]) for step in steps)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{path}: expected a roll-out's evidence: {error}"
        raise RecordError(message) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``verify``."""
    parser.add_argument("--record", type=Path, required=True, metavar="FILE", help="The promotion record.")
    beside = "The roll-out's evidence; without it evidence.json beside the record."
    parser.add_argument("--evidence", type=Path, metavar="FILE", help=beside)
    about = parser.add_argument_group("what the record must be of; what is not given is not compared")
    about.add_argument("--bundle", type=Path, metavar="DIRECTORY", help="The bundle, whose files are compared with its digests.")
    for name in ("bundle_digest", "image_digest"):
        about.add_argument(f"--{name}", default="", metavar="SHA256", help="With sha256: before it or without.")
    for name in ("release", "namespace", "model"):
        about.add_argument(f"--{name}", default="", help=f"The {name}'s name.")
    about.add_argument("--model-version", "--model_version", dest="challenger", default="", help="The version promoted.")
    limits, usual = parser.add_argument_group("the most that the record's policy may allow"), Policy()
    for name, meaning in (_LIMITS | _LEAST).items():
        default = getattr(usual, name)
        limits.add_argument(f"--{name}", type=type(default), default=default, help=f"{meaning} (%(default)s).")
    signed = parser.add_argument_group("the signature, which is checked by cosign")
    signed.add_argument(
        "--require_signature", action="store_true", help="Refuse an unsigned record; implied by who must have signed:"
    )
    signed.add_argument("--key", default="", help="the public key of who must have, a file or a KMS' URI; or")
    signed.add_argument("--certificate_identity", default="", help="the identity, such as a workflow's address with its branch,")
    signed.add_argument("--certificate_oidc_issuer", default=GITHUB_ISSUER, help="and who vouched for it (%(default)s).")
    signed.add_argument("--trusted_root", default="", metavar="FILE", help="The roots of trust, so that no network is asked.")


def run(options: argparse.Namespace) -> int:
    """Say what is wrong, or that nothing is; the exit code. Raises `RolloutError` for limits that cannot be."""
    problems = _problems(options, _allowed(options))
    for problem in problems:
        print(f"{options.record}: {problem}")
    if not problems:
        signed = "signed" if _is_signed(options) else "whose signature was not asked for"
        print(f"{options.record}: a promotion that its evidence bears out, {signed}")
    return int(bool(problems))


def _is_signed(options: argparse.Namespace) -> bool:
    """Whether the record must be."""
    return bool(options.require_signature or options.key or options.certificate_identity)


def _problems(options: argparse.Namespace, allowed: Policy) -> tuple[str, ...]:
    try:
        if _is_signed(options):
            check_signature(options.record, _signer(options))
        record = Record.load(options.record)
        evidence = load_evidence(options.evidence or options.record.with_name("evidence.json"))
        return verify(record, evidence, Demand(facts=_facts(options), policy=allowed))
    except (RecordError, SigningError, BundleError) as error:
        return (str(error),)


def _signer(options: argparse.Namespace) -> Signer:
    return Signer(
        key=options.key,
        identity=options.certificate_identity,
        issuer=options.certificate_oidc_issuer,
        trusted_root=options.trusted_root,
    )


def _facts(options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(options, name) for name in ("release", "namespace", "model", "challenger")}
    for name in ("bundle_digest", "image_digest"):
        given = getattr(options, name)
        facts[name] = sha256(name, given) if given else ""
    if options.bundle:
        found = Bundle.load(options.bundle).digest
        if facts["bundle_digest"] not in ("", found):
            message = f"bundle_digest: expected that of {options.bundle}, {found}, got {facts['bundle_digest']}"
            raise RecordError(message)
        facts["bundle_digest"] = found
    return facts


def _allowed(options: argparse.Namespace) -> Policy:
    try:
        return replace(Policy(), **{name: getattr(options, name) for name in (*_LIMITS, *_LEAST)})
    except ValueError as error:
        raise RolloutError(str(error)) from None
