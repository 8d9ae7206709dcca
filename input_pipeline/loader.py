"""From a random-access source of samples to an endless, checkpointable stream of batches."""

from typing import Protocol

import grain
import numpy as np

from dattt_jax.errors import UserError

SAMPLE = "sample"  # field of a batch: the samples' numbers in the source, int64 [batch_size]


class SampleSource(Protocol):
    """Random access to samples: a dict of arrays per index, the same shapes for each index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...

    def name(self, index: int) -> str:
        """What a person calls sample `index`."""
        ...


class _Numbered:
    """A source whose samples know their number."""

    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {**self._source[index], SAMPLE: np.int64(index)}


def make_loader(source: SampleSource, *, batch_size: int, seed: int, num_threads: int = 4,
                shard_index: int = 0, shard_count: int = 1) -> grain.DatasetIterator:
    """Returns an endless iterator over shuffled batches of `source`.

    Batch k depends on (source, batch_size, seed, shard) and k alone, not on the number of threads.
    `get_state()` and `set_state(state)` continue exactly at the next batch; the state counts
    batches handed out, not those prefetched; it is plain JSON, and the same on every shard.
    Every epoch has a new order. Threads are enough, since OpenCV releases the interpreter lock.

    Args:
        source: the samples; its `__getitem__` must be safe to call from several threads.
        batch_size: samples per batch of this shard.
        seed: of the order, 0 or more.
        num_threads: batches made at a time; 0 makes them in the caller's thread.
        shard_index: of this process, 0..shard_count - 1.
        shard_count: processes that divide the samples among them without overlap.

    Returns:
        An iterator of dicts of arrays `[batch_size, ...]`, keys and dtypes as in `source`, and
        `SAMPLE`.

    Raises:
        UserError: the source is empty, or a number is out of its range.
    """
    if len(source) < 1:
        raise UserError("the training source has no samples: check the data set's path or length")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: give 1 or more")
    if not 0 <= shard_index < shard_count:
        raise UserError(f"shard_index={shard_index}: give 0..{shard_count - 1}")
    dataset = grain.MapDataset.source(_Numbered(source)).seed(seed).shuffle().repeat()
    dataset = dataset[shard_index::shard_count].batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    return iter(dataset.to_iter_dataset(options))
