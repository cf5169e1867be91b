"""What ``python -m model predict`` leaves: a CSV file with an answer for each image."""

import csv
from pathlib import Path

from torch import Tensor

from model.bundle import LABELS

PREDICTIONS = "predictions.csv"


def write_predictions(directory: Path, probabilities: Tensor) -> Path:
    """Write ``predictions.csv``: each image's number, its label, and the probability of each label (n, 10)."""
    path = directory / PREDICTIONS
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = probabilities.argmax(dim=1).tolist()
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", *(f"p{label}" for label in LABELS)])
        for image, (answer, row) in enumerate(zip(answers, probabilities.tolist(), strict=True)):
            writer.writerow([image, LABELS[answer], *(f"{value:.6f}" for value in row)])
    return path
