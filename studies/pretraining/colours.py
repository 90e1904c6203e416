"""What an image shows before anything is recognised in it, as annotations, and the changes of the counterfactual check."""

import numpy as np

EDGE = 4
SHADE = np.array([0.299, 0.587, 0.114])
# Of 255; below it a border counts as grey.
CHROMA = 20
DARK, LIGHT = 100, 140
BLUE = (70, 130, 200)


def border(images):
    """`grey`, `blue`, `green` or `warm`: the mean colour of the outer pixels of each image."""
    inner = np.zeros(images.shape[1:3], dtype=bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    colour = images[:, ~inner].mean(axis=1)
    named = np.array(["warm", "green", "blue"])[colour.argmax(axis=1)]
    return np.where(np.ptp(colour, axis=1) < CHROMA, "grey", named)


def light(images):
    """`dark`, `middle` or `light`, by the mean brightness."""
    shade = (images @ SHADE).mean(axis=(1, 2))
    return np.array(["dark", "middle", "light"])[np.digitize(shade, [DARK, LIGHT])]


def grey(images, intensity):
    """Images without this share of their colour, for ``dmstore targets --transform``."""
    shade = (images @ SHADE)[..., None]
    return np.rint(images + intensity * (shade - images)).astype(np.uint8)


def blue(images, intensity):
    """Images drawn towards the blue of a sky, for ``dmstore targets --transform``."""
    return np.rint(images + intensity * (np.array(BLUE) - images.astype(float))).astype(np.uint8)
