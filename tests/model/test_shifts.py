"""The fixed list of shifts: six kinds at three rising strengths, the same for any first part."""

from itertools import groupby

import numpy as np
import pytest

from model.bundle import Floats
from model.data import MnistData
from model.shifts import SHIFTS, Shift


@pytest.fixture(scope="module")
def images(mnist: MnistData) -> Floats:
    found, _ = mnist.split("golden").arrays()
    return found[:400]


def test_there_are_six_kinds_at_three_rising_strengths() -> None:
    kinds = {kind: [shift.strength for shift in shifts] for kind, shifts in groupby(SHIFTS, lambda shift: shift.kind)}
    assert list(kinds) == ["rotation", "noise", "blur", "contrast", "polarity", "translation"]
    assert all(len(strengths) == 3 and strengths == sorted(set(strengths)) for strengths in kinds.values())


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.name)
def test_a_shift_changes_images_the_same_way_each_time_and_for_any_first_part(shift: Shift, images: Floats) -> None:
    before = images.copy()
    shifted = shift.apply(images)
    assert np.array_equal(images, before)
    assert shifted.shape == images.shape
    assert shifted.dtype == np.float32
    assert 0 <= shifted.min() <= shifted.max() <= 1
    assert np.abs(shifted - images).mean() > 0.001
    assert np.array_equal(shifted[:101], shift.apply(images[:101]))


def test_the_strongest_polarity_is_the_negative(images: Floats) -> None:
    assert np.allclose(Shift(kind="polarity", strength=1, unit="").apply(images), 1 - images)


def test_a_translated_image_moves_diagonally_in_turns() -> None:
    dots = np.zeros((2, 28, 28), np.float32)
    dots[:, 14, 14] = 1
    moved = Shift(kind="translation", strength=2, unit=" px").apply(dots)
    assert [tuple(map(int, np.argwhere(image)[0])) for image in moved] == [(16, 16), (12, 12)]
