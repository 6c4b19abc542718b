"""Where the values of inputs come from: functions of the user's, .npz files, image folders, seeded random values."""

from optkit.data.feeds import Feeds, Samples, absolute_data, data_fault, random_feed, write_npz

__all__ = ["Feeds", "Samples", "absolute_data", "data_fault", "random_feed", "write_npz"]
