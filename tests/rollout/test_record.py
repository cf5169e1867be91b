"""The promotion record: nothing in it can be changed unseen, and no word of its own makes it hold."""

import argparse
import copy
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import Bundle
from rollout import signing, verification
from rollout.decision import Outcome, Policy
from rollout.errors import RolloutError
from rollout.evidence import Arm, Evidence, Pairs
from rollout.record import PREDICATE, STATEMENT, Record, RecordError, digest
from rollout.signing import Signer, SigningError, check_signature, sign, signature
from rollout.verification import Demand, load_evidence, verify
from tests.processes import ROOT
from tests.processes import run as command

DIGEST, OTHER = "1" * 64, "2" * 64
FACTS = {
    "release": "digits",
    "namespace": "chiffre",
    "model": "digits",
    "champion": "6",
    "challenger": "7",
    "bundle_digest": DIGEST,
    "image_digest": f"sha256:{OTHER}",
}
DEMAND = Demand(facts={**FACTS, "image_digest": OTHER})
PRIVATE, PUBLIC = "cosign.key", "cosign.pub"
# Signs by noting the file's digest and who did it, and checks both: cosign's command line without its cryptography.
COSIGN = f"""#!{sys.executable}
import hashlib, json, os, sys
command, *words, path = sys.argv[1:]
given = dict(zip(words, words[1:]))
content = hashlib.sha256(open(path, "rb").read()).hexdigest()
if command == "sign-blob":
    who = given.get("--key", os.environ.get("SIGSTORE_ID_TOKEN"))
    open(given["--bundle"], "w").write(json.dumps([content, who.replace(".key", ".pub")]))
elif command == "verify-blob":
    who = given.get("--key", given.get("--certificate-identity"))
    if json.load(open(given["--bundle"])) != [content, who]:
        sys.exit("main.go:74: error during command execution: invalid signature when validating ASN.1 encoded signature")
"""


def arm(seed: int) -> Arm:
    drawn = np.random.default_rng(seed).uniform(2, 4, 2000)
    return Arm(latencies_ms=tuple(drawn.tolist()), requests=20_000)


GOOD = Evidence(
    slices={
        name: Pairs(both_right=4900, champion_only=10, challenger_only=10, both_wrong=80, differing=25)
        for name in ("golden", "rotated", "noisy")
    },
    champion=arm(1),
    challenger=arm(2),
)
WORSE = replace(GOOD, slices={**GOOD.slices, "golden": Pairs(both_right=4700, champion_only=200, both_wrong=100, differing=210)})


def record(evidence: Evidence = GOOD, policy: Policy | None = None, **facts: str) -> Record:
    return Record.of(evidence, policy or Policy(), look=2, **{**FACTS, **facts})


RECORD = record()


def test_a_promotion_is_recorded_and_holds(tmp_path: Path) -> None:
    made = RECORD
    assert (made.outcome, made.reason, made.image_digest) == (Outcome.PROMOTE, "not_inferior", OTHER)
    made.save(tmp_path / "new" / "record.json")
    read = Record.load(tmp_path / "new" / "record.json")
    assert read == made
    assert verify(read, [GOOD], DEMAND) == ()
    assert verify(read, [WORSE, GOOD], Demand()) == ()


def test_it_is_an_in_toto_statement_about_bundle_and_image() -> None:
    statement = RECORD.to_json()
    assert list(statement) == ["_type", "subject", "predicateType", "predicate"]
    assert (statement["_type"], statement["predicateType"]) == (STATEMENT, PREDICATE)
    assert {part["name"]: part["digest"]["sha256"] for part in statement["subject"]} == {"bundle": DIGEST, "image": OTHER}
    assert json.loads(json.dumps(statement)) == statement


