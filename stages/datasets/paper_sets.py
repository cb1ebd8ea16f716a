"""The paper's twelve data sets: sizes, metric, where the release lies on disk and where it comes from.

Sizes and metrics are Table 1 of Kornblith, Shlens and Le (CVPR 2019), with 3,669 test images of Pets, as
released, for the 3,369 printed there. The sizes of validation sets are the official ones, or those of later
work that repeats the protocol (BYOL, appendix D) where there is no official one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stages.datasets.caltech101 import caltech101
from stages.datasets.cifar import cifar
from stages.datasets.listed_sets import (
    SUN397_LISTS,
    birdsnap,
    dtd,
    fgvc_aircraft,
    food101,
    oxford_pets,
    sun397,
)
from stages.datasets.mat_sets import flowers102, stanford_cars
from stages.datasets.official import Release
from stages.datasets.rows import Row
from stages.datasets.voc import voc2007
from stages.records import Metric

ROBOTS = "https://www.robots.ox.ac.uk/~vgg/data"
TORONTO = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Hub:
    """A copy on the Hugging Face hub that holds the paper's split, as plain tables: no code of it runs.

    The sizes are those that its page or the benchmark that names the revision (mteb 2.26) states, seen in
    November 2026.
    """

    name: str
    """With the revision: user/name@revision."""
    label_column: str | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    """Its name of a split -> ours, where it says otherwise."""
    complete: bool = True
    """Whether it holds every image of the paper's table."""

    @property
    def source(self) -> str:
        """As a study has it."""
        return f"hf:{self.name}"


@dataclass(frozen=True)
class PaperSet:
    """One data set of the paper."""

    title: str
    classes: int
    train: int
    """Images, those of validation among them."""
    test: int
    metric: Metric
    validation: int
    """Images of ``train`` that choose hyper-parameters."""
    official_validation: bool
    """Whether the release names them; else they are drawn."""
    homes: tuple[str, ...]
    """Folders below the root that the archives unpack to, most usual first."""
    needs: tuple[str, ...]
    """What tells the release by: files of the home; a|b = either."""
    archives: str
    """What to unpack."""
    fetch: str
    """Where the archives are."""
    read: Callable[[Release], list[Row]]
    hub: Hub | None = None


