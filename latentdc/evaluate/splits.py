"""Which real images a set is judged on, and which its baselines are drawn from."""

from __future__ import annotations

from latentdc.data.store import ClassStore
from latentdc.errors import DataError, InputError


def split_data(train: ClassStore, test: ClassStore | None, split: str) -> tuple[ClassStore, ClassStore]:
    """(real images that baselines are drawn from, images that students are judged on).

    Raises:
        DataError: the data has no test split.
        InputError: ``split`` is neither ``test`` nor ``held-out``.
    """
    if split == "held-out":
        return train.holdout()
    if split != "test":
        raise InputError(f'split = "{split}": give "test", or "held-out" (part of the training images, for selection)')
    if test is None:
        raise DataError(f'{train.spec.name} has no test images; add a test split, or evaluate with split="held-out".')
    return train, test
