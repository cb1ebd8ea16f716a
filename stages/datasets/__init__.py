"""Labelled image sets: where they come from, how they are split, what is wrong with them.

`load_dataset` is the door. Nothing here decodes an image or imports torch: a data set is a table of
files and labels.
"""

from stages.datasets.load import SOURCES, load_dataset
from stages.datasets.packaged import PACKAGED

__all__ = ["PACKAGED", "SOURCES", "load_dataset"]
