"""The training log: what it averages, forgets, draws and hands on."""

import json
import struct

import pytest

from dattt_jax.train_log import TrainLog


def lines(workdir):
    return [json.loads(line) for line in (workdir / "train_log.jsonl").read_text().splitlines()]


def make_log(workdir, start_step, write=True):
    log = TrainLog(workdir, log_steps=2, batch_size=8, learning_rate_fn=lambda step: step / 10, write=write)
    log.start(start_step)
    return log


def test_log_holds_means_and_forgets_what_is_done_again(tmp_path):
    first = make_log(tmp_path, 0)
    for step, loss in enumerate((9.0, 2.0, 3.0, 5.0, 6.0), 1):
        first.add(step, {"loss": loss, "bce": loss, "grad_norm": 2 * loss}, 0.25)
    written = lines(tmp_path)
    # Step 1 compiles and is left out; step 5 has no line yet.
    assert [(line["step"], line["loss"], line["grad_norm"]) for line in written] == [
        (2, 2.0, 4.0), (4, 4.0, 8.0)]
    assert [line["learning_rate"] for line in written] == [0.1, 0.3]
    assert all(line["data_wait_s"] == 0.25 for line in written)
    assert all(abs(line["step_s"] * line["images_per_s"] - 8) < 1e-3 for line in written)
    assert first.note == "loss 6.0000"

    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    assert [line["step"] for line in make_log(tmp_path, 3).lines()] == [2]


def test_the_last_steps_have_a_line_too(tmp_path):
    log = make_log(tmp_path, 0)
    for step, loss in enumerate((9.0, 2.0, 3.0), 1):
        log.add(step, {"loss": loss, "bce": loss, "grad_norm": 1.0}, 0.0, last=step == 3)
    log.finish()
    log.finish()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 2.0), (3, 3.0)]
    assert ["step_s" in line for line in lines(tmp_path)] == [True, False]


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    with make_log(tmp_path, 0, write=False) as log:
        log.add(2, {"loss": 1.5, "bce": 1.0, "grad_norm": 1.0}, 0.0)
        log.add_validation(2, {"J": 0.5, "F": 0.5, "JF": 0.5}, 1.0)
    assert log.note == "loss 1.5000"
    assert list(tmp_path.iterdir()) == []


def test_validation_is_no_part_of_a_step(tmp_path):
    with make_log(tmp_path, 0) as log:
        numbers = {"loss": 1.0, "bce": 1.0, "grad_norm": 1.0}
        log.add(1, numbers, 0.0)
        log.add_validation(1, {"J": 0.25, "F": 0.75, "JF": 0.5}, -1e6)  # as if it had begun long after
        log.add(2, numbers, 0.0)
    validated, trained = lines(tmp_path)
    assert validated["validation"] == {"J": 0.25, "F": 0.75, "JF": 0.5}
    assert trained["step_s"] > 9e5
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "train_loss.png").read_bytes().startswith(b"\x89PNG")


def records(path):
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 16 + length


def test_tensorboard_gets_the_same_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with make_log(tmp_path, 0) as log:
        log.add(1, {"loss": 9.0, "bce": 9.0, "grad_norm": 9.0}, 0.0)
        log.add(2, {"loss": 0.5, "bce": 0.25, "grad_norm": 2.0}, 0.0)
        log.add_validation(2, {"J": 0.25, "F": 0.75, "JF": 0.5}, 0.0)
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = {(value.tag, event.step): value.simple_value
             for event in map(Event.FromString, records(file)) for value in event.summary.value}
    assert found["train/loss", 2] == 0.5
    assert found["train/grad_norm", 2] == 2.0
    assert found["validation/J", 2] == 0.25
    assert ("train/loss", 1) not in found
