"""A vector masked a stretch at a time is masked as if at once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg.masks import MaskSeeds, MaskStreams, apply_masks
from privacy.secret import Secret

SEED_TUPLES = st.lists(st.binary(min_size=32, max_size=32).map(Secret), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40_000), max_size=6),
    st.sampled_from(["<u2", "<u4", "<u8"]),
    st.builds(MaskSeeds, add=SEED_TUPLES, subtract=SEED_TUPLES),
    st.integers(0, 100),
    st.sampled_from([1, 24, 4096, 131_072]),
)
def test_any_split_into_stretches_gives_the_same_masks(lengths, dtype, seeds, first, chunk_bytes):
    vector = np.arange(sum(lengths)).astype(dtype)
    expected = vector.copy()
    apply_masks(expected, seeds, first_element=first)
    streams = MaskStreams(seeds, vector.dtype, first_element=first, chunk_bytes=max(8, chunk_bytes))
    start = 0
    for length in lengths:
        streams.apply(vector[start : start + length])
        start += length
    assert (vector == expected).all()
