"""Sources of input values.

feeds           user functions, .npz files and seeded random values; feeds of any size made from them
random_values   random values by the names and types of inputs, and the kinds to try if a model refuses some
image_folder    a folder of images, described by an images.yaml file
preprocessing   conversion of an image file to an input
images          preprocessing without optkit: packages contain this file, so it does not import optkit
"""

from optkit.data.feeds import Feeds, Samples, absolute_data, data_fault, write_npz
from optkit.data.random_values import random_feed

__all__ = ["Feeds", "Samples", "absolute_data", "data_fault", "random_feed", "write_npz"]
