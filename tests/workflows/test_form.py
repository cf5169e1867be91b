"""What holds for all workflows: pinned actions, least permissions, ends, and nothing of a stranger's in a script."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import ROOT
from tests.workflows.workflows import ACTIONS, EXPRESSION, FILES, GITHUB, Step, jobs, load, steps, strings

JOBS = [pytest.param(path, name, job, id=f"{path.stem}-{name}") for path, name, job in jobs()]
STEPS = list(steps())
WORKFLOWS = [pytest.param(path, id=path.stem) for path in FILES]

# Which job may write what, or be somebody, and why: all else reads.
WRITES = {
    ("test", "comment"): {"pull-requests"},  # the summary, beside the change
    ("images", "images"): {"attestations", "id-token", "packages"},  # pushes images, signs them
    ("release", "images"): {"attestations", "id-token", "packages"},
    ("deploy", "images"): {"attestations", "id-token", "packages"},
    ("retrain", "images"): {"attestations", "id-token", "packages"},
    ("release", "chart"): {"id-token", "packages"},  # pushes the chart, signs it
    ("release", "notes"): {"contents"},  # makes the release
    ("e2e", "kind"): {"id-token"},  # signs the record of its roll-out
    ("test", "e2e"): {"id-token"},
    ("deploy", "e2e"): {"id-token"},
    ("release", "e2e"): {"id-token"},
    ("deploy", "gke"): {"id-token"},  # Google's identities, without keys
    ("retrain", "canary"): {"id-token"},
    ("page", "page"): {"id-token"},
    ("deploy", "page"): {"id-token"},
}


def uses() -> list[tuple[Path, str]]:
    """Each line that names an action or a workflow, as it stands in the file."""
    found = [(path, line.strip()) for path in (*FILES, *ACTIONS) for line in path.read_text().splitlines()]
    return [(path, line.removeprefix("- ")) for path, line in found if line.removeprefix("- ").startswith("uses:")]


def test_there_are_the_workflows_and_nothing_else() -> None:
    names = {"test", "e2e", "images", "release", "deploy", "retrain", "page"}
    assert {path.name for path in FILES} == {f"{name}.yml" for name in names}


def test_actions_of_others_are_pinned_by_a_commit_whose_version_is_said() -> None:
    versions: dict[str, set[str]] = {}
    for path, line in uses():
        name = line.removeprefix("uses: ")
        if name.startswith("./.github/"):
            target = ROOT / name
            assert (target if target.suffix else target / "action.yml").is_file(), f"{path.name}: {name}"
            continue
        found = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", name)
        assert found, f"{path.name}: {line}"
        versions.setdefault(found[1], set()).add(found[2] + found[3])
    assert versions
    assert all(len(found) == 1 for found in versions.values()), versions


@pytest.mark.parametrize("path", WORKFLOWS)
def test_nothing_is_permitted_but_what_a_job_asks_for(path: Path) -> None:
    assert load(path)["permissions"] == {}


@pytest.mark.parametrize(("path", "name", "job"), JOBS)
def test_a_job_writes_only_what_it_has_to(path: Path, name: str, job: dict[str, Any]) -> None:
    permissions = job["permissions"]
    assert isinstance(permissions, dict)
    assert set(permissions.values()) <= {"read", "write"}
    assert {scope for scope, access in permissions.items() if access == "write"} == WRITES.get((path.stem, name), set())


@pytest.mark.parametrize(("path", "name", "job"), JOBS)
def test_a_job_ends_by_itself(path: Path, name: str, job: dict[str, Any]) -> None:
    if "uses" in job:
        assert "timeout-minutes" not in job, "GitHub refuses it beside `uses`"
        return
    assert 1 <= job["timeout-minutes"] <= 120, f"{path.name}: {name}"
    # A label that is a version, so that the machine changes by a commit.
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])


@pytest.mark.parametrize("path", WORKFLOWS)
def test_runs_do_not_get_in_each_others_way(path: Path) -> None:
    content = load(path)
    if set(content["on"]) == {"workflow_call"}:
        return
    guards = [content.get("concurrency"), *(job.get("concurrency") for job in content["jobs"].values())]
    assert any(guard and guard["group"] for guard in guards)


def test_one_roll_out_at_a_time_on_the_cluster_which_is_never_cut_short() -> None:
    for path, name, job in jobs():
        environment = job.get("environment")
        if isinstance(environment, dict) and environment["name"] == "gke":
            assert job["concurrency"] == {"group": "gke"}, f"{path.name}: {name}"
            assert load(path).get("concurrency", {}).get("cancel-in-progress", False) is False


def test_no_change_waits_for_the_approval_of_another_to_be_built_and_rehearsed() -> None:
    content = load(GITHUB / "workflows" / "deploy.yml")
    assert "concurrency" not in content, "a run keeps its group while a job of it waits"
    assert [name for name, job in content["jobs"].items() if "concurrency" in job] == ["gke"]


def test_what_was_promoted_is_put_back_however_the_job_ends() -> None:
    job = load(GITHUB / "workflows" / "deploy.yml")["jobs"]["gke"]
    found = [number for number, step in enumerate(job["steps"]) if "python -m rollout rollback" in step.get("run", "")]
    canary = next(number for number, step in enumerate(job["steps"]) if step.get("id") == "canary")
    (back,) = found
    assert job["steps"][back]["if"] == "(failure() || cancelled()) && steps.canary.outcome == 'success'"
    # Each step from the canary on has an end of its own, and the sum leaves ten minutes before and ten to put back.
    assert sum(step["timeout-minutes"] for step in job["steps"][canary:back]) + 20 <= job["timeout-minutes"]


def test_what_goes_to_users_was_attested_first() -> None:
    for name, script in (("deploy", "python -m rollout start"), ("page", "make page")):
        found = [step for step in STEPS if step.file.stem == name and step.script]
        scripts = [step.script for step in found]
        (first,) = [number for number, text in enumerate(scripts) if text.startswith('gh attestation verify "oci://$SERVE"')]
        assert any(text.startswith(script) for text in scripts[first:])
        assert not any(text.startswith(script) for text in scripts[:first])
        assert {"GH_TOKEN", "SERVE"} <= set(found[first].environment)
        assert load(found[first].file)["jobs"][found[first].job]["permissions"]["attestations"] == "read"


def test_nothing_is_released_that_has_not_been_on_a_cluster() -> None:
    every = load(GITHUB / "workflows" / "release.yml")["jobs"]
    rehearsed = every["e2e"]
    assert rehearsed["uses"] == "./.github/workflows/e2e.yml"
    for name in ("serve", "train"):
        assert rehearsed["with"][name] == f"${{{{ needs.images.outputs.{name} }}}}"
    for name in set(every) - {"version", "images", "e2e"}:
        assert {"images", "e2e"} <= set(every[name]["needs"]), name


@pytest.mark.parametrize("step", [pytest.param(step, id=step.place) for step in STEPS])
def test_a_script_has_no_expression_in_it(step: Step) -> None:
    """What a stranger may choose, a title or a branch's name, would be part of the script; an environment variable is not."""
    assert not EXPRESSION.search(step.script)


