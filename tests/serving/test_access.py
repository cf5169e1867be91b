"""Where a registry is and who asks, as MLflow's own client would take it from the environment."""

import base64
import ssl
from pathlib import Path

import pytest
from mlflow.utils.credentials import get_default_host_creds

from serving.access import Access
from serving.failures import AddressError

ADDRESS = "http://registry:5000"


def access(**variables: str) -> Access:
    return Access.read(
        {"MLFLOW_TRACKING_URI": ADDRESS, **{f"MLFLOW_TRACKING_{name}": value for name, value in variables.items()}}
    )


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("variables", "authorization"),
    [
        ({}, None),
        ({"USERNAME": "", "PASSWORD": "", "TOKEN": ""}, None),
        ({"USERNAME": "ann", "PASSWORD": "sécret: 1"}, basic("ann:sécret: 1")),
        ({"TOKEN": "abc"}, "Bearer abc"),
        ({"USERNAME": "ann", "PASSWORD": "b", "TOKEN": "abc"}, basic("ann:b")),
        ({"URI": "https://ann:a%40b@registry/prefix/"}, basic("ann:a@b")),
        ({"URI": "https://ann:b@registry", "USERNAME": "bob", "PASSWORD": "c"}, basic("bob:c")),
    ],
)
def test_credentials(variables: dict[str, str], authorization: str | None) -> None:
    assert access(**variables).authorization == authorization
    assert "ann" not in repr(access(**variables))


@pytest.mark.parametrize(
    ("uri", "address"),
    [(ADDRESS, ADDRESS), (f"{ADDRESS}/", ADDRESS), ("https://a:b@[::1]:8443/a/b/", "https://[::1]:8443/a/b")],
)
def test_the_address_is_without_credentials_and_slash(uri: str, address: str) -> None:
    assert access(URI=uri).address == address


@pytest.mark.parametrize("insecure", ["", "true", "1", "false", "TRUE"])
def test_variables_mean_what_they_mean_to_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, insecure: str) -> None:
    names = {"USERNAME": "ann", "PASSWORD": "b", "TOKEN": "t"} | ({"INSECURE_TLS": insecure} if insecure else {})
    if insecure in ("", "false"):
        names["SERVER_CERT_PATH"] = str(tmp_path)
    for name, value in names.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    theirs, ours = get_default_host_creds(ADDRESS), access(**names)
    assert (theirs.username, theirs.password, theirs.token) == ("ann", "b", "t")
    assert ours.is_insecure == theirs.ignore_tls_verification
    assert (str(ours.certificate) if ours.certificate else None) == theirs.server_cert_path
    assert (ours.tls().verify_mode == ssl.CERT_NONE) == (theirs.verify is False)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"URI": ""}, r"MLFLOW_TRACKING_URI: expected http\(s\)://HOST\[:PORT\] of an MLflow server, got nothing"),
        ({"URI": "postgresql://ann:secret@db/mlflow"}, "MLFLOW_TRACKING_URI: .* got one of scheme 'postgresql'"),
        ({"URI": "http://"}, "MLFLOW_TRACKING_URI: .* got one of scheme 'http'"),
        ({"URI": "http://registry:port"}, "MLFLOW_TRACKING_URI: .* got another form: Port could not be cast"),
        ({"URI": f"http://{'a' * 64}"}, "MLFLOW_TRACKING_URI: .* got another form: .*label"),
        ({"USERNAME": "ann"}, "MLFLOW_TRACKING_PASSWORD: expected both"),
        ({"PASSWORD": "secret"}, "MLFLOW_TRACKING_USERNAME: expected both"),
        ({"USERNAME": "ann", "PASSWORD": "secret\n"}, "MLFLOW_TRACKING_PASSWORD: expected one line of text"),
        ({"TOKEN": "secret\n"}, "MLFLOW_TRACKING_TOKEN: expected one line of text"),
        ({"TOKEN": "sécret"}, "MLFLOW_TRACKING_TOKEN: expected one line of text"),
        ({"INSECURE_TLS": "perhaps"}, "MLFLOW_TRACKING_INSECURE_TLS: expected true or false, got 'perhaps'"),
        (
            {"INSECURE_TLS": "true", "SERVER_CERT_PATH": "/etc/ca.pem"},
            "MLFLOW_TRACKING_INSECURE_TLS: expected nothing, since MLFLOW_TRACKING_SERVER_CERT_PATH is set",
        ),
    ],
)
def test_a_bad_variable_is_named_and_no_secret_told(variables: dict[str, str], message: str) -> None:
    with pytest.raises(AddressError, match=message) as caught:
        access(**variables)
    assert "cret" not in str(caught.value)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "none"):
        with pytest.raises(AddressError, match=f"MLFLOW_TRACKING_SERVER_CERT_PATH: expected certificates in PEM at {path}"):
            access(SERVER_CERT_PATH=str(path)).tls()