def test_evidence_has_one_digest_wherever_it_was(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text(
        json.dumps({"release": "digits", "steps": [{"look": 2, "evidence": WORSE.to_json()}, {"evidence": GOOD.to_json()}]})
    )
    assert [digest(one) for one in load_evidence(file)] == [digest(WORSE), digest(GOOD)]
    file.write_text(json.dumps(GOOD.to_json(), indent=3, sort_keys=True))
    assert [digest(one) for one in load_evidence(file)] == [digest(GOOD)]
    whole = replace(GOOD, champion=Arm(latencies_ms=(1, 2)))
    assert digest(whole) == digest(replace(GOOD, champion=Arm(latencies_ms=(1.0, 2.0))))


def changed(path: str, value: Any) -> dict[str, Any]:
    statement = copy.deepcopy(RECORD.to_json())
    *parents, last = (int(key) if key.isdecimal() else key for key in path.split("/"))
    inner: Any = statement
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return statement


CHANGES: dict[str, Any] = {
    "subject/0/digest/sha256": OTHER,
    "subject/1/digest/sha256": DIGEST,
    "predicate/release": "letters",
    "predicate/namespace": "default",
    "predicate/model": "letters",
    "predicate/champion": "5",
    "predicate/challenger": "8",
    "predicate/outcome": "ROLLBACK",
    "predicate/reason": "worse_within_margin",
    "predicate/sentence": "All is well.",
    "predicate/look": 1,
    "predicate/evidence/sha256": OTHER,
    "predicate/policy/margin_points": 0.5,
    "predicate/policy/slice_margin_points": {"rotated": 2.0},
    "predicate/policy/looks": [1000, 2500, 4999],
    "predicate/policy/error_rate": 0.002,
    "predicate/policy/latency_requests": 5000,
}


@pytest.mark.parametrize("path", CHANGES)
def test_what_is_changed_contradicts_the_evidence_or_what_is_deployed(path: str) -> None:
    assert verify(Record.from_json(changed(path, CHANGES[path])), [GOOD], DEMAND)


@pytest.mark.parametrize("path", [*CHANGES, "predicate/time", "predicate/tool"])
def test_a_signature_covers_everything(path: str, tmp_path: Path, cosign: Callable[[], None]) -> None:
    cosign()
    file = tmp_path / "record.json"
    RECORD.save(file)
    assert sign(file, key=PRIVATE) == ""
    check_signature(file, Signer(key=PUBLIC))
    file.write_text(json.dumps(changed(path, CHANGES.get(path, "other"))))
    with pytest.raises(SigningError, match=r"cosign verify-blob ended with 1: .*invalid signature"):
        check_signature(file, Signer(key=PUBLIC))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "_type: expected https://in-toto.io/Statement/v1"),
        ("predicateType", "https://slsa.dev/provenance/v1", f"predicateType: expected {PREDICATE}"),
        ("subject", [], "subject: expected bundle and image, got []"),
        ("subject", {}, "subject: expected bundle and image"),
        ("subject/0/name", "image", "subject: expected bundle and image, got ['image', 'image']"),
        ("subject/0/digest", {"sha512": "a"}, "subject bundle: expected an object with sha256, got one with sha512"),
        ("subject/0/digest/sha256", DIGEST[1:], "subject bundle: expected a sha256 in 64 hexadecimal digits"),
        ("subject/0/digest/sha256", 7, "subject bundle.sha256: expected text, got 7"),
        ("predicate", [], "predicate: expected an object with release, "),
        ("predicate/more", 1, "predicate: expected an object with release, "),
        ("predicate/release", "", "predicate.release: expected text, got ''"),
        ("predicate/time", None, "predicate.time: expected text, got None"),
        ("predicate/look", True, "predicate.look: expected a whole number, got True"),
        ("predicate/outcome", "MAYBE", "predicate: 'MAYBE' is not a valid Outcome"),
        ("predicate/policy", {}, "predicate: this is no policy"),
        ("predicate/policy", None, "predicate: this is no policy"),
        ("predicate/policy/margin_points", -1, "predicate: margin_points: expected points"),
        ("predicate/policy/margin_points", "1", "predicate: this is no policy"),
        ("predicate/evidence", DIGEST, "predicate.evidence: expected an object with sha256"),
    ],
)
def test_what_is_no_record_is_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(RecordError) as caught:
        Record.from_json(changed(path, value))
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"[" * 100_000, b"\xff", b"[]", b'"text"'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "record.json"
    if content is not None:
        file.write_bytes(content)
    for load in (Record.load, load_evidence):
        with pytest.raises(RecordError, match=r"record\.json: "):
            load(file)


def test_a_digest_that_is_none_is_not_recorded() -> None:
    with pytest.raises(RecordError, match="image_digest: expected a sha256"):
        record(image_digest="chiffre-serve:1")


