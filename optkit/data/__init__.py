"""The sources of input values: the user's functions, .npz files, image folders, seeded random values."""

from optkit.data.feeds import Feeds, Samples, absolute_data, data_fault, random_feed

__all__ = ["Feeds", "Samples", "absolute_data", "data_fault", "random_feed"]
