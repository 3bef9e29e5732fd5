"""How a vector is cut, into chunks or among threads, never changes its mask; and the masks of a round cancel."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encoding import Lane, Layout
from privacy.secagg.masks import MaskSeeds, RunningSum, apply_masks
from privacy.secret import Secret

DTYPES = st.sampled_from(["<u2", "<u4", "<u8"])
SEED = st.binary(min_size=32, max_size=32).map(Secret)
SEEDS = st.builds(
    MaskSeeds,
    add=st.lists(SEED, max_size=3).map(tuple),
    subtract=st.lists(SEED, max_size=3).map(tuple),
)


def masked(length, dtype, seeds, **options):
    vector = np.arange(length, dtype=dtype)
    apply_masks(vector, seeds, **options)
    return vector


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5000), DTYPES, SEEDS, st.integers(1, 30_000))
def test_the_size_of_a_chunk_never_changes_a_mask(length, dtype, seeds, chunk_bytes):
    assert (masked(length, dtype, seeds, chunk_bytes=chunk_bytes) == masked(length, dtype, seeds)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5000), DTYPES, SEEDS, st.lists(st.integers(0, 5000), max_size=5))
def test_slices_masked_by_several_threads_are_the_whole(length, dtype, seeds, cuts):
    vector = np.arange(length, dtype=dtype)
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    with ThreadPoolExecutor(max_workers=3) as pool:
        for done in [
            pool.submit(apply_masks, vector[start:end], seeds, first_element=start) for start, end in pairwise(edges)
        ]:
            done.result()
    assert (vector == masked(length, dtype, seeds)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.sampled_from([16, 32, 64]), st.integers(2, 6), st.randoms(use_true_random=False))
def test_pairwise_masks_cancel_in_the_sum(length, bits, sites, random):
    layout = Layout(modulus_bits=bits, lanes=(Lane(name="x", length=length, clip=1.0, scale=2.0),))
    pair = {(i, j): Secret(random.randbytes(32)) for j in range(sites) for i in range(j)}
    total, plain = RunningSum(layout), np.zeros(length, dtype=layout.dtype)
    for i in range(sites):
        vector = np.frombuffer(random.randbytes(layout.size_bytes), dtype=layout.dtype).copy()
        plain += vector
        seeds = MaskSeeds(
            add=tuple(pair[i, j] for j in range(i + 1, sites)), subtract=tuple(pair[j, i] for j in range(i))
        )
        apply_masks(vector, seeds)
        total.add(vector)
    assert (total.result == plain).all()