def test_a_forged_verdict_does_not_hold() -> None:
    made = record(WORSE)
    assert made.outcome is Outcome.ROLLBACK
    assert any("expected PROMOTE, the evidence says ROLLBACK" in problem for problem in verify(made, [WORSE], DEMAND))
    forged = replace(made, outcome=Outcome.PROMOTE, reason="not_inferior", sentence=RECORD.sentence)
    said = "\n".join(verify(forged, [WORSE], DEMAND))
    assert "outcome: the evidence says ROLLBACK, the record PROMOTE" in said
    assert "reason: the evidence says accuracy, the record not_inferior" in said


def test_evidence_of_another_roll_out_does_not_hold() -> None:
    assert verify(RECORD, [WORSE], DEMAND) == (f"evidence: expected one with the digest {digest(GOOD)}, none of 1 has it",)


def test_a_policy_that_lets_more_pass_does_not_hold() -> None:
    loose = Policy(margin_points=5.0, slice_margin_points={"rotated": 2.0}, false_promotion=0.2)
    made = record(replace(WORSE, slices={name: WORSE.slices[name] for name in ("golden", "rotated")}), loose)
    assert made.outcome is Outcome.PROMOTE
    said = verify(made, [replace(WORSE, slices={name: WORSE.slices[name] for name in ("golden", "rotated")})], DEMAND)
    assert said == (
        "policy: margin_points: expected at most 1, the record has 5",
        "policy: false_promotion: expected at most 0.05, the record has 0.2",
        "policy: noisy: expected at most 2, the record has inf",
    )
    strict = record(policy=Policy(margin_points=0.8))
    assert verify(strict, [GOOD], DEMAND) == ()


def test_latencies_of_fewer_answers_do_not_hold() -> None:
    hasty = record(policy=Policy(latency_requests=100))
    assert verify(hasty, [GOOD], DEMAND) == ("policy: latency_requests: expected 2000 or more, the record has 100",)
    assert verify(hasty, [GOOD], replace(DEMAND, policy=Policy(latency_requests=100))) == ()


def test_fewer_images_than_the_looks_do_not_hold() -> None:
    few = replace(GOOD, slices={name: replace(pairs, both_right=3900) for name, pairs in GOOD.slices.items()})
    assert verify(record(few), [few], DEMAND) == ("evidence: look 2 is at 5000 golden images, 4000 were asked",)


@pytest.fixture
def cosign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes a cosign; until then there is none, nor a token."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "SIGSTORE_ID_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def install() -> None:
        (folder / "cosign").write_text(COSIGN)
        (folder / "cosign").chmod(0o755)

    return install


