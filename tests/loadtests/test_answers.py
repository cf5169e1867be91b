"""Questions with real digits, and which answers to them can be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.peers.wire import AnswerError, v1_answer, v2_answer
from loadtests.slo.answers import Answers
from loadtests.slo.kinds import Kind
from loadtests.slo.questions import BATCH, Question, Questions
from model.bundle import Bundle
from model.data import MnistData
from model.idx import DataError
from serving.codec import decode
from serving.engine import Engine
from tests.processes import ROOT


@pytest.fixture(scope="module")
def questions() -> Questions:
    return Questions(ROOT / "data" / "mnist", "letters")


@pytest.fixture
def answers(questions: Questions) -> Answers:
    return Answers(questions.labels)


def test_numbers_are_the_images_bit_for_bit(questions: Questions, mnist: MnistData) -> None:
    images = mnist.split("test").images.numpy()
    question = questions.draw(Kind.V1)
    assert question.path == "/v1/models/letters:predict"
    assert (decode(question.body) == images[question.indices]).all()
    batch = questions.draw(Kind.V2)
    assert batch.path == "/v2/models/letters/infer"
    assert batch.body.endswith(images[batch.indices].tobytes())
    assert len(batch.indices) == BATCH
    call = questions.draw(Kind.GRPC)
    assert (call.body.model_name, call.body.raw_input_contents) == ("letters", [images[call.indices].tobytes()])
    assert questions.draw(Kind.IMAGE).body.startswith(b"\x89PNG")


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA256SUMS: missing"):
        Questions(tmp_path, "digits")
    (tmp_path / "SHA256SUMS").write_text("")
    with pytest.raises(DataError, match="no digest of t10k-images"):
        Questions(tmp_path, "digits")


def test_what_the_model_says_is_right_as_often_as_it_is(mnist: MnistData, bundle: Bundle) -> None:
    images, labels = mnist.split("test").arrays()
    found = Engine(bundle).answer(images)
    everything = Question(kind=Kind.V2, path="", body=b"", headers={}, indices=np.arange(len(labels)))
    right = Answers(labels).check(everything, "7", found.labels.tolist(), found.probabilities)
    assert right / len(labels) == pytest.approx(bundle.metrics["test_accuracy"])


def answer(label: int = 3) -> tuple[list[int], Any]:
    probabilities = np.full((1, 10), 0.01, np.float32)
    probabilities[0, label] = 0.91
    return [label], probabilities


@pytest.mark.parametrize(
    ("labels", "probabilities", "says"),
    [
        ([3, 3], answer()[1], "expected 1 labels"),
        ([], np.empty((0, 10)), "expected 1 labels"),
        ([3], answer()[1][:, :9], "rows of 10"),
        ([3], answer()[1] * 0.9, "sum to 1"),
        ([3], answer()[1] * np.nan, "sum to 1"),
        ([3], np.eye(10)[3][None] * 2 - 0.1, "sum to 1"),
        ([4], answer()[1], "most probable"),
        ([3, [1]], answer()[1], "expected 1 labels"),
        ([3], [[10**400] * 10], "expected 1 labels"),
        ([3], [["x"] * 10], "expected 1 labels"),
        ([10**400], answer()[1], "most probable"),
    ],
)
def test_what_no_model_says_is_wrong(
    answers: Answers, questions: Questions, labels: list[Any], probabilities: Any, says: str
) -> None:
    with pytest.raises(AnswerError, match=says):
        answers.check(questions.draw(Kind.V1), "7", labels, probabilities)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"3",
        b'{"predictions": [3]}',
        b'{"predictions": [{"label": 3, "probabilities": [1, [2]]}]}',
        b'{"predictions": [{"label": 3, "probabilities": [1' + b"0" * 400 + b"]}]}",
        b'{"predictions": ' + b"[" * 100_000,
    ],
    ids=lambda content: content[:60].decode(),
)
def test_what_is_no_answer_is_a_wrong_one(content: bytes) -> None:
    with pytest.raises(AnswerError, match="expected a V1 answer"):
        v1_answer(content)
    with pytest.raises(AnswerError, match="expected a binary V2 answer"):
        v2_answer(content, len(content))


def test_lineage_has_to_be_there_and_the_expected_one(questions: Questions) -> None:
    question = questions.draw(Kind.V1)
    with pytest.raises(AnswerError, match="x-model-version: missing"):
        Answers(questions.labels).check(question, "", *answer())
    with pytest.raises(AnswerError, match="expected 7, got 8"):
        Answers(questions.labels, model_version="7").check(question, "8", *answer())


def test_an_image_has_one_answer_from_one_version_and_form(answers: Answers, questions: Questions) -> None:
    question = questions.draw(Kind.V1)
    image = Question(kind=Kind.IMAGE, path="", body=b"", headers={}, indices=question.indices)
    for other, version, label in ((question, "7", 3), (question, "7", 3), (question, "8", 4), (image, "7", 5)):
        answers.check(other, version, *answer(label))
    with pytest.raises(AnswerError, match="other probabilities than before"):
        answers.check(question, "7", *answer(4))
