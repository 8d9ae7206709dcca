"""Sources of live frames: cameras, pipes, growing folders, and what is dropped of them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from video_trees import moving_frames

from dattt_jax.errors import UserError
from input_pipeline import live_sources
from input_pipeline.live_frames import LiveFrames
from input_pipeline.live_sources import open_source
from input_pipeline.writers import VideoWriter

VIDEO = moving_frames(5)


def ppm(frame):
    return b"P6\n%d %d\n255\n" % frame.shape[1::-1] + frame.tobytes()


def read(source, stopped=None):
    return list(source(stopped or threading.Event()))


def assert_frames(found, names, images):
    assert [name for name, _ in found] == list(names)
    for (_, image), expected in zip(found, images, strict=True):
        np.testing.assert_array_equal(image, expected)


def piped(content, piece=7919):
    """(name, image) of what is written to a pipe in pieces that end anywhere."""
    out, into = os.pipe()

    def write():
        with os.fdopen(into, "wb", buffering=0) as file:
            for start in range(0, len(content), piece):
                file.write(content[start : start + piece])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return read(lambda stopped: live_sources._piped("the pipe", out, stopped))
    finally:
        os.close(out)
        writer.join()


@pytest.mark.parametrize("piece", [1 << 20, 1013, 5])
def test_a_pipe_of_ppm_images(piece):
    assert_frames(piped(b"".join(map(ppm, VIDEO)), piece), [f"{t:06d}" for t in range(5)], VIDEO)


def test_a_pipe_that_ends_within_a_frame(caplog):
    assert_frames(piped(b"".join(map(ppm, VIDEO))[:-1]), [f"{t:06d}" for t in range(4)], VIDEO[:4])
    assert "the pipe: ends within frame 4, which is left out" in caplog.text


def test_ppm_images_with_comments():
    content = ppm(VIDEO[0]).replace(b"P6\n", b"P6\n# of some program\n# 1 2 3\n", 1) + ppm(VIDEO[1])
    assert_frames(piped(content), ["000000", "000001"], VIDEO[:2])


@pytest.mark.parametrize(("content", "message"), [
    (b"\x89PNG\r\n" + bytes(100), "frame 0 is no whole binary PPM"),
    (ppm(VIDEO[0]) + b"P5\n48 40\n255\n" + bytes(100), "frame 1 is no whole binary PPM"),
    (b"P6\n48 40\n65535\n" + bytes(100), "frame 0 has values up to 65535"),
])
def test_a_pipe_of_something_else(content, message):
    with pytest.raises(UserError, match=message):
        piped(content)


def test_a_named_pipe_waits_for_its_writer(tmp_path):
    os.mkfifo(tmp_path / "frames")
    found = []
    reader = threading.Thread(target=lambda: found.extend(read(open_source(str(tmp_path / "frames")))))
    reader.start()
    time.sleep(0.1)
    assert reader.is_alive()  # nobody has opened it: this is not its end
    (tmp_path / "frames").write_bytes(b"".join(map(ppm, VIDEO)))
    reader.join(10)
    assert_frames(found, [f"{t:06d}" for t in range(5)], VIDEO)


def test_a_named_pipe_without_a_writer_can_be_left(tmp_path):
    os.mkfifo(tmp_path / "frames")
    with LiveFrames(open_source(str(tmp_path / "frames")), drop=False, idle_s=0.1, stopped=bool) as frames:
        assert list(frames) == []
    assert frames.ended == "no frame for 0.1 s"
    assert not frames._thread.is_alive()


def test_a_camera(tmp_path, monkeypatch):
    """OpenCV's reader, of a file."""
    with VideoWriter(tmp_path / "camera.mp4", 30, (40, 48)) as writer:
        for frame in VIDEO:
            writer.write(frame)
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture(str(tmp_path / "camera.mp4")))
    found = read(open_source("camera:3"))
    assert [name for name, _ in found] == [f"{t:06d}" for t in range(5)]
    for (_, image), expected in zip(found, VIDEO, strict=True):
        assert image.shape == expected.shape and np.abs(image.astype(int) - expected).mean() < 16


class Folder:
    """Frames of a growing folder, taken one by one while it grows."""

    def __init__(self, path):
        self.stopped = threading.Event()
        self.found = []
        self._thread = threading.Thread(target=self._take, args=(path,))

    def _take(self, path):
        for frame in open_source(str(path))(self.stopped):
            self.found.append(frame)

    def wait_for(self, count):
        deadline = time.monotonic() + 20
        while len(self.found) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.found) == count

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self._thread.join(10)


