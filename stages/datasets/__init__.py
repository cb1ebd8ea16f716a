"""Labelled image sets: where they come from, how they are split, what is wrong with them.

`load_dataset` is the door. Nothing here decodes an image or imports torch: a data set is a table of
files and labels.
"""

from stages.datasets.load import SOURCES, load_dataset
from stages.datasets.manifest import check_manifest, manifest_of, write_manifest
from stages.datasets.packaged import PACKAGED
from stages.datasets.paper_sets import PAPER_SETS

__all__ = [
    "PACKAGED",
    "PAPER_SETS",
    "SOURCES",
    "check_manifest",
    "load_dataset",
    "manifest_of",
    "write_manifest",
]