@pytest.mark.parametrize("step", [pytest.param(step, id=step.place) for step in STEPS])
def test_make_gets_values_by_the_environment(step: Step) -> None:
    """What stands on its command line it expands, and would run `$(shell ...)` in it."""
    for line in re.findall(r"\bmake .*", step.script):
        assert not re.search(r"\b[A-Z_]+=\S*\$", line), line


def test_nothing_runs_a_strangers_code_with_the_rights_of_this_repository() -> None:
    for path in FILES:
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(load(path)["on"]), path.name


def test_there_are_no_secrets_but_the_runs_own_token() -> None:
    for path in (*FILES, *ACTIONS):
        assert "secrets" not in " ".join(strings(load(path))), path.name
        tokens = set(re.findall(r"\b(?:github\.token|[A-Z_]*(?:SECRET|PASSWORD|CREDENTIALS)[A-Z_]*)", path.read_text()))
        assert tokens <= {"github.token"}, path.name


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for step in STEPS if step.uses.startswith("actions/checkout@")]
    assert checkouts
    for step in checkouts:
        assert step.content["with"]["persist-credentials"] is False, step.place


def test_google_is_asked_without_keys() -> None:
    logins = [step for step in STEPS if step.uses.startswith("google-github-actions/auth@")]
    assert len(logins) == 2
    for step in logins:
        assert set(step.content["with"]) == {"workload_identity_provider", "service_account"}, step.place


def test_one_job_needs_all_others_and_fails_with_any() -> None:
    every = load(GITHUB / "workflows" / "test.yml")["jobs"]
    required = every["required"]
    assert set(required["needs"]) == set(every) - {"required"}
    assert required["if"] == "always()", "a job that needs a failed one is left out otherwise, and one left out counts as passed"
    (step,) = required["steps"]
    assert step["if"] == "contains(needs.*.result, 'failure') || contains(needs.*.result, 'cancelled')"
    # What is left out counts as passed; these may be, where a change touches nothing of a cluster's.
    assert {name for name, job in every.items() if "if" in job} == {"changes", "e2e", "comment", "required"}


def test_the_oldest_python_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = load(GITHUB / "workflows" / "test.yml")["jobs"]["unit"]["strategy"]["matrix"]["python"]
    assert f">={versions[0]}" == project["requires-python"]
    assert load(GITHUB / "actions" / "environment" / "action.yml")["inputs"]["python-version"]["default"] == versions[0]
    assert all(isinstance(version, str) for version in versions), "3.10 would be the number 3.1"


@pytest.mark.parametrize(
    ("path", "name", "job"), [pytest.param(*found, id=f"{found[0].stem}-{found[1]}") for found in jobs() if "uses" in found[2]]
)
def test_a_called_workflow_is_called_as_it_says(path: Path, name: str, job: dict[str, Any]) -> None:
    called = load(ROOT / job["uses"])
    inputs = (called["on"]["workflow_call"] or {}).get("inputs", {})
    assert set(job.get("with", {})) <= set(inputs), f"{path.name}: {name}"
    assert {key for key, wanted in inputs.items() if wanted.get("required")} <= set(job.get("with", {}))
    # GitHub refuses the whole workflow otherwise.
    for inner in called["jobs"].values():
        for scope, access in inner["permissions"].items():
            assert job["permissions"].get(scope) in {access, "write"}, f"{path.name}: {name}: {scope}"


def test_every_output_that_is_read_is_written() -> None:
    for path, name, job in jobs():
        text = " ".join(strings({key: value for key, value in job.items() if key != "needs"}))
        for needed, output in re.findall(r"needs\.([\w-]+)\.outputs\.([\w-]+)", text):
            assert needed in job["needs"], f"{path.name}: {name}"
            source = load(path)["jobs"][needed]
            known = source.get("outputs") or load(ROOT / source["uses"])["on"]["workflow_call"]["outputs"]
            assert output in known, f"{path.name}: {name}: {output}"
        for identity, _ in re.findall(r"steps\.([\w-]+)\.(outputs\.[\w-]+|outcome)", text):
            assert identity in {step.get("id") for step in job["steps"]}, f"{path.name}: {name}: {identity}"


def test_updates_of_actions_are_proposed() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    (found,) = [update for update in updates if update["package-ecosystem"] == "github-actions"]
    assert found["directories"] == ["/", "/.github/actions/*"]
