"""The container images, without building them: what the Dockerfile says, and a server in the environment that it leaves."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath
from typing import Any

import grpc
import httpx
import pytest
from packaging.requirements import Requirement

from image import trim
from model.bundle import Bundle
from serving.rpc import load_messages
from tests.processes import ROOT, Server, run

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Instruction:
    stage: str
    word: str
    rest: str


def instructions() -> Iterator[Instruction]:
    stage = ""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stage = rest.rpartition(" AS ")[2]
        yield Instruction(stage, word, rest)


INSTRUCTIONS = list(instructions())
IMAGES = ("serve", "train", "load")
ENTRYPOINTS = {
    "serve": ["serving"],
    "train": ["model"],
    "load": ["locust", "-f", "loadtests/locustfile.py"],
}


def rests(word: str, stage: str | None = None) -> list[str]:
    return [found.rest for found in INSTRUCTIONS if found.word == word and stage in (None, found.stage)]


def is_ignored(path: str) -> bool:
    """By .dockerignore: the last pattern that matches the path, or a directory above it, decides."""
    parts = PurePosixPath(path).parts
    above = ["/".join(parts[: length + 1]) for length in range(len(parts))]
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(fnmatch(name, pattern) or fnmatch(f"/{name}", pattern) for name in above):
            found = not line.startswith("!")
    return found


def copied() -> list[str]:
    """The sources of all COPY from the build's context."""
    return [source for rest in rests("COPY") if "--from=" not in rest for source in rest.split()[:-1]]


def test_all_images_are_targets() -> None:
    assert set(IMAGES) < {found.stage for found in INSTRUCTIONS}


def test_what_is_copied_is_there_and_not_ignored() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source


@pytest.mark.parametrize("path", [".git", ".venv/bin/python", "build/bundle", "tests/conftest.py", "model/__pycache__/a.pyc"])
def test_what_no_image_needs_is_not_sent_to_the_builder(path: str) -> None:
    assert is_ignored(path)


def test_serving_gets_no_training_code_and_no_data() -> None:
    sources = {source for rest in rests("COPY", "serve-code") for source in rest.split()[:-1]}
    assert sources == {"model/__init__.py", "model/bundle.py", "model/manifest.py", "serving"}


@pytest.mark.parametrize("image", IMAGES)
def test_it_runs_as_a_numbered_user_and_hears_signals(image: str) -> None:
    (user,) = rests("USER", image)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    # Without a shell, Python is process 1 and gets SIGTERM.
    (entrypoint,) = rests("ENTRYPOINT", image)
    assert json.loads(entrypoint) == ["python", "-m", *ENTRYPOINTS[image]]


def test_base_images_have_a_version_and_no_host() -> None:
    (base,) = [rest.partition("=")[2] for rest in rests("ARG") if rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"[a-z]+:[\w.-]*\d[\w.-]*", base)
    stages = {found.stage for found in INSTRUCTIONS} | {"scratch", "${PYTHON_IMAGE}"}
    assert {rest.split()[0] for rest in rests("FROM")} <= stages
    assert not re.search(r":latest|://", DOCKERFILE)


def test_every_install_is_held_to_the_constraints() -> None:
    installs = [command for rest in rests("RUN") for command in rest.split("&&") if re.search(r"pip .*\binstall ", command)]
    assert installs
    assert all("--constraint constraints.txt" in command for command in installs)


@pytest.mark.parametrize("image", IMAGES)
def test_labels(image: str) -> None:
    assert f"VERSION={PROJECT['version']}" in rests("ARG", image)
    (label,) = rests("LABEL", image)
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', label))
    assert labels["version"] == "${VERSION}"
    assert labels["revision"] == "${REVISION}"
    assert labels["licenses"] == PROJECT["license"]
    assert labels["title"] == f"chiffre-{image}"
    assert labels["description"]


