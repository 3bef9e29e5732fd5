"""Key material must not leave by printing, pickling, JSON, or a slow comparison."""

import copy
import dataclasses
import json
import pickle

import pytest

from privacy.secret import Secret

KEY = b"k" * 32


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r:>20}".format, lambda s: f"{s:s}"])
def test_printing_shows_the_length_only(show):
    assert show(Secret(KEY)).strip() == "Secret(32 bytes)"


def test_other_values_show_their_type_only():
    assert repr(Secret(12345)) == "Secret(int)"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(protocol):
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError, match="cannot be pickled"):
        Secret(KEY).__getstate__()


def test_json_is_refused():
    with pytest.raises(TypeError):
        json.dumps(Secret(KEY))


def test_comparison_is_by_value_and_for_bytes_only():
    assert Secret(KEY) == Secret(b"k" * 32)
    assert Secret(KEY) != Secret(b"j" * 32)
    assert Secret(KEY) != KEY
    with pytest.raises(TypeError, match="only secrets that hold bytes"):
        _ = Secret(1) == Secret(1)


def test_it_cannot_be_hashed_or_changed():
    secret = Secret(KEY)
    with pytest.raises(TypeError):
        hash(secret)
    with pytest.raises(AttributeError):
        secret._value = b""
    with pytest.raises(AttributeError):
        del secret._value
    assert not hasattr(secret, "__dict__")


def test_copies_are_the_same_object_so_that_dataclasses_can_be_replaced():
    @dataclasses.dataclass(frozen=True)
    class Holder:
        secret: Secret[bytes]
        other: int

    holder = Holder(Secret(KEY), 1)
    assert copy.copy(holder.secret) is copy.deepcopy(holder.secret) is holder.secret
    assert dataclasses.replace(holder, other=2).secret.expose() == KEY
    assert "k" * 8 not in repr(holder)
