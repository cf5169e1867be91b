"""The promotion record: what was promoted, and on which evidence, as one in-toto statement about the bundle and the image.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from rollout.decision import Outcome, Policy, decide
from rollout.evidence import Evidence

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://chiffre.dev/rollout/v1"

_BUNDLE, _IMAGE = "bundle", "image"
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_TEXTS = ("release", "namespace", "model", "champion", "challenger", "reason", "sentence", "time", "tool")


class RecordError(ValueError):
    """What is no promotion record; the message names the field."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A promotion. Raises `RecordError` where a digest is none.

    Args:
        release: The Helm release, in
        namespace: this namespace.
        model: The registered model's name.
        champion: Its version that had the traffic before.
        challenger: Its version that was promoted.
        bundle_digest: sha256 of the challenger's bundle.json, which has those of the other files.
        image_digest: sha256 of the serving image's manifest.
        evidence_digest: sha256 of the deciding evidence, by `digest`.
        look: The look at which was decided.
        policy: What the challenger had to show.
        outcome: What was decided, why by its code,
        reason: and why
        sentence: in words.
        time: When, by ISO 8601 in UTC.
        tool: The version of this package.
    """

    release: str
    namespace: str
    model: str
    champion: str
    challenger: str
    bundle_digest: str
    image_digest: str
    evidence_digest: str
    look: int
    policy: Policy
    outcome: Outcome
    reason: str
    sentence: str
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    tool: str = field(default_factory=lambda: metadata.version("chiffre"))

    def __post_init__(self) -> None:
        for name in ("bundle_digest", "image_digest", "evidence_digest"):
            object.__setattr__(self, name, sha256(name, getattr(self, name)))

    @classmethod
    def of(cls, evidence: Evidence, policy: Policy, *, look: int, **facts: str) -> Self:
        """The record of what `decide` says of ``evidence``; ``facts`` are the texts and digests that remain."""
        verdict = decide(evidence, policy, look=look)
        said = {"reason": str(verdict.reason), "sentence": verdict.sentence}
        return cls(evidence_digest=digest(evidence), look=look, policy=policy, outcome=verdict.outcome, **said, **facts)

    def to_json(self) -> dict[str, Any]:
        """The statement."""
        subjects = {_BUNDLE: self.bundle_digest, _IMAGE: self.image_digest}
        predicate = {name: getattr(self, name) for name in _TEXTS} | {
            "outcome": str(self.outcome),
            "look": self.look,
            "policy": self.policy.to_json(),
            "evidence": {"sha256": self.evidence_digest},
        }
        return {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": value}} for name, value in subjects.items()],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }

    @classmethod
    def from_json(cls, statement: Any) -> "Record":
        """The reverse. Raises `RecordError`."""
        given = _object("the record", statement, ("_type", "subject", "predicateType", "predicate"))
        for name, expected in {"_type": STATEMENT, "predicateType": PREDICATE}.items():
            if given[name] != expected:
                message = f"{name}: expected {expected}, got {given[name]!r}"
                raise RecordError(message)
        predicate = _object("predicate", given["predicate"], (*_TEXTS, "outcome", "look", "policy", "evidence"))
        if type(predicate["look"]) is not int:
            message = f"predicate.look: expected a whole number, got {predicate['look']!r}"
            raise RecordError(message)
        try:
            policy, outcome = Policy.from_json(predicate["policy"]), Outcome(predicate["outcome"])
        except (ValueError, AttributeError) as error:
            message = f"predicate: {error}"
            raise RecordError(message) from None
        return cls(
            **{name: _text(f"predicate.{name}", predicate[name]) for name in _TEXTS},
            **_subjects(given["subject"]),
            evidence_digest=_digest("predicate.evidence", predicate["evidence"]),
            look=predicate["look"],
            policy=policy,
            outcome=outcome,
        )

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}")
        scratch.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Record":
        """The reverse. Raises `RecordError`."""
        try:
            return cls.from_json(read(path))
        except RecordError as error:
            message = f"{path}: {error}"
            raise RecordError(message) from None


def read(path: Path) -> Any:
    """What a JSON file holds. Raises `RecordError`."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        message = f"cannot be read as JSON: {error}"
        raise RecordError(message) from None


def digest(evidence: Evidence) -> str:
    """The sha256 of ``evidence`` in JSON with its keys in order and no space between them."""
    # As it comes back from a file, where a whole number of milliseconds may be an integer.
    plain = Evidence.from_json(evidence.to_json()).to_json()
    content = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def sha256(name: str, value: str) -> str:
    """The 64 digits of a digest, which may have ``sha256:`` before them. Raises `RecordError`."""
    if not (found := _SHA256.fullmatch(value)):
        message = f"{name}: expected a sha256 in 64 hexadecimal digits, got {value!r}"
        raise RecordError(message)
    return found[1]


def _object(name: str, value: Any, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """An object with these keys and no others: what is not read here must not look as if it counted."""
    if not isinstance(value, dict) or set(value) != set(keys):
        found = f"one with {', '.join(map(str, value)) or 'nothing'}" if isinstance(value, dict) else repr(value)[:80]
        message = f"{name}: expected an object with {', '.join(keys)}, got {found}"
        raise RecordError(message)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        message = f"{name}: expected text, got {value!r}"
        raise RecordError(message)
    return value


def _digest(name: str, value: Any) -> str:
    return sha256(name, _text(f"{name}.sha256", _object(name, value, ("sha256",))["sha256"]))


def _subjects(value: Any) -> dict[str, str]:
    """The digests of bundle and image."""
    listed = [_object("subject", part, ("name", "digest")) for part in value] if isinstance(value, list) else []
    names = [part["name"] for part in listed]
    if names != [_BUNDLE, _IMAGE]:
        message = f"subject: expected {_BUNDLE} and {_IMAGE}, got {names}"
        raise RecordError(message)
    return {f"{part['name']}_digest": _digest(f"subject {part['name']}", part["digest"]) for part in listed}