PAPER_SETS: dict[str, PaperSet] = {
    "food101": PaperSet(
        title="dishes",
        classes=101, train=75750, test=25250, metric="top_1", validation=7575, official_validation=False,
        homes=("food-101",), needs=("meta/train.json", "meta/test.json"),
        archives="food-101.tar.gz", fetch="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        read=food101, hub=Hub("ethz/food101@e06acf2a88084f04bce4d4a525165d68e0a36c38",
                              splits={"validation": "test"}),
    ),
    "cifar10": PaperSet(
        title="small photographs of objects",
        classes=10, train=50000, test=10000, metric="top_1", validation=5000, official_validation=False,
        homes=("cifar-10-batches-bin", "cifar-10-batches-py"), needs=("test_batch.bin|test_batch",),
        archives="cifar-10-binary.tar.gz or cifar-10-python.tar.gz", fetch=TORONTO,
        read=cifar, hub=Hub("uoft-cs/cifar10@0b2714987fa478483af9968de7c934580d0bb9a2"),
    ),
    "cifar100": PaperSet(
        title="small photographs of objects",
        classes=100, train=50000, test=10000, metric="top_1", validation=5067, official_validation=False,
        homes=("cifar-100-binary", "cifar-100-python"), needs=("test.bin|test", "train.bin|train"),
        archives="cifar-100-binary.tar.gz or cifar-100-python.tar.gz", fetch=TORONTO,
        read=cifar, hub=Hub("uoft-cs/cifar100@aadb3af77e9048adbea6b47c21a81e47dd092ae5", label_column="fine_label"),
    ),
    "birdsnap": PaperSet(
        title="North American birds",
        classes=500, train=47386, test=2443, metric="top_1", validation=4981, official_validation=False,
        homes=("birdsnap",), needs=("images.txt", "test_images.txt"),
        archives="birdsnap.tgz and the images of get_birdsnap.py",
        fetch="http://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz, images from their owners",
        read=birdsnap, hub=Hub("mteb/birdsnap@fd23015508be94f0b5b59d61630e4ea2536509e4",
                               label_column="common", complete=False),
    ),
    "sun397": PaperSet(
        title="scenes, split 1",
        classes=397, train=19850, test=19850, metric="top_1", validation=3970, official_validation=False,
        homes=("SUN397",), needs=(
            "|".join(place.format("Training_01.txt") for place in SUN397_LISTS),
            "|".join(place.format("Testing_01.txt") for place in SUN397_LISTS),
        ),
        archives="SUN397.tar.gz and Partitions.zip",
        fetch="https://vision.princeton.edu/projects/2010/SUN/ (often out of reach)",
        read=sun397, hub=Hub("tanganke/sun397@9c4afd6174afa3974f209a0ef099dbbe244dfd27"),
    ),
    "stanford_cars": PaperSet(
        title="makes and models of cars",
        classes=196, train=8144, test=8041, metric="top_1", validation=1650, official_validation=False,
        homes=("stanford_cars",), needs=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat"),
        archives="car_devkit.tgz, cars_train.tgz, cars_test.tgz and cars_test_annos_withlabels.mat",
        fetch="a copy (the official page is gone; https://github.com/pytorch/vision/issues/7545 names some)",
        read=stanford_cars, hub=Hub("mteb/StanfordCars@09ffe9bc7864d3f1e851529e5c4b7e05601a04fb"),
    ),
    "fgvc_aircraft": PaperSet(
        title="variants of aircraft",
        classes=100, train=6667, test=3333, metric="mean_per_class", validation=3333, official_validation=True,
        homes=("fgvc-aircraft-2013b",), needs=("data/images_variant_train.txt",),
        archives="fgvc-aircraft-2013b.tar.gz", fetch=f"{ROBOTS}/fgvc-aircraft/",
        read=fgvc_aircraft, hub=Hub("HuggingFaceM4/FGVC-Aircraft@e18a7c97147c90dc7f4a60d74a7f4258e9264e97",
                                    label_column="variant"),
    ),
    "voc2007": PaperSet(
        title="which of twenty kinds of objects are seen, multi-label",
        classes=20, train=5011, test=4952, metric="map_11_point", validation=2510, official_validation=True,
        homes=("VOCdevkit/VOC2007", "VOC2007"), needs=("ImageSets/Main/trainval.txt", "ImageSets/Main/test.txt"),
        archives="VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
        fetch="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/, or voc2007.tar.gz of the Hugging Face dataset "
              "HuggingFaceM4/pascal_voc",
        read=voc2007,
    ),
    "dtd": PaperSet(
        title="textures, split 1",
        classes=47, train=3760, test=1880, metric="top_1", validation=1880, official_validation=True,
        homes=("dtd", "dtd/dtd"), needs=("labels/train1.txt", "labels/val1.txt", "labels/test1.txt"),
        archives="dtd-r1.0.1.tar.gz", fetch=f"{ROBOTS}/dtd/",
        read=dtd, hub=Hub("tanganke/dtd@d2afa97d9f335b1a6b3b09c637aef667f98f966e"),
    ),
    "oxford_pets": PaperSet(
        title="breeds of cats and dogs",
        classes=37, train=3680, test=3669, metric="mean_per_class", validation=740, official_validation=False,
        homes=("oxford-iiit-pet",), needs=("annotations/trainval.txt", "annotations/test.txt"),
        archives="images.tar.gz and annotations.tar.gz", fetch=f"{ROBOTS}/pets/",
        read=oxford_pets, hub=Hub("timm/oxford-iiit-pet@10b688881011725fa2fa3d856a47536c9a7e6968",
                                  label_column="label"),
    ),
    "caltech101": PaperSet(
        title="objects and a background class, 30 random images a class for training",
        classes=102, train=3060, test=6084, metric="mean_per_class", validation=510, official_validation=False,
        homes=("caltech101", "caltech-101", "caltech101/caltech-101"), needs=("101_ObjectCategories",),
        archives="caltech-101.zip and the 101_ObjectCategories.tar.gz in it",
        fetch="https://data.caltech.edu/records/mzrjq-6wc02",
        read=caltech101, hub=Hub("mteb/Caltech101@011e51e5fb01f0c820824734edb7a539ab8e6650"),
    ),
    "flowers102": PaperSet(
        title="kinds of flowers",
        classes=102, train=2040, test=6149, metric="mean_per_class", validation=1020, official_validation=True,
        homes=("flowers-102",), needs=("imagelabels.mat", "setid.mat"),
        archives="102flowers.tgz", fetch=f"{ROBOTS}/flowers/102/ (with imagelabels.mat and setid.mat)",
        read=flowers102, hub=Hub("dpdl-benchmark/oxford_flowers102@544b55c9af69a05742ead7571cd7ae23cfcd758b"),
    ),
}  # fmt: skip
"""By the name that a study uses."""
