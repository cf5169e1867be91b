"""Every step of the workflows that runs a script, run here."""

from pathlib import Path

import pytest
import yaml

from tests.workflows.rehearsal import Rehearsal
from tests.workflows.standin import DIGEST, ELSEWHERE
from tests.workflows.workflows import EXPRESSION, Step, steps

_SERVE, _TRAIN = (f"registry.example.com/chiffre-{name}@{DIGEST}" for name in ("serve", "train"))
# What GitHub puts in the place of an expression.
_VALUES = {
    "vars.BUCKET": "example-bundles",
    "vars.GATEWAY": "",
    "vars.IMG || format('ghcr.io/{0}/chiffre', github.repository_owner)": "ghcr.io/example/chiffre",
    "vars.OCI || format('oci://ghcr.io/{0}/charts', github.repository_owner)": "oci://ghcr.io/example/charts",
    "vars.NETWORK_MS || '150'": "150",
    "vars.PAGE_ACCOUNT": "page@example.iam.gserviceaccount.com",
    "vars.PROJECT": "example",
    "vars.REGION": "europe-west4",
    "vars.SERVICE_URL": "https://digits.example.com",
    "vars.TORCH_INDEX_URL": "",
    "github.event.pull_request.number": "12",
    "github.ref_name": "v0.1.0",
    "github.repository": "example/chiffre",
    "github.sha": "0" * 40,
    "github.token": "token",
    "inputs.config || 'best'": "best",
    "inputs.overlay || 'gke-spot'": "gke-spot",
    "inputs.serve": _SERVE,
    "inputs.tag": "0.1.0",
    "inputs.train": _TRAIN,
    "needs.images.outputs.serve": _SERVE,
    "needs.images.outputs.train": _TRAIN,
    "steps.champion.outputs.version": "6",
    "steps.chart.outputs.chart": f"registry.example.com/charts/chiffre@{DIGEST}",
    "steps.push.outputs.serve": _SERVE,
    "steps.push.outputs.train": _TRAIN,
}
# What a run on GitHub's machines has.
_RUN = {
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_REF_NAME": "v0.1.0",
    "GITHUB_REPOSITORY": "example/chiffre",
    "GITHUB_SERVER_URL": "https://example.com",
}
# The one step that has to fail.
_FAILS = "workflows/test.yml: required: step 1"
SCRIPTS = [step for step in steps() if step.script]


def environment(step: Step) -> dict[str, str]:
    return {name: EXPRESSION.sub(lambda found: _VALUES[found[1]], str(value)) for name, value in step.environment.items()}


@pytest.fixture
def rehearsal(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, _RUN)


@pytest.mark.parametrize("step", [pytest.param(step, id=step.place) for step in SCRIPTS])
def test_a_step_does_what_it_should(rehearsal: Rehearsal, step: Step) -> None:
    done = rehearsal.run(step.script, **environment(step))
    assert (done.code != 0) == (step.place == _FAILS), done.output


@pytest.mark.parametrize(
    "script",
    [
        "make nothing",
        "make tagged NAME=v9.9.9",
        "helm install digits helm/chiffre --set model.url=mlflow://digits/1",
        "helm install digits helm/chiffre --sett model.uri=mlflow://digits/1",
        "kubectl wait --fore condition=Ready pod/x",
        "kubectl apply -k k8s/overlays/nothing",
        "python -m rollout start --release digits",
        "python -m rollout starts --release digits --model-version 7",
        "locust --locustfile loadtests/locustfile.py --headless --hots http://127.0.0.1:8080",
        "locust --locustfile loadtests/nothing.py --headless",
        "gcloud container clusters crate chiffre",
        "gcloud run deploy chiffre --imagine x",
    ],
)
def test_a_fault_in_a_step_is_found(rehearsal: Rehearsal, script: str) -> None:
    assert rehearsal.run(script).code, script


