"""Whether an answer can be one: its form, its probabilities, whose it is, and that a model says the same of an image twice.

    right = Answers(labels, model_version="7").check(question, version, *v1_answer(content))

A label may be wrong, since no model is always right; anything else that is wrong here is a fault of the service.
"""

from typing import Any

import numpy as np

from loadtests.peers.wire import AnswerError
from loadtests.slo.kinds import Kind
from loadtests.slo.questions import Question
from model.bundle import LABELS, Floats, Labels

# Of a sum of ten probabilities, rounded; and of what batches of two sizes say of an image.
_SUM_TOLERANCE, _REPEAT_TOLERANCE = 1e-3, 1e-3


class Answers:
    """Answers about images with ``labels`` (n,), from ``model_version`` or, where that is empty, from any one that is named."""

    def __init__(self, labels: Labels, *, model_version: str = "") -> None:
        self._labels, self._model_version = labels, model_version
        self._seen: dict[tuple[str, bool], Floats] = {}

    def check(self, question: Question, version: str, labels: Any, probabilities: Any) -> int:
        """How many labels are right. Raises `AnswerError` for an answer that no model gives."""
        self._check_version(version)
        count = len(question.indices)
        try:
            rows, shape = np.asarray(probabilities, np.float32), np.shape(labels)
        except (OverflowError, TypeError, ValueError) as error:
            message = f"expected {count} labels and {count} rows of 10 probabilities: {error}"
            raise AnswerError(message) from error
        if rows.shape != (count, len(LABELS)) or shape != (count,):
            message = f"expected {count} labels and {count} rows of 10 probabilities, got shapes {shape} and {rows.shape}"
            raise AnswerError(message)
        # Not a number is in no interval.
        if not ((rows >= 0) & (rows <= 1 + _SUM_TOLERANCE)).all() or (abs(rows.sum(axis=1) - 1) > _SUM_TOLERANCE).any():
            message = f"expected probabilities that sum to 1, got {rows[abs(rows.sum(axis=1) - 1).argmax()].tolist()}"
            raise AnswerError(message)
        if list(labels) != rows.argmax(axis=1).tolist():
            message = f"expected the most probable labels {rows.argmax(axis=1).tolist()}, got {list(labels)}"
            raise AnswerError(message)
        self._check_repeated(question, version, rows)
        return int((np.asarray(labels) == self._labels[question.indices]).sum())

    def _check_version(self, version: str) -> None:
        if not version:
            message = "x-model-version: missing, the answer does not say which model gave it"
            raise AnswerError(message)
        if self._model_version not in ("", version):
            message = f"x-model-version: expected {self._model_version}, got {version}"
            raise AnswerError(message)

    def _check_repeated(self, question: Question, version: str, rows: Floats) -> None:
        """What is not an answer to this question, but to another's, differs from an earlier one to the same image."""
        # A picture is moved to where MNIST has its digits, and so is not quite the image.
        key = version, question.kind is Kind.IMAGE
        seen = self._seen.setdefault(key, np.full((len(self._labels), len(LABELS)), np.nan, np.float32))
        known = ~np.isnan(seen[question.indices, 0])
        if (abs(rows - seen[question.indices])[known] > _REPEAT_TOLERANCE).any():
            message = f"images {question.indices[known][:3].tolist()}: other probabilities than before, from the same version"
            raise AnswerError(message)
        seen[question.indices] = rows
