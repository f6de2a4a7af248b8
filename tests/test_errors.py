from __future__ import annotations

import pytest

from latentdc import errors
from latentdc.errors import BundleError, InputError, LatentDCError, MissingExtraError, unknown


def test_unknown_names_the_given_the_nearest_and_all():
    message = unknown("discrepancy", "mnd", ["mmd", "mean"])
    assert message == '"mnd": no such discrepancy. Did you mean "mmd"? Known: mean, mmd.'
    assert "Did you mean" not in unknown("discrepancy", "zzzz", ["mean"])


@pytest.mark.parametrize("name", ["InputError", "DataError", "RecipeError", "BundleError", "DivergenceError"])
def test_every_error_is_ours_and_says_its_purpose(name: str):
    kind = getattr(errors, name)
    assert issubclass(kind, LatentDCError)
    assert kind.__doc__


def test_errors_are_also_the_builtin_a_caller_would_catch():
    assert issubclass(InputError, ValueError)
    assert issubclass(BundleError, ValueError)
    assert issubclass(MissingExtraError, ImportError)
