"""Signatures of files by cosign: by a key, or by the identity that a workflow's token proves (keyless).

https://docs.sigstore.dev/cosign/signing/signing_with_blobs/
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"

# Keyless signing asks Fulcio and Rekor; each call of cosign ends by itself before this.
_SECONDS = 120.0
# Where cosign finds a token by itself; without one it would wait for a person in a browser.
_TOKENS = ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "SIGSTORE_ID_TOKEN")


class SigningError(ValueError):
    """A file that could not be signed, or whose signature does not hold; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who must have signed: the owner of a public ``key``, or a certificate's ``identity``, which ``issuer`` vouched for.

    With ``trusted_root``, a file, cosign asks no network for the roots of trust.
    """

    key: str = ""
    identity: str = ""
    issuer: str = GITHUB_ISSUER
    trusted_root: str = ""

    def __post_init__(self) -> None:
        if bool(self.key) == bool(self.identity):
            message = "signer: expected either a key or a certificate's identity"
            raise SigningError(message)


def signature(path: Path) -> Path:
    """Where the signature of a file is: certificate, signature and proof of its entry in the log, together."""
    return path.with_name(f"{path.name}.sigstore.json")


def sign(path: Path, *, key: str = "") -> str:
    """Sign a file by the private ``key``, a file or a KMS' URI, or else keyless.

    Gives an empty string, or the reason why it stays unsigned: no cosign, or no key and no token. An older signature goes. Raises
    `SigningError` where cosign fails.
    """
    signature(path).unlink(missing_ok=True)
    if not shutil.which("cosign"):
        return "there is no cosign"
    if not key and not any(os.environ.get(name) for name in _TOKENS):
        return "there is neither a key nor a workflow's token"
    given = ["--key", key] if key else []
    _run("sign-blob", "--yes", *given, "--bundle", str(signature(path)), str(path))
    if not signature(path).is_file():
        message = f"cosign sign-blob: expected {signature(path)}, got no such file"
        raise SigningError(message)
    return ""


def check_signature(path: Path, signer: Signer) -> None:
    """Raises `SigningError` where the file is not signed by ``signer``, or there is no cosign to tell."""
    if not signature(path).is_file():
        message = f"{path} is not signed: there is no {signature(path)}"
        raise SigningError(message)
    if not shutil.which("cosign"):
        message = f"{path}: its signature cannot be checked: there is no cosign"
        raise SigningError(message)
    who = ["--key", signer.key]
    if signer.identity:
        who = ["--certificate-identity", signer.identity, "--certificate-oidc-issuer", signer.issuer]
    roots = ["--trusted-root", signer.trusted_root] if signer.trusted_root else []
    _run("verify-blob", *who, *roots, "--bundle", str(signature(path)), str(path))


def _run(command: str, *arguments: str) -> None:
    words = ["cosign", command, *arguments]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        message = f"cosign {command}: expected an end within {_SECONDS:g} s, got none"
        raise SigningError(message) from None
    except OSError as error:
        message = f"cosign {command}: cannot be run: {error}"
        raise SigningError(message) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        message = f"cosign {command} ended with {done.returncode}: {lines[-1] if lines else 'no message'}"
        raise SigningError(message)
