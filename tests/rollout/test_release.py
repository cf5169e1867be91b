"""What a roll-out reads of a release's values and history, and what it sets."""

from typing import Any

import pytest

from rollout.cluster import Pods, View, read_view
from rollout.errors import RolloutError
from rollout.release import Entry, deployed, story_of
from rollout.story import Stage, Story
from rollout.values import changes, image, model, read_image, settings
from tests.rollout.apiserver import SOURCE

DIGEST = "sha256:" + "0" * 64
BEFORE: dict[str, Any] = {"model": {"uri": "mlflow://digits/6"}, "image": {"repository": "serve", "tag": "1"}}
STORY = Story(version="7", champion="6", baseline=3, stage=Stage.SHARE, percent=25)
URI, PERCENT = ("model", "uri"), ("canary", "percent")


def story(stage: Stage, **more: Any) -> Story:
    return Story(**{**vars(STORY), "stage": stage, **more})


def test_a_share_changes_the_model_and_the_share_alone() -> None:
    assert changes(STORY, BEFORE, BEFORE, "") == {URI: "mlflow://digits/7", PERCENT: 25}


def test_a_new_image_takes_the_place_of_tag_and_digest() -> None:
    found = changes(STORY, BEFORE, BEFORE, f"other@{DIGEST}")
    assert found[("image", "repository")] == "other"
    assert found[("image", "digest")] == DIGEST
    assert found[("image", "tag")] is None


def test_putting_back_sets_what_was_given_before_and_takes_away_what_was_not() -> None:
    now = {"model": {"uri": "mlflow://digits/7"}, "image": {"repository": "other", "digest": DIGEST}, "canary": {"percent": 25}}
    assert changes(story(Stage.PUTTING_BACK), now, BEFORE, "") == {
        URI: "mlflow://digits/6",
        PERCENT: 0,
        ("image", "repository"): "serve",
        ("image", "tag"): "1",
        ("image", "digest"): None,
    }


def test_at_the_end_only_the_share_goes() -> None:
    for stage in (Stage.PROMOTED, Stage.ROLLED_BACK):
        assert changes(story(stage), {**BEFORE, "canary": {"percent": 0}}, BEFORE, "") == {PERCENT: None}


def test_a_round_of_the_champion_against_itself_has_a_mark() -> None:
    found = changes(story(Stage.SELF_TEST, note="2"), BEFORE, BEFORE, "")
    assert found == {PERCENT: 0, ("podAnnotations", "chiffre.dev/rollout"): "round-2"}
    assert settings(found) == ["--set", "canary.percent=0", "--set-string", r"podAnnotations.chiffre\.dev/rollout=round-2"]


def test_helm_gets_null_and_texts_as_they_are() -> None:
    assert settings({PERCENT: None, ("model", "uri"): "mlflow://a,b/1"}) == [
        *("--set", "canary.percent=null"),
        *("--set-string", r"model.uri=mlflow://a\,b/1"),
    ]


@pytest.mark.parametrize("uri", ["", "pvc://claim/path", "mlflow://runs/0a1b/bundle", "mlflow://digits/champion"])
def test_a_release_without_a_version_of_the_registry_is_refused(uri: str) -> None:
    with pytest.raises(RolloutError, match=r"^model\.uri: expected mlflow://NAME/VERSION"):
        model({"model": {"uri": uri}})


@pytest.mark.parametrize("reference", ["serve:1", f"registry.example:5000/team/serve@{DIGEST}", f"serve:1@{DIGEST}"])
def test_an_image_is_read_as_it_is_written(reference: str) -> None:
    content: dict[str, Any] = {}
    for (group, key), value in read_image(reference).items():
        content.setdefault(group, {})[key] = value
    assert image(content) == reference


@pytest.mark.parametrize("reference", ["serve", "", "serve@sha256:1", "serve:", "serve:a b"])
def test_an_image_that_names_none_is_refused(reference: str) -> None:
    with pytest.raises(RolloutError, match=r"^image: expected REPOSITORY:TAG"):
        read_image(reference)


def test_what_helm_put_back_is_read_as_what_it_was() -> None:
    texts = ["Install complete", str(STORY), 'Upgrade "digits" failed: no', "Rollback to 2", "Rollback to 4", "Rollback to 99"]
    history = [Entry(revision=number, status="superseded", description=text) for number, text in enumerate(texts, 1)]
    assert [story_of(entry, history) for entry in history] == [None, STORY, None, STORY, STORY, None]
    assert deployed(history) is None


def objects(percent: int | None, *, newest: str = "7", is_routed: bool = True) -> View:
    """Of a release whose values say version 7 with a share."""
    pods = {"metadata": {"annotations": {SOURCE: "mlflow://digits/7"}}, "spec": {"containers": CONTAINERS}}
    latest = {"revisionName": "b", "latestRevision": True, "percent": 100 if percent is None else percent, "tag": "latest"}
    old = {"revisionName": "a", "percent": 100 - (percent or 0), "tag": "prev", "url": "http://prev.example"}
    conditions = [{"type": "RoutesReady", "status": str(is_routed)}]
    status = {"observedGeneration": 2, "latestCreatedRevisionName": "b", "latestReadyRevisionName": "b", "conditions": conditions}
    service = {
        "metadata": {"generation": 2},
        "spec": {"template": pods},
        "status": {**status, "url": "https://users.example", "traffic": [latest] if percent in (None, 100) else [latest, old]},
    }
    rolled_out = {"latestRolledoutRevision": "b" if percent is None else "a"}
    inference = {"metadata": {"uid": "0a1b"}, "status": {"components": {"predictor": rolled_out}}}
    revision = {**pods, "metadata": {"annotations": {SOURCE: f"mlflow://digits/{newest}"}}}
    return read_view(service, inference, {"spec": {"containers": CONTAINERS}}, revision)


CONTAINERS = [{"name": "queue-proxy", "image": "q"}, {"name": "kserve-container", "image": "serve:1"}]
WANTED = {"uri": "mlflow://digits/7", "mark": ""}


def test_a_share_is_served_when_both_revisions_have_theirs() -> None:
    for percent in (0, 5, 50):
        view = objects(percent)
        assert view.serves(**WANTED, percent=percent)
        assert (view.hosts["prev"], view.scheme, view.uid) == ("prev.example", "https", "0a1b")
        assert not view.serves(**WANTED, percent=percent + 1)
    assert objects(None).serves(**WANTED, percent=None)
    assert not objects(100).serves(**WANTED, percent=100), "KServe has not taken notice yet"


def test_what_is_not_there_yet_is_not_served() -> None:
    assert not objects(5, newest="6").serves(**WANTED, percent=5)
    assert not objects(5, is_routed=False).serves(**WANTED, percent=5)
    assert not objects(5).serves(uri="mlflow://digits/6", mark="", percent=5)
    assert not objects(5).serves(uri="mlflow://digits/7", mark="round-1", percent=5)
    assert objects(5).newest == Pods(uri="mlflow://digits/7", image="serve:1", mark="")
