"""The label-free estimate beside the truth, under each shift: on golden images, which the calibration never saw."""

from typing import Any

import numpy as np

from model.bundle import Bundle, expected_correct, profile_statistics
from model.data import MnistData
from model.shifts import SHIFTS
from watching.populations import predict


def compare(bundle: Bundle) -> dict[str, Any]:
    """Truth, estimate and its sampling error by shift, and the mean absolute errors of both guesses over the list.

    ``plain`` is the mean calibrated confidence alone; ``constant`` is the validation accuracy, whatever comes.
    """
    pixels, labels = MnistData(split_seed=bundle.lineage.split_seed).split("golden").arrays()
    constant = bundle.metrics["validation_accuracy"]
    rows = {}
    for name, shifted in [("none", pixels), *((shift.name, shift.apply(pixels)) for shift in SHIFTS)]:
        predicted = predict(bundle, shifted)
        probable = expected_correct(bundle.profile, profile_statistics(shifted, predicted))
        rows[name] = {
            "truth": float((predicted.argmax(axis=1) == labels).mean()),
            "estimate": float(probable.mean()),
            "sampling_error": float(np.sqrt((probable * (1 - probable)).sum()) / len(labels)),
            "plain": float(predicted.max(axis=1).mean(dtype=np.float64)),
        }
    errors = {
        guess: float(np.mean([abs(row.get(guess, constant) - row["truth"]) for name, row in rows.items() if name != "none"]))
        for guess in ("estimate", "plain", "constant")
    }
    return {"images": len(labels), "constant": constant, "shifts": rows, "mean_absolute_error": errors}
