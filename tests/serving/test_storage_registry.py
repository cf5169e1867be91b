"""Which bundle a URI names."""

import pytest

from model.bundle import Registration
from serving.failures import AddressError
from serving.registry import Wanted

ALIAS = "aliases and stages move, and all pods of a revision have to serve the same bytes"
FORMS = "expected mlflow://NAME/VERSION or mlflow://runs/RUN_ID/bundle"


@pytest.mark.parametrize(
    ("uri", "name", "version"),
    [
        ("mlflow://digits/1", "digits", "1"),
        ("mlflow://my%20digits.v2/12", "my digits.v2", "12"),
        ("mlflow://runs/3", "runs", "3"),
    ],
)
def test_a_version(uri: str, name: str, version: str) -> None:
    assert Wanted.parse(uri) == Wanted(registration=Registration(name=name, version=version))


def test_a_run() -> None:
    assert Wanted.parse("mlflow://runs/0a1b/bundle") == Wanted(run_id="0a1b")


@pytest.mark.parametrize(
    ("uri", "alias"),
    [
        ("mlflow://digits@champion", "champion"),
        ("mlflow://digits@champion/1", "champion"),
        ("mlflow://digits@1", "1"),
        ("mlflow://digits/champion", "champion"),
        ("mlflow://digits/latest", "latest"),
        ("mlflow://digits/Production", "Production"),
        ("mlflow://digits/01", "01"),
        ("mlflow://digits/0", "0"),
        ("mlflow://digits/-1", "-1"),
        ("mlflow://digits/1.0", "1.0"),
        ("mlflow://digits/٣", "٣"),
    ],
)
def test_an_alias_is_refused_with_the_reason(uri: str, alias: str) -> None:
    with pytest.raises(AddressError, match=f"^expected a version's number, got {alias!r}: {ALIAS}"):
        Wanted.parse(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "", "digits/1", "s3://digits/1", "MLFLOW://digits/1", "mlflow:/digits/1", "mlflow://", "mlflow:///1", "mlflow://digits/",
        "mlflow://digits", "mlflow://digits/1/", "mlflow://digits/1/model.onnx", "mlflow://digits/1?a=b", "mlflow://digits/1#a",
        "mlflow://runs", "mlflow://runs/0a1b", "mlflow://runs/0a1b/model", "mlflow://runs/../bundle", "mlflow://runs/a%2Fb/bundle",
        "mlflow://runs/0a1b/bundle/x", "mlflow://digits\n/1",
    ],
)  # fmt: skip
def test_other_forms_are_refused_with_those_there_are(uri: str) -> None:
    with pytest.raises(AddressError, match=f"^{FORMS}"):
        Wanted.parse(uri)
