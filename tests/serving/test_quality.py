"""What is counted of images: a picture's polarity leaves no trace, that of a tensor does."""

import io

import numpy as np
from PIL import Image

from model.bundle import Floats, image_statistics
from model.data import MnistData
from serving.picture import normalise, open_picture


def picture(image: Floats, side: int) -> bytes:
    """A PNG of ``image`` (28, 28), ``side`` pixels wide and high."""
    content = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).resize((side, side)).save(content, "PNG")
    return content.getvalue()


def seen(images: Floats, side: int) -> Floats:
    """What is counted of ``images`` (n, 28, 28) that come as pictures."""
    return np.stack([normalise(open_picture(picture(image, side))) for image in images])


def test_inverted_pictures_are_no_drift_and_inverted_tensors_are(mnist: MnistData) -> None:
    images = mnist.split("golden").images[:200].numpy()
    for side in (28, 140):
        upright, inverted = (image_statistics(seen(shown, side)) for shown in (images, 1 - images))
        for name, values in upright.items():
            assert np.allclose(values, inverted[name], atol=1e-3 * np.abs(values).max()), name
    upright, inverted = image_statistics(images), image_statistics(1 - images)
    assert inverted["mean_ink"].min() > upright["mean_ink"].max()
