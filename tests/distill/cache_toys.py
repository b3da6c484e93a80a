"""A small cache for the tests: two toy teachers, two sources of five and three pictures, two views of each."""

import torch

from eyespot.distill.cache import CachedCommittee
from eyespot.distill.committee import Committee
from toy_encoders import ToyEncoder, pictures

LENGTHS, VIEWS = [5, 3], 2


def teachers(**changes):
    return {"fine": ToyEncoder("fine", stride=4, **changes), "coarse": ToyEncoder("coarse", stride=16)}


def cached(folder, members=None, max_grid=None, how=None, **setting):
    return CachedCommittee(
        Committee(members or teachers(), max_grid),
        folder,
        setting={"data": "d", "view": {"flip": 0.5}, "size": 48, **setting},
        source_lengths=LENGTHS,
        views=VIEWS,
        **(how or {}),
    )


def batch(*rows):
    """(source, index, view) triples; the picture follows from them, as in training."""
    source, index, view = (torch.tensor(column) for column in zip(*rows, strict=True))
    images = torch.cat([pictures(1, key=f"{row}") for row in rows])
    return {"images": images, "source": source, "index": index, "view": view, "step": 0}


FIRST = batch((0, 0, 0), (0, 4, 1), (1, 0, 0), (1, 2, 1))
SECOND = batch((0, 0, 1), (0, 4, 1), (1, 1, 0), (0, 0, 0))  # two of these were in the first
EVERYTHING = batch(*((s, i, v) for s, length in enumerate(LENGTHS) for i in range(length) for v in range(VIEWS)))


def calls(committee):
    return {name: teacher.calls for name, teacher in committee.items()}


def equal(one, other):
    return all(
        torch.equal(one[name].summary, other[name].summary) and torch.equal(one[name].patches, other[name].patches)
        for name in one
    )


def shards(folder, teacher="fine"):
    return sorted((folder / teacher).glob("rows-*.safetensors"))


def filled(folder, **options):
    """A cache with every row on disk, and its features."""
    committee = cached(folder, **options)
    features = committee(EVERYTHING)
    committee.flush()
    return features
