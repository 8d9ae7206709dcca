"""Threads beside the main one: order, bounds, errors, and their end."""

import threading
import time

import jax
import numpy as np
import pytest

from dattt_jax.errors import UserError
from input_pipeline.background import BackgroundWorker, Prefetcher
from input_pipeline.clip import PairClip


def frames(count, made=None, fails_at=None):
    for i in range(count):
        if i == fails_at:
            raise UserError(f"frame {i} is damaged")
        if made is not None:
            made.append(i)
        yield np.full(10, i, np.uint8), np.full(10, i, np.uint8)


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def names():
    return [thread.name for thread in threading.enumerate()]


def test_items_come_in_order_and_then_end_again_and_again():
    with Prefetcher(frames(50), max_bytes=60) as ahead:
        assert [int(image[0]) for image, _ in ahead] == list(range(50))
        assert list(ahead) == []
    assert "prefetch" not in names()


def test_it_works_ahead_until_so_many_bytes_wait():
    made = []
    with Prefetcher(frames(50, made), max_bytes=60) as ahead:
        wait_until(lambda: len(made) == 4)  # three pairs of 20 bytes wait, the fourth waits for room
        next(ahead)
        wait_until(lambda: len(made) == 5)
        time.sleep(0.05)
        assert made == list(range(5))
    assert "prefetch" not in names()


def test_an_error_comes_in_the_place_of_its_item():
    with Prefetcher(frames(5, fails_at=2)) as ahead:
        assert [int(next(ahead)[0][0]) for _ in range(2)] == [0, 1]
        for _ in range(2):
            with pytest.raises(UserError, match="frame 2 is damaged"):
                next(ahead)


def test_the_thread_computes_on_the_device_of_the_one_that_made_it():
    def computed():
        yield jax.numpy.zeros(3)

    device = jax.local_devices()[-1]
    with jax.default_device(device), Prefetcher(computed()) as ahead:
        assert next(ahead).devices() == {device}


@pytest.mark.parametrize("spooled", [False, True])
def test_a_clip_reads_ahead_and_ends_its_thread(tmp_path, spooled):
    made = []
    with PairClip(frames_of_an_image(made), 6, tmp_path if spooled else None) as clip:
        wait_until(lambda: len(made) == 6)  # before anything is asked for
        first = clip.read(np.arange(2))
        assert first["image"].shape == (2, 4, 5, 3) and first["flow"][1, 0, 0, 0] == 101
        rest = clip.read(np.arange(2, 6))
        np.testing.assert_array_equal(rest["image"][:, 0, 0, 0], range(2, 6))
    assert "prefetch" not in names()


def frames_of_an_image(made):
    for i in range(6):
        made.append(i)
        yield np.full((4, 5, 3), i, np.uint8), np.full((4, 5, 3), 100 + i, np.uint8)


def test_jobs_are_done_in_order_and_before_the_block_ends():
    done = []
    with BackgroundWorker(max_jobs=2) as worker:
        for i in range(20):
            worker.submit(lambda i=i: (time.sleep(0.001), done.append(i)))
    assert done == list(range(20)) and "write" not in names()


def test_jobs_that_wait_are_bounded():
    may_go, accepted = threading.Event(), []

    def submit_all():
        with BackgroundWorker(max_jobs=2) as worker:
            for i in range(6):
                worker.submit(may_go.wait)
                accepted.append(i)

    thread = threading.Thread(target=submit_all)
    thread.start()
    wait_until(lambda: len(accepted) == 3)  # one at work, two that wait
    time.sleep(0.05)
    assert len(accepted) == 3
    may_go.set()
    thread.join()
    assert len(accepted) == 6


def fail():
    raise UserError("the disk is full")


def test_a_failed_job_is_told_once_and_no_other_is_begun():
    done = []
    with pytest.raises(UserError, match="the disk is full"), BackgroundWorker() as worker:
        worker.submit(fail)
        wait_until(lambda: worker._failure)
        worker.submit(done.append, 1)
    assert done == [] and "write" not in names()


def test_a_job_that_fails_last_is_told_by_the_end_of_the_block():
    with pytest.raises(UserError, match="the disk is full"), BackgroundWorker() as worker:
        worker.submit(fail)


def test_an_error_of_the_block_is_not_hidden_and_what_was_submitted_is_done():
    done = []
    with pytest.raises(KeyboardInterrupt), BackgroundWorker() as worker:
        worker.submit(time.sleep, 0.02)
        worker.submit(done.append, 1)
        raise KeyboardInterrupt
    assert done == [1]
