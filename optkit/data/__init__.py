"""The sources of input values.

feeds           functions of the user's, .npz files, seeded random values; feeds of any size cut from them
random_values   values by the names and types of the inputs, and the kinds to try where a model does not accept some
image_folder    a folder of images, described by an images.yaml
preprocessing   how an image file becomes an input
images          the same without optkit: packages carry this file, so it imports nothing of optkit
"""

from optkit.data.feeds import Feeds, Samples, absolute_data, data_fault, write_npz
from optkit.data.random_values import random_feed

__all__ = ["Feeds", "Samples", "absolute_data", "data_fault", "random_feed", "write_npz"]
