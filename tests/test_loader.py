import itertools

import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.loader import SAMPLE, make_loader


class Numbers:
    """Sample i holds the number i."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": np.full((2, 3), index, np.uint8), "depth": np.float32(index / 4)}


def numbers(loader, count):
    return [batch["image"][:, 0, 0].tolist() for batch in itertools.islice(loader, count)]


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


def test_batches_keep_keys_dtypes_and_pairing():
    batch = next(make_loader(Numbers(8), batch_size=4, seed=0))
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((4, 2, 3), np.uint8), "depth": ((4,), np.float32), SAMPLE: ((4,), np.int64)}
    np.testing.assert_array_equal(batch[SAMPLE], batch["image"][:, 0, 0])
    np.testing.assert_array_equal(batch["depth"], batch["image"][:, 0, 0] / 4)


def test_every_epoch_holds_each_sample_once_in_a_new_order():
    order = flat(numbers(make_loader(Numbers(12), batch_size=4, seed=0), 9))
    epochs = [order[:12], order[12:24], order[24:]]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(12))


def test_seed_alone_decides_the_order():
    def first(seed, threads):
        return numbers(make_loader(Numbers(50), batch_size=4, seed=seed, num_threads=threads), 20)

    assert first(3, 0) == first(3, 1) == first(3, 4)
    assert first(3, 4) != first(4, 4)


@pytest.mark.parametrize("threads", [0, 3])
def test_resume_gives_exactly_the_next_batches(threads):
    def loader():
        return make_loader(Numbers(30), batch_size=4, seed=1, num_threads=threads)

    whole = numbers(loader(), 12)
    part = loader()
    assert numbers(part, 5) == whole[:5]
    state = part.get_state()
    resumed = loader()
    resumed.set_state(state)
    assert numbers(resumed, 7) == whole[5:]


def test_shards_are_disjoint_and_complete():
    shards = [flat(numbers(make_loader(Numbers(24), batch_size=4, seed=0, shard_index=index,
                                       shard_count=3), 2)) for index in range(3)]
    assert sorted(flat(shards)) == list(range(24))


def test_a_batch_may_be_larger_than_the_source():
    (batch,) = numbers(make_loader(Numbers(3), batch_size=6, seed=0), 1)
    assert sorted(batch) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("length", "fields", "message"), [
    (0, {}, "no samples"),
    (4, {"batch_size": 0}, "batch_size=0"),
    (4, {"shard_index": 2, "shard_count": 2}, "shard_index=2"),
])
def test_errors_name_the_field(length, fields, message):
    with pytest.raises(UserError, match=message):
        make_loader(Numbers(length), **({"batch_size": 2, "seed": 0} | fields))