def test_who_signed_is_asked(tmp_path: Path, cosign: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "record.json"
    file.write_text("{}")
    assert sign(file) == "there is no cosign"
    with pytest.raises(SigningError, match=r"record\.json is not signed: there is no .*record\.json\.sigstore\.json"):
        check_signature(file, Signer(key=PUBLIC))
    cosign()
    assert sign(file) == "there is neither a key nor a workflow's token"
    assert not signature(file).exists()
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", "https://example.com/workflow")
    assert sign(file) == ""
    check_signature(file, Signer(identity="https://example.com/workflow", trusted_root="roots.json"))
    for other in (Signer(identity="https://example.com/other"), Signer(key=PUBLIC)):
        with pytest.raises(SigningError, match="invalid signature"):
            check_signature(file, other)
    os.environ["PATH"] = str(tmp_path)
    with pytest.raises(SigningError, match="its signature cannot be checked: there is no cosign"):
        check_signature(file, Signer(key=PUBLIC))
    # A signature of what the file was before does not stay.
    assert sign(file, key=PRIVATE) == "there is no cosign"
    assert not signature(file).exists()


def test_a_signer_is_a_key_or_an_identity() -> None:
    for given in ({}, {"key": PUBLIC, "identity": "https://example.com"}):
        with pytest.raises(SigningError, match="expected either a key or a certificate's identity"):
            Signer(**given)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho first >&2\necho 'no such key' >&2\nexit 3\n", "cosign sign-blob ended with 3: no such key"),
        ("#!/bin/sh\nexit 1\n", "cosign sign-blob ended with 1: no message"),
        ("#!/bin/sh\nexit 0\n", "cosign sign-blob: expected .*sigstore.json, got no such file"),
        ("#!/no/such/shell\n", "cosign sign-blob: cannot be run"),
        ("#!/bin/sh\nexec /bin/sleep 60\n", "cosign sign-blob: expected an end within 0.2 s"),
    ],
    ids=["refuses", "says nothing", "does nothing", "cannot run", "hangs"],
)
def test_a_cosign_that_fails_is_said(
    tmp_path: Path, cosign: Callable[[], None], monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    cosign()
    (tmp_path / "bin" / "cosign").write_text(script)
    if "sleep" in script:
        monkeypatch.setattr(signing, "_SECONDS", 0.2)
    file = tmp_path / "record.json"
    file.write_text("{}")
    with pytest.raises(SigningError, match=says):
        sign(file, key=PRIVATE)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verification.add_arguments(parser)
    return verification.run(parser.parse_args(words))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    RECORD.save(tmp_path / "record.json")
    (tmp_path / "evidence.json").write_text(json.dumps({"steps": [{"evidence": GOOD.to_json()}]}))
    return tmp_path


def test_the_command_says_that_a_record_holds(
    directory: Path, cosign: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(directory / "record.json")
    assert run("--record", file) == 0
    assert capsys.readouterr().out == f"{file}: a promotion that its evidence bears out, whose signature was not asked for\n"
    about = ["--release", "digits", "--namespace", "chiffre", "--model-version", "7", "--bundle_digest", DIGEST]
    cosign()
    sign(directory / "record.json", key=PRIVATE)
    signer = ["--key", PUBLIC]
    evidence = ["--evidence", str(directory / "evidence.json")]
    assert run("--record", file, *evidence, *about, "--image_digest", f"sha256:{OTHER}", *signer) == 0
    assert capsys.readouterr().out.endswith(", signed\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--image_digest", DIGEST], f"image_digest: expected {DIGEST}, the record has {OTHER}"),
        (["--image_digest", "latest"], "image_digest: expected a sha256"),
        (["--model-version", "8"], "challenger: expected 8, the record has 7"),
        (["--release", "letters"], "release: expected letters, the record has digits"),
        (["--margin_points", "0.5"], "policy: margin_points: expected at most 0.5, the record has 1"),
        (["--evidence", "no/such/file"], "no/such/file: expected a roll-out's evidence"),
        (["--bundle", "no/such/bundle"], "no/such/bundle: expected a bundle"),
        (["--latency_requests", "2001"], "policy: latency_requests: expected 2001 or more, the record has 2000"),
        (["--require_signature", "--key", PUBLIC], "is not signed"),
        (["--key", PUBLIC], "is not signed"),
        (["--certificate_identity", "https://example.com"], "is not signed"),
        (["--require_signature"], "expected either a key or a certificate's identity"),
    ],
)
def test_the_command_says_what_is_wrong(directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert run("--record", str(directory / "record.json"), *words) == 1
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--margin_points", "0"), ("--error_rate", "2"), ("--latency_requests", "1")])
def test_limits_that_cannot_be_are_refused(directory: Path, words: tuple[str, str]) -> None:
    with pytest.raises(RolloutError, match=rf"^{words[0].removeprefix('--')}: expected .*, got {words[1]}"):
        run("--record", str(directory / "record.json"), *words)


def test_the_record_that_the_docs_show_is_borne_out_by_the_evidence_beside_it() -> None:
    folder = ROOT / "docs" / "drill" / "better"
    code, said = command("rollout", "verify", "--record", str(folder / "record.json"), "--release", "drill")
    assert (code, said.endswith(", whose signature was not asked for")) == (0, True), said
    # It is the evidence that does it.
    other = ("--evidence", str(folder.with_name("slow") / "evidence.json"))
    code, said = command("rollout", "verify", "--record", str(folder / "record.json"), *other)
    assert code == 1
    assert "evidence: expected one with the digest" in said


def test_the_bundle_itself_is_compared(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.digest == hashlib.sha256((bundle.directory / "bundle.json").read_bytes()).hexdigest()
    (tmp_path / "evidence.json").write_text(json.dumps(GOOD.to_json()))
    words = ["--record", str(tmp_path / "record.json"), "--bundle", str(bundle.directory)]
    record(bundle_digest=bundle.digest).save(tmp_path / "record.json")
    assert run(*words) == 0
    assert run(*words, "--bundle_digest", DIGEST) == 1
    assert "bundle_digest: expected that of" in capsys.readouterr().out
    RECORD.save(tmp_path / "record.json")
    assert run(*words) == 1
    assert f"bundle_digest: expected {bundle.digest}" in capsys.readouterr().out
