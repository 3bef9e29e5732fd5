"""Errors say whose fault it is and what to do, compare by their fields, and survive a trip between processes."""

import pickle

import pytest

from privacy import errors

EXAMPLES = [
    errors.LocalProtocolError("a rule", "something else"),
    errors.ContextRefused("threshold", "1 of 4", "3 to 4"),
    errors.PeerViolation("site-b", "share", "a rule", "some evidence"),
    errors.BelowThreshold(2, 3),
    errors.Unrecoverable("site-b", 4, 3),
    errors.EncodingOverflow("update", 4, "1e12", "2147483647 at most"),
    errors.EncodingRefused("update", "NaN", "finite numbers"),
    errors.OutOfOrder("Done", "UnmaskRequest"),
    errors.BudgetExceeded(requested=1.0, spent=7.5, cap=8.0, dataset="heart"),
    errors.UnknownEvent("Mystery", ("Gaussian",)),
    errors.PrivacyError("anything"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_every_error_advises_and_names_what_it_knows(error):
    assert error.advice().endswith(".")
    for value in vars(error).values():
        for part in value if isinstance(value, tuple) else (value,):
            text = f"{part:g}" if isinstance(part, float) else str(part)
            assert text in str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda e: type(e).__name__)
def test_pickling_gives_an_equal_error(error):
    again = pickle.loads(pickle.dumps(error))
    assert again == error
    assert hash(again) == hash(error)
    assert vars(again) == vars(error)


def test_errors_differ_by_class_and_by_field():
    assert errors.BelowThreshold(2, 3) != errors.BelowThreshold(1, 3)
    assert errors.PrivacyError("x") != errors.LocalProtocolError("x", "y")
    assert all(left != right for i, left in enumerate(EXAMPLES) for right in EXAMPLES[:i])
