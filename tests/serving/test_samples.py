import io

import numpy as np
from PIL import Image

from model.data import MnistData
from tests.processes import ROOT

COLUMNS = 20


def test_the_pages_test_images_are_the_first_of_each_class(mnist: MnistData) -> None:
    images, labels = mnist.split("test").arrays()
    rows = [np.hstack(images[np.flatnonzero(labels == label)[:COLUMNS]].tolist()) for label in range(10)]
    expected = np.round(np.vstack(rows) * 255).astype(np.uint8)
    sprite = Image.open(io.BytesIO((ROOT / "serving" / "page" / "samples.png").read_bytes()))
    assert (sprite.mode, sprite.size) == ("L", (COLUMNS * 28, 280))
    assert (np.asarray(sprite) == expected).all()
