"""A bundle on its way from a real registry into a pod's volume."""

import json
import resource
from pathlib import Path

import pytest

from model.bundle import Bundle
from model.demo import free_port
from tests.integration.conftest import Published, publish_to
from tests.integration.front import Front, Handler
from tests.integration.storage import Ended, bring
from tests.mlflow_server import mlflow_server

ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a password of sixteen"}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def check_failed(ended: Ended, code: int, *parts: str) -> None:
    assert ended.code == code, ended
    assert not ended.lines
    assert "\n" not in ended.reason
    for part in parts:
        assert part in ended.reason
    assert json.loads(ended.errors.splitlines()[-1])["exit_code"] == code


def test_a_version_is_brought_with_its_name_and_number(published: Published, tmp_path: Path) -> None:
    ended = bring("mlflow://digits/1", tmp_path, published.uri)
    assert ended.code == 0, ended
    (line,) = ended.lines
    brought = Bundle.load(tmp_path)
    assert brought == published.bundle
    assert brought.registration == published.bundle.registration
    assert brought.version == "1"
    sizes = sum((tmp_path / name).stat().st_size for name in ("bundle.json", "model.ckpt", "model.onnx"))
    assert {"message": "brought", "uri": "mlflow://digits/1", "version": "1", "bytes": sizes}.items() <= line.items()
    assert line["digest"] == published.bundle.digest
    assert 0 < line["seconds"] < 10
    assert names(tmp_path) == {"bundle.json", "model.ckpt", "model.onnx", "registration.json"}
    assert (ended.errors, ended.reason) == ("", "")


def test_a_version_that_is_there_is_not_asked_for_again(published: Published, tmp_path: Path) -> None:
    bring("mlflow://digits/1", tmp_path, published.uri)
    # The registry may be gone by then.
    ended = bring("mlflow://digits/1", tmp_path, f"http://127.0.0.1:{free_port()}")
    assert ended.code == 0, ended
    assert {"message": "was there already", "bytes": 0, "digest": published.bundle.digest}.items() <= ended.lines[0].items()


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "registration.json"])
def test_what_is_damaged_is_brought_anew(published: Published, tmp_path: Path, name: str) -> None:
    bring("mlflow://digits/1", tmp_path, published.uri)
    (tmp_path / name).write_bytes(b"{}")
    assert bring("mlflow://digits/1", tmp_path, published.uri).lines[0]["message"] == "brought"
    assert Bundle.load(tmp_path).version == "1"


def test_a_run_is_brought_under_its_digest(published: Published, tmp_path: Path) -> None:
    bring("mlflow://digits/1", tmp_path, published.uri)
    ended = bring(f"mlflow://runs/{published.run_id}/bundle", tmp_path, published.uri)
    assert ended.code == 0, ended
    brought = Bundle.load(tmp_path)
    assert brought == published.bundle
    assert brought.registration is None
    assert ended.lines[0]["version"] == brought.version == published.bundle.digest[:12]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mlflow://digits@champion", "expected a version's number, got 'champion': aliases and stages move"),
        (
            "mlflow://digits/challenger",
            "got 'challenger': aliases and stages move, and all pods of a revision have to serve the same",
        ),
        ("s3://models/digits", "expected mlflow://NAME/VERSION or mlflow://runs/RUN_ID/bundle"),
    ],
)
def test_what_names_no_version_is_refused_before_anything_is_asked(tmp_path: Path, uri: str, reason: str) -> None:
    destination = tmp_path / "models"
    with Front("") as front:
        check_failed(bring(uri, destination, front.address), 2, f"{uri}: expected", reason)
        assert front.asked == []
    assert names(destination) == set()


@pytest.mark.parametrize(
    ("uri", "code", "reason"),
    [
        ("mlflow://digits/9", 3, "Model Version (name=digits, version=9) not found"),
        ("mlflow://letters/1", 3, "Model Version (name=letters, version=1) not found"),
        ("mlflow://runs/0123/bundle", 3, "Run with id=0123 not found"),
    ],
)
def test_what_the_registry_does_not_have(published: Published, tmp_path: Path, uri: str, code: int, reason: str) -> None:
    check_failed(bring(uri, tmp_path, published.uri), code, f"{uri}: {published.uri} has no such thing: {reason}")
    assert names(tmp_path) == set()


def test_a_server_that_is_no_registry(published: Published, tmp_path: Path) -> None:
    ended = bring("mlflow://digits/1", tmp_path, f"{published.uri}/elsewhere")
    check_failed(ended, 2, "expected MLflow's answer at /api/2.0/mlflow/model-versions/get, got")


def test_a_run_without_a_bundle(published: Published, tmp_path: Path) -> None:
    def elsewhere(handler: Handler) -> None:
        status, body = handler.fetch()
        handler.send(status, body.replace(b'/artifacts"', b'/elsewhere"'))

    with Front(published.uri, elsewhere) as front:
        ended = bring(f"mlflow://runs/{published.run_id}/bundle", tmp_path, front.address)
    check_failed(ended, 7, "/elsewhere/bundle: expected a bundle, bundle.json cannot be had: answered 404")
    assert names(tmp_path) == set()


def test_basic_authentication(published: Published, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, port = tmp_path_factory.mktemp("auth"), free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\nadmin_username = admin\n"
        f"admin_password = {ADMIN['MLFLOW_TRACKING_PASSWORD']}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for the test"}
    with mlflow_server(folder, port, "--app-name", "basic-auth", **variables), pytest.MonkeyPatch.context() as patch:
        uri = f"http://127.0.0.1:{port}"
        for name, value in ADMIN.items():
            patch.setenv(name, value)
        own = publish_to(uri, published.bundle, folder / "bundle")
        wrong = {**ADMIN, "MLFLOW_TRACKING_PASSWORD": "another"}
        asks, refuses = (bring("mlflow://digits/1", folder / "a", uri, variables=sent) for sent in ({}, wrong))
        check_failed(asks, 5, "asks for credentials, none are given (401")
        check_failed(refuses, 5, "refused the credentials (401")
        assert max(asks.seconds, refuses.seconds) < 10, "what is refused is not tried again"
        assert bring("mlflow://digits/1", folder / "b", uri, variables=ADMIN).code == 0
        assert Bundle.load(folder / "b") == own.bundle
        in_address = f"http://admin:{ADMIN['MLFLOW_TRACKING_PASSWORD'].replace(' ', '%20')}@127.0.0.1:{port}"
        assert bring("mlflow://digits/1", folder / "c", in_address).code == 0
        missing = bring("mlflow://digits/9", folder / "d", in_address)
        check_failed(missing, 3, uri)
        assert "password" not in missing.reason + missing.errors


def test_a_full_disk(published: Published, tmp_path: Path) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    ended = bring("mlflow://digits/1", tmp_path, published.uri, limits=little)
    check_failed(ended, 8, f"mlflow://digits/1: {tmp_path}: cannot be written: File too large", "bytes are free")
    # Nor is the space kept.
    assert names(tmp_path) == set()


def test_a_destination_that_is_none(published: Published, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = bring("mlflow://digits/1", tmp_path / "file", published.uri)
    check_failed(ended, 8, "cannot be written: File exists")
