"""Stands in for a program that a step or a page of docs calls: python standin.py PROGRAM ARGUMENTS.

What can be checked without a cluster, a cloud or a registry is checked, by the program's own parser where there is one, and fails
as the program would. Then what a script goes on with is printed. Each call leaves a line of JSON in $CALLS; one that begins with
$FAILING fails, saying $SAYING.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import kubernetes_validate
import yaml

from tests.tools import HELM, KUBECTL

# What takes long to import is imported where it is needed: each call is a process.
ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4

# What can only be said by what is not here; the arguments of these are not checked.
ELSEWHERE = {
    "cosign": "signs with the identity of a workflow's run, and asks Sigstore's servers",
    "curl": "asks a server of the cluster or of the cloud",
    "docker": "needs its daemon, and a registry to push to",
    "gh": "asks GitHub",
    "kind": "needs docker",
}
# What scripts read from them.
_ANSWERS = {
    "docker buildx imagetools": DIGEST,
    "helm push": f"Pushed: registry.example.com/charts/chiffre:0.1.0\nDigest: {DIGEST}",
    "kubectl logs": "published digits version 7, alias challenger, at http://mlflow:5000",
    "python -m rollout status": '{"version": "6"}',
}
_KUBERNETES = "1.34"
# Whose schemas are not here.
_UNKNOWN = {"cert-manager.io/v1"}
# `make` prints what it would run of the others, which takes long or a cluster; that proves that the target is there.
_QUICK = {"carry", "chart", "image", "job", "page", "pull", "push", "registry", "sbom", "summary", "tagged"}


class CallError(Exception):
    """A call that the program would refuse."""


def main() -> None:
    program, *words = sys.argv[1:]
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(json.dumps([program, *words]) + "\n")
    try:
        if program not in ELSEWHERE:
            _CHECKS[program](words)
    except CallError as error:
        sys.exit(f"{program} {' '.join(words)}: {error}")
    line = " ".join([program, *words])
    if (failing := os.environ.get("FAILING")) and line.startswith(failing):
        sys.exit(f"{line}: {os.environ.get('SAYING', 'fails here')}")
    for beginning, answer in _ANSWERS.items():
        if line.startswith(beginning):
            print(answer)


def _make(words: list[str]) -> None:
    targets = {word for word in words if re.fullmatch(r"[a-z0-9./]+", word)}
    how = [] if targets <= _QUICK else ["--dry-run"]
    done = subprocess.run(["/usr/bin/env", "-u", "MAKEFLAGS", "/usr/bin/make", *how, *words], check=False, timeout=60)
    if done.returncode:
        message = f"ended with {done.returncode}"
        raise CallError(message)


def _python(words: list[str]) -> None:
    module = words[1] if words[:1] == ["-m"] else ""
    if module == "rollout":
        from rollout import cli  # noqa: PLC0415
        from rollout.errors import RolloutError  # noqa: PLC0415

        try:
            cli.parse(words[2:])
        except RolloutError as error:
            raise CallError(str(error)) from None
    elif module == "serving":
        from serving.flags import build_parser  # noqa: PLC0415

        build_parser().parse_args(words[2:])
    else:
        message = "nothing here knows its arguments"
        raise CallError(message)


def _locust(words: list[str]) -> None:
    from locust import argument_parser  # noqa: PLC0415

    from loadtests.slo.settings import Settings  # noqa: PLC0415

    given = _values(words)
    file = Path(given.get("--locustfile") or given["-f"])
    found = importlib.util.spec_from_file_location("locustfile", file)
    assert found
    assert found.loader
    # Adds flags to the parser.
    found.loader.exec_module(importlib.util.module_from_spec(found))
    Settings.read(argument_parser.get_parser().parse_args(words))


def _kubectl(words: list[str]) -> None:
    depth = 2 if words[0] in ("create", "config", "rollout", "auth") else 1
    _check_flags(KUBECTL, words, depth, "options")
    given = _values(words)
    if words[0] == "kustomize":
        print(_run([str(KUBECTL), *words]), end="")
    if words[0] != "apply":
        return
    if "-k" in given:
        folder = Path(given["-k"])
        # The platform's manifests are at their projects' sites.
        if not folder.resolve().is_relative_to(ROOT / "k8s" / "platform"):
            _run([str(KUBECTL), "kustomize", str(folder)])
        return
    text = sys.stdin.read() if given["-f"] == "-" else Path(given["-f"]).read_text()
    for manifest in yaml.safe_load_all(text):
        if manifest["apiVersion"] not in _UNKNOWN:
            kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)


def _helm(words: list[str]) -> None:
    _check_flags(HELM, words, 1, "")
    if words[0] == "lint":
        _run([str(HELM), *words])
    elif words[0] in ("install", "upgrade") and not words[2].startswith("oci://"):
        kept, rest = words[1:3], words[3:]
        for flag, value in pairwise(rest):
            if flag in ("--set", "--set-string", "--namespace", "--values"):
                kept += [flag, value]
        _run([str(HELM), "template", *kept])


def _gcloud(words: list[str]) -> None:
    known: dict[str, list[str]] = json.loads(Path(__file__).with_name("gcloud.json").read_text())["commands"]
    names = [word for word in words if re.fullmatch(r"[a-z-]+", word)]
    command = next((name for length in range(len(names), 0, -1) if (name := " ".join(names[:length])) in known), "")
    if not command or words[: len(command.split())] != command.split():
        message = "is no command that gcloud's own check has seen, see gcloud.json"
        raise CallError(message)
    if unknown := _flags(words) - set(known[command]):
        message = f"{', '.join(sorted(unknown))}: gcloud's own check has not seen it, see gcloud.json"
        raise CallError(message)


def _check_flags(program: Path, words: list[str], depth: int, more: str) -> None:
    """Raise `CallError` for a flag that the program's help does not name."""
    pages = [_run([str(program), *words[:depth], "--help"]), *([_run([str(program), more])] if more else [])]
    known = {f"--{name}" for page in pages for name in re.findall(r"--([a-z][\w-]*)", page)}
    known |= {f"-{name}" for page in pages for name in re.findall(r"^ +-(\w), --", page, re.MULTILINE)}
    if unknown := _flags(words) - known:
        message = f"{', '.join(sorted(unknown))}: the program's help does not name it"
        raise CallError(message)


def _flags(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def _values(words: list[str]) -> dict[str, str]:
    return dict(pairwise(words))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise CallError(done.stderr + done.stdout)
    return done.stdout


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "gcloud": _gcloud,
    "helm": _helm,
    "kubectl": _kubectl,
    "locust": _locust,
    "make": _make,
    "python": _python,
}
PROGRAMS = (*_CHECKS, *ELSEWHERE)

if __name__ == "__main__":
    main()