def test_a_growing_folder_gives_whole_files_in_natural_order(tmp_path):
    encoded = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in VIDEO]
    (tmp_path / "frame 9.png").write_bytes(encoded[0])
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".frame 1.png").write_bytes(b"hidden")
    with Folder(tmp_path) as folder:
        folder.wait_for(1)
        (tmp_path / "frame 10.png").write_bytes(encoded[1][:300])  # half of it, for a while
        (tmp_path / "frame 11.png").write_bytes(encoded[2])
        time.sleep(0.3)
        assert len(folder.found) == 1  # the whole file waits for its turn
        (tmp_path / "frame 10.png").write_bytes(encoded[1])
        folder.wait_for(3)
        (tmp_path / "frame 10.jpg").write_bytes(b"of the same name")
        (tmp_path / "frame 2.png").write_bytes(encoded[3])  # too late
        (tmp_path / "frame 12.png").write_bytes(encoded[4])
        folder.wait_for(4)
    assert_frames(folder.found, ["frame 9", "frame 10", "frame 11", "frame 12"],
                  [VIDEO[t] for t in (0, 1, 2, 4)])


def test_a_damaged_file_holds_up_the_others_for_a_moment(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(live_sources, "_SETTLE_S", 0.2)
    (tmp_path / "0.png").write_bytes(b"no image")
    Image.fromarray(VIDEO[1]).save(tmp_path / "1.png")
    with Folder(tmp_path) as folder:
        folder.wait_for(1)
    assert_frames(folder.found, ["1"], [VIDEO[1]])
    assert "0.png: cannot be read as an image; it is left out" in caplog.text


@pytest.mark.parametrize(("text", "message"), [
    ("", "config.live.source='': give camera:0"), ("nowhere", "config.live.source='nowhere': give"),
    ("camera:front", "give the camera's number"), ("camera:98", "there is no such camera"),
    (f"camera:{2**31}", "camera:2147483648: there is no such camera"),
])
def test_sources_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        read(open_source(text))


def test_closed_standard_input():
    code = "from input_pipeline.live_sources import open_source; open_source('-')"
    run = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&-'], capture_output=True,
                         text=True, cwd=Path(__file__).parent.parent, check=False)
    assert "UserError: config.live.source='-': standard input is closed" in run.stderr


class Script:
    """A source whose frames come when they are let."""

    def __init__(self, images=VIDEO):
        self.images, self.go, self.came = images, threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, stopped):
        for number, image in enumerate(self.images):
            while not self.go.acquire(timeout=0.01):
                if stopped.is_set():
                    return
            yield str(number), image
            self.came.release()

    def let(self, count):
        for _ in range(count):
            self.go.release()
            assert self.came.acquire(timeout=10)


def test_the_newest_frame_wins():
    source = Script()
    with LiveFrames(source, drop=True, idle_s=0, stopped=bool) as frames:
        source.let(1)
        assert next(frames).name == "0"
        source.let(3)  # nobody takes them
        frame = next(frames)
        assert frame.name == "3" and frames.dropped == 2 and frames.received == 4
        np.testing.assert_array_equal(frame.image, VIDEO[3])
        source.let(1)
        assert [frame.name for frame in frames] == ["4"]
    assert (frames.ended, frames.dropped, frames.received) == ("the source ended", 2, 5)


def test_or_none_is_dropped():
    source = Script()
    source.go.release(5)
    with LiveFrames(source, drop=False, idle_s=0, stopped=bool) as frames:
        time.sleep(0.1)
        assert frames.received <= 2  # one waits to be taken and one to be handed over
        assert [frame.name for frame in frames] == list("01234")
    assert (frames.received, frames.dropped) == (5, 0)


def test_a_stop_ends_the_stream_at_once():
    stop = []
    with LiveFrames(Script(), drop=True, idle_s=0, stopped=lambda: bool(stop)) as frames:
        threading.Timer(0.1, stop.append, [1]).start()
        assert list(frames) == []
    assert frames.ended == "stopped"


@pytest.mark.parametrize(("images", "message"), [
    ([VIDEO[0], VIDEO[1, :39]], r"frame 1 is 48x39 .* and the first was 48x40"),
    ([VIDEO[0, :20]], "frames of 48x20 .* are too small"),
])
def test_frames_that_cannot_be_used_are_told(images, message):
    source = Script(images)
    source.go.release(5)
    with LiveFrames(source, drop=False, idle_s=0, stopped=bool) as frames, \
            pytest.raises(UserError, match=message):
        list(frames)
