"""Packaged image sets: stable bytes, disjoint splits."""

import hashlib

import pytest

from stages.datasets import PACKAGED, load_dataset
from stages.errors import DatasetError

SIZES = {
    "digits": (10, 400, 200),
    "photographs": (7, 217, 216),
    "textures": (3, 120, 72),
    "faces": (2, 40, 100),
}


@pytest.mark.parametrize("name", PACKAGED)
def test_sizes_and_balance(tmp_path, name):
    dataset = load_dataset(name, unpack_to=tmp_path)
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert (len(dataset.class_names), len(train), len(test)) == SIZES[name]
    contents = [path.read_bytes() for path in (*train.paths, *test.paths)]
    assert len(set(contents)) == len(contents), "an image stands twice"


def test_the_bytes_are_the_same_everywhere(tmp_path):
    dataset = load_dataset("digits", unpack_to=tmp_path)
    every = b"".join(path.read_bytes() for split in dataset.splits.values() for path in split.paths)
    assert hashlib.sha256(every).hexdigest()[:16] == "de7559fa79ee86c7"


def test_unpacking_again_reads_what_is_there(tmp_path):
    first = load_dataset("faces", unpack_to=tmp_path).splits["train"].paths[0]
    stamp = first.stat().st_mtime_ns
    assert load_dataset("faces", unpack_to=tmp_path).splits["train"].paths[0].stat().st_mtime_ns == stamp


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="did you mean 'digits'"):
        load_dataset("ours", "packaged:digit", unpack_to=tmp_path)