def test_what_is_pushed_goes_on_by_its_digest(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make push IMG=registry.example.com/chiffre TAG=1")
    assert done.code == 0, done.output
    lines = (rehearsal.folder / "build" / "pushed").read_text().splitlines()
    assert lines == [f"serve={_SERVE}", f"serve-digest={DIGEST}", f"train={_TRAIN}", f"train-digest={DIGEST}"]


def test_the_chart_goes_on_by_its_digest(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make chart OCI=oci://registry.example.com/charts")
    assert done.code == 0, done.output
    assert (rehearsal.folder / "build" / "pushed").read_text() == f"chart=registry.example.com/charts/chiffre@{DIGEST}\n"


def test_a_job_trains_with_the_image_that_was_pushed_and_says_the_version(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make job", OVERLAY="gke-spot", TRAIN=_TRAIN)
    assert done.code == 0, done.output
    assert (rehearsal.folder / "build" / "version").read_text() == "7\n"
    applied = yaml.safe_load_all((rehearsal.folder / "build" / "job.yaml").read_text())
    (job,) = [manifest for manifest in applied if manifest["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == _TRAIN
    assert [call[-1] for call in done.calls if call[:2] == ["kubectl", "apply"]] == ["build/job.yaml"]


def test_no_job_trains_with_another_image_than_the_one_that_is_named(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make job", OVERLAY="kind", TRAIN=_TRAIN)
    assert done.code
    assert "k8s/overlays/kind brings an image of its own" in done.output
    assert not [call for call in done.calls if call[1] in ("apply", "delete")]


def test_a_job_that_has_failed_is_not_waited_for_and_stays_to_be_looked_at(rehearsal: Rehearsal) -> None:
    (rehearsal.folder / "build" / "version").unlink()
    done = rehearsal.run("make job", FAILING="kubectl wait --namespace chiffre --for condition=complete --timeout 0 ")
    assert done.code
    calls = [call[1] for call in done.calls if call[0] == "kubectl"]
    assert calls == ["kustomize", "delete", "apply", "wait", "wait", "logs"]
    assert not (rehearsal.folder / "build" / "version").exists()


@pytest.mark.parametrize(
    ("says", "then"),
    [
        ("error: timed out waiting for the condition on jobs/chiffre-train", ["logs", "delete"]),
        # The training goes on, and may be waited for again.
        ("error: the server was unable to return a response in the time allotted", []),
    ],
)
def test_a_job_that_does_not_end_is_deleted(rehearsal: Rehearsal, says: str, then: list[str]) -> None:
    done = rehearsal.run("make job", FAILING="kubectl wait --namespace chiffre --for jsonpath=", SAYING=says)
    assert done.code
    assert says in done.output
    # Not as a part of the command, which make shows.
    assert ("chiffre-train: did not end within 30 minutes, and is deleted" in done.output.splitlines()) == bool(then)
    calls = [call[1] for call in done.calls if call[0] == "kubectl"]
    assert calls == ["kustomize", "delete", "apply", "wait", *then]


def test_a_job_trains_by_the_configuration_that_is_named(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make job CONFIG=default")
    assert done.code == 0, done.output
    applied = yaml.safe_load_all((rehearsal.folder / "build" / "job.yaml").read_text())
    (configs,) = [manifest["data"] for manifest in applied if manifest["kind"] == "ConfigMap"]
    assert configs["best.yaml"] == (rehearsal.folder / "model" / "configs" / "default.yaml").read_text()
    for words in ("CONFIG=nothing", "OVERLAY=nothing"):
        done = rehearsal.run(f"make job {words}")
        assert done.code, words
        assert not [call for call in done.calls if call[0] == "kubectl"], words


def test_images_are_built_by_the_builder_that_is_in_use_and_brought_out_of_it(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make image CACHE=build/cache && make sbom")
    assert done.code == 0, done.output
    builds = [call for call in done.calls if "build" in call]
    assert len(builds) == 3
    assert {tuple(call[:3]) for call in builds} == {("docker", "buildx", "build")}
    for target, call in zip(("serve", "train"), builds, strict=False):
        assert call[call.index("--target") + 1] == target
        assert "--load" in call
        assert call[call.index("--cache-from") + 1] == f"type=local,src=build/cache/{target}"
        assert call[call.index("--cache-to") + 1] == f"type=local,mode=max,dest=build/cache/{target}"
    plain = rehearsal.run("make image BUILDER=buildah --dry-run").output
    assert "buildah build" in plain
    assert "--load" not in plain


# For make; then for a shell, within single quotes, within double ones and within none.
_HOSTILE = "$(shell touch ran)x'; touch ran; '\"; touch ran; \"`touch ran`"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("chart", "OCI"),
        ("job", "CONFIG"),
        ("job", "OVERLAY"),
        ("job", "TRAIN"),
        ("page", "BUCKET"),
        ("page", "PAGE_ACCOUNT"),
        ("page", "PROJECT"),
        ("page", "REGION"),
        ("page", "SERVE"),
        ("pull", "SERVE"),
        ("pull", "TRAIN"),
        ("tagged", "NAME"),
    ],
)
def test_what_comes_from_outside_runs_nothing(rehearsal: Rehearsal, target: str, name: str) -> None:
    values = {"OCI": "oci://x", "SERVE": _SERVE, "TRAIN": _TRAIN}
    rehearsal.run(f"make {target}", **{**values, name: _HOSTILE})
    assert not (rehearsal.folder / "ran").exists()


@pytest.mark.parametrize("target", ["page", "pull"])
def test_what_comes_from_outside_goes_on_as_it_is(rehearsal: Rehearsal, target: str) -> None:
    done = rehearsal.run(f"make {target}", SERVE=_HOSTILE, TRAIN=_TRAIN)
    assert done.code == 0, done.output
    assert any(_HOSTILE in call for call in done.calls)


def test_cloud_run_gets_images_of_ghcr_by_artifact_registry(rehearsal: Rehearsal) -> None:
    done = rehearsal.run("make page", SERVE=f"ghcr.io/example/chiffre-serve@{DIGEST}", PROJECT="example", REGION="europe-west4")
    (call,) = [call for call in done.calls if call[0] == "gcloud"]
    assert call[call.index("--image") + 1] == f"europe-west4-docker.pkg.dev/example/ghcr/example/chiffre-serve@{DIGEST}"


def test_no_reason_is_given_for_what_nobody_calls(rehearsal: Rehearsal) -> None:
    text = " ".join(step.script for step in SCRIPTS) + (rehearsal.folder / "delivery.mk").read_text()
    assert {name for name in ELSEWHERE if f"{name} " in text} == set(ELSEWHERE)
