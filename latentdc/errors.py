"""Exceptions of latentdc. Every message says what was given, what would do, and where to change it.

LatentDCError
├── InputError (also ValueError)      wrong argument, recipe key, data folder …: exit code 2
│   ├── DataError                     the data set is missing, unreadable or unfit
│   └── RecipeError                   a recipe names an unknown key or part
├── BundleError (also ValueError)     a bundle, sketch or checkpoint is damaged or of an unknown version
├── DivergenceError (also ArithmeticError)   the loss became NaN or infinite: carries the step
└── MissingExtraError (also ImportError)     an optional dependency is not installed: names the extra
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LatentDCError(Exception):
    """Base of every error latentdc raises on purpose."""


class InputError(LatentDCError, ValueError):
    """Something the user gave cannot be used."""


class DataError(InputError):
    """A data set is missing, unreadable or does not fit the request."""


class RecipeError(InputError):
    """A recipe or a part's specification is wrong."""


class BundleError(LatentDCError, ValueError):
    """A stored artefact (bundle, sketch, checkpoint) is damaged, incomplete or of an unknown version."""


class DivergenceError(LatentDCError, ArithmeticError):
    """Optimisation produced a number that is not finite."""


class MissingExtraError(LatentDCError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""


def first_line(error: Exception) -> str:
    """What an error of another library says, in a line; its name where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Message for an unknown name: what was given, the nearest known name, and all known names.

    >>> unknown("discrepancy", "mnd", ["mean", "mmd"])
    '"mnd": no such discrepancy. Did you mean "mmd"? Known: mean, mmd.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    return f'"{given}": no such {what}.{hint} Known: {", ".join(names) or "none"}.'