def needed(requirements: list[str]) -> set[str]:
    """The names of all distributions that ``requirements`` bring in."""
    names: set[str] = set()
    open_ends = [(Requirement(line), "") for line in requirements]
    seen = set()
    while open_ends:
        requirement, extra = open_ends.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        names.add(requirement.name)
        for wanted in ("", *requirement.extras):
            if (requirement.name, wanted) not in seen:
                seen.add((requirement.name, wanted))
                open_ends += [(Requirement(line), wanted) for line in distribution(requirement.name).requires or ()]
    return names


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of the serving image, before they are trimmed: links to those of this environment."""
    folder = tmp_path_factory.mktemp("image") / "site-packages"
    for name in needed([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["serve"]]):
        for file in distribution(name).files or ():
            # Scripts lie outside.
            if file.parts[0] != "..":
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).unlink(missing_ok=True)
                (folder / file).symlink_to(Path(str(file.locate())))
    return folder


@pytest.fixture(scope="module")
def trimmed(environment: Path) -> Path:
    trim.remove(list(trim.find(environment)))
    (environment / "sitecustomize.py").write_text(
        f"import sys\nsys.path[:] = [path for path in sys.path if 'site-packages' not in path] + [{str(environment)!r}]\n"
    )
    return environment


def requests(bundle: Bundle) -> list[tuple[str, str, dict[str, Any]]]:
    """One of each kind that a server answers with 200."""
    predict, infer = "/v1/models/digits:predict", "/v2/models/digits/infer"
    body = {"instances": [[0.0] * 784]}
    event = {"ce-id": "1", "ce-source": "test", "ce-type": "t", "ce-specversion": "1.0"}
    structured = {"specversion": "1.0", "id": "1", "source": "test", "type": "t", "data": body}
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 28, 28]}
    header = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": 3136}}], "parameters": {"binary_data_output": True}}
    )
    binary = {"inference-header-content-length": str(len(header)), "content-type": "application/octet-stream"}
    posts: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", predict, {"json": body}),
        ("POST", predict, {"json": body, "headers": event}),
        ("POST", predict, {"json": structured, "headers": {"content-type": "application/cloudevents+json"}}),
        ("POST", predict, {"content": (ROOT / "data" / "seven.png").read_bytes(), "headers": {"content-type": "image/png"}}),
        ("POST", infer, {"json": {"inputs": [{**tensor, "data": [0.0] * 784}]}}),
        ("POST", infer, {"content": header.encode() + bytes(3136), "headers": binary}),
    ]
    told = {**body, "labels": [7], "model_version": bundle.version}
    posts.append(("POST", "/v1/models/digits:feedback", {"json": told}))
    version = f"/v2/models/digits/versions/{bundle.version}"
    models = ["/v1/models", "/v1/models/digits", "/v2", "/v2/models", "/v2/models/digits", version, f"{version}/ready"]
    health = ["/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"]
    gets: list[tuple[str, str, dict[str, Any]]] = [("GET", path, {}) for path in ("/", "/metrics", *models, *health)]
    return [*posts, *gets, ("GET", "/metrics", {"headers": {"accept": "application/openmetrics-text"}})]


def call(channel: grpc.Channel, method: str, **fields: Any) -> Any:
    messages = load_messages()
    request = getattr(messages, f"{method}Request")(**fields)
    answer = getattr(messages, f"{method}Response").FromString
    path = f"/inference.GRPCInferenceService/{method}"
    return channel.unary_unary(path, type(request).SerializeToString, answer)(request, timeout=30)


def check_grpc(address: str) -> None:
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 28, 28], "contents": {"fp32_contents": [0.0] * 784}}
    with grpc.insecure_channel(address) as channel:
        assert call(channel, "ServerLive").live
        assert call(channel, "ServerReady").ready
        assert call(channel, "ModelReady", name="digits").ready
        assert call(channel, "ServerMetadata").version == distribution("kserve").version
        assert call(channel, "ModelMetadata", name="digits").inputs
        assert call(channel, "ModelInfer", model_name="digits", inputs=[tensor]).outputs


@pytest.mark.parametrize("flags", [[], ["--fast_path", "false", "--enable_docs_url", "true"]], ids=["usual", "kserve's routes"])
def test_a_server_answers_without_what_is_trimmed(trimmed: Path, bundle: Bundle, flags: list[str]) -> None:
    asked = [*requests(bundle), *([("GET", path, {}) for path in ("/docs", "/openapi.json")] if flags else [])]
    with Server("--model_dir", str(bundle.directory), "--feedback", "true", *flags, PYTHONPATH=str(trimmed)) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for method, path, content in asked:
                answer = client.request(method, path, **content)
                assert answer.status_code == 200, f"{method} {path}: {answer.text}\n{server.output}"
        check_grpc(server.grpc_address)
    assert "Traceback" not in server.output


@pytest.mark.parametrize("module", ["pandas", "kubernetes.aio", "pytest"])
def test_the_environment_of_that_server_is_the_image(trimmed: Path, module: str) -> None:
    code, output = run(module, PYTHONPATH=str(trimmed))
    assert code
    assert f"No module named {module}" in output


def test_the_list_must_follow_the_dependencies(trimmed: Path) -> None:
    with pytest.raises(trim.ListError, match=f"{trim.DISTRIBUTIONS[0]}: not installed in"):
        list(trim.find(trimmed))
