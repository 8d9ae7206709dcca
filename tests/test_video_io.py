"""Reading videos, folders of frames and masks; writing masks and videos; files of arrays."""

import errno
import json
import os
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from dattt_jax.errors import UserError
from input_pipeline import writers
from input_pipeline.array_file import ArrayFile
from input_pipeline.images import read_image, read_mask
from input_pipeline.video_io import open_video
from input_pipeline.writers import VideoWriter, write_json, write_mask, write_probability

CORNERS = {(0, 0): (230, 20, 20), (0, 1): (20, 200, 20), (1, 0): (20, 20, 220),
           (1, 1): (240, 240, 240)}  # red, green / blue, white


def corners(height, width, level=0):
    """Four flat quarters; `level` darkens them all."""
    image = np.empty((height, width, 3), np.uint8)
    for (row, column), color in CORNERS.items():
        image[row * height // 2:(row + 1) * height // 2,
              column * width // 2:(column + 1) * width // 2] = np.maximum(color, level) - level
    return image


def quarters(image):
    """The colour in the middle of each quarter, {(row, column): [3]}."""
    height, width = image.shape[:2]
    return {(row, column): image[height * (1 + 2 * row) // 4, width * (1 + 2 * column) // 4]
            for row, column in CORNERS}


def encode(path, frames, codec="libx264", pix_fmt="yuv420p", rate=25):
    """Makes a real video file with PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def encode_sound(path, cover=False):
    """Makes a file of silence, with a cover picture if wanted."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        packets = []
        if cover:
            picture = container.add_stream("png", rate=25)
            picture.height, picture.width, picture.pix_fmt = 64, 64, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(corners(64, 64), format="rgb24")
            packets = picture.encode(frame) + picture.encode(None)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux(packets + sound.encode(frame) + sound.encode(None))
    return path


def set_display_matrix(path, a, b, c, d):
    """Writes the matrix that phones write: ISO 14496-12, track header box."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    assert struct.unpack_from(">9i", content, start) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, start, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def save_frames(folder, names, height=32, width=48):
    """Writes flat frames; frame k of the list has brightness 10 k."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((height, width, 3), 10 * index, np.uint8)).save(folder / name)
    return folder


def noise_frames(count, height=64, width=96):
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def refusal(path):
    """The message with which a path is refused, reading everything."""
    with pytest.raises(UserError) as error:
        list(open_video(path))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt"), [
    ("mp4", "libx264", "yuv420p"), ("MOV", "libx264", "yuv420p"), ("avi", "mpeg4", "yuv420p"),
    ("mkv", "libx264", "yuv444p"), ("webm", "libvpx-vp9", "yuv420p"),
    ("m4v", "libx264", "yuv420p")])
def test_containers(tmp_path, suffix, codec, pix_fmt):
    frames = [corners(48, 64, level=20 * k) for k in range(7)]
    video = open_video(encode(tmp_path / f"my clip.{suffix}", frames, codec, pix_fmt, rate=30))
    assert video.name == "my clip"
    assert video.frame_size == (48, 64)
    assert video.fps == 30
    assert len(video) == 7
    assert video.frame_names == ["00000", "00001", "00002", "00003", "00004", "00005", "00006"]
    for _ in range(2):  # it can be read again
        decoded = list(video)
        assert len(decoded) == 7
        for frame, expected in zip(decoded, frames, strict=True):
            assert frame.dtype == np.uint8 and frame.flags.c_contiguous
            for place, color in quarters(frame).items():
                np.testing.assert_allclose(color, quarters(expected)[place], atol=12)


def test_fractional_rate(tmp_path):
    path = encode(tmp_path / "a.mp4", noise_frames(3), rate=Fraction(30000, 1001))
    assert open_video(path).fps == pytest.approx(30000 / 1001)


# The place that the stored (red, green, blue, white) quarters are shown at, for each matrix.
TURNS = {
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),  # clockwise: a phone held upright
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (-1, 0, 0, 1): np.fliplr,
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_phone_rotation(tmp_path, matrix):
    stored = corners(48, 64)
    path = encode(tmp_path / "portrait.mp4", [stored] * 2)
    set_display_matrix(path, *matrix)
    shown = TURNS[matrix](stored)
    video = open_video(path)
    assert video.frame_size == shown.shape[:2]
    for frame in video:
        assert frame.shape == shown.shape
        for place, color in quarters(frame).items():
            np.testing.assert_allclose(color, quarters(shown)[place], atol=12)


def test_transparent_video_is_over_black(tmp_path):
    rgba = np.dstack([np.full((32, 32, 3), 200, np.uint8), np.full((32, 32), 255, np.uint8)])
    rgba[:, :16, 3] = 0
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba")))
        container.mux(stream.encode(None))
    [frame] = open_video(tmp_path / "a.mov")
    assert (frame[:, :16] == 0).all() and (frame[:, 16:] == 200).all()


def test_gif(tmp_path):
    frames = [Image.fromarray(np.full((32, 40, 3), 60 * k, np.uint8)) for k in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    video = open_video(tmp_path / "a.gif")
    assert (video.fps, len(video), video.frame_size) == (20, 4, (32, 40))
    for _ in range(2):
        for index, frame in enumerate(video):
            np.testing.assert_array_equal(frame, np.full((32, 40, 3), 60 * index))


def test_folder_in_natural_order(tmp_path):
    names = ["frame1.png", "frame2.PNG", "frame10.bmp", "other 3.png"]
    folder = save_frames(tmp_path / "clip.v1", names)
    (folder / "notes.txt").write_text("not a frame")
    (folder / "._frame1.png").write_text("not a frame either")
    video = open_video(folder)
    assert video.name == "clip.v1"
    assert video.frame_names == ["frame1", "frame2", "frame10", "other 3"]
    assert (video.fps, len(video), video.frame_size) == (24, 4, (32, 48))
    for _ in range(2):
        np.testing.assert_array_equal([frame[0, 0, 0] for frame in video], [0, 10, 20, 30])


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "ppm"])
def test_image_types(tmp_path, suffix):
    Image.fromarray(corners(32, 32)).save(tmp_path / f"a.{suffix}", quality=95)
    image = read_image(tmp_path / f"a.{suffix}")
    for place, color in quarters(image).items():
        np.testing.assert_allclose(color, CORNERS[place], atol=6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_images_keep_their_high_byte(tmp_path, suffix, channels):
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 65536, (32, 40, channels)).astype(np.uint16)
    image[..., 3:] = 65535
    stored = image[..., [2, 1, 0, 3][:channels]] if channels > 1 else image
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), stored)
    expected = np.broadcast_to(image[..., :3] >> 8, (32, 40, 3))
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)


def test_grey_palette_and_alpha(tmp_path):
    grey = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))

    palette = Image.fromarray(grey // 128)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"),
                                  np.array([[10, 20, 30], [200, 100, 50]])[grey // 128])

    rgba = np.dstack([np.full((32, 32, 3), 200, np.uint8), grey])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    expected = np.rint(200 * (grey[..., None] / 255)).repeat(3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), expected)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned; show it clockwise
    for name in ("1.jpg", "2.webp", "3.tif"):
        Image.fromarray(corners(32, 64)).save(tmp_path / name, exif=exif, quality=95)
    shown = np.rot90(corners(32, 64), -1)
    video = open_video(tmp_path)
    assert video.frame_size == (64, 32)
    for frame in video:
        for place, color in quarters(frame).items():
            np.testing.assert_allclose(color, quarters(shown)[place], atol=6)


def test_missing_path(tmp_path):
    path = tmp_path / "nothing.mp4"
    assert refusal(path) == f"{path}: no such file or folder"


def test_empty_folder_names_the_types(tmp_path):
    (tmp_path / "a.txt").write_text("")
    assert refusal(tmp_path) == (f"{tmp_path}: no frames in this folder; it needs files of type "
                                 ".png .jpg .jpeg .bmp .webp .tif .tiff .ppm .pgm")


def test_two_files_of_one_name(tmp_path):
    save_frames(tmp_path, ["1.png", "1.jpg", "2.png"])
    assert "1.jpg and 1.png share a name" in refusal(tmp_path)


def test_unequal_sizes(tmp_path):
    save_frames(tmp_path, ["1.png", "2.png"])
    save_frames(tmp_path, ["3.png", "4.png"], height=40)
    assert refusal(tmp_path) == (
        f"{tmp_path / '3.png'}: this frame is 48x40 (width x height) but 1.png is 48x32 "
        "(width x height); all frames of a video need one size")


def test_too_small(tmp_path):
    save_frames(tmp_path, ["1.png"], height=31)
    assert "48x31 (width x height) are too small; both sides need at least 32" in refusal(tmp_path)


def test_unknown_type(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    assert "a.txt: not a known type of video; use .mp4 .m4v .mov .avi .mkv .webm .gif or a folder" \
        in refusal(path)


@pytest.mark.parametrize("name", ["text.mp4", "text.gif", "empty.webm"])
def test_not_a_video(tmp_path, name):
    (tmp_path / name).write_text("" if "empty" in name else "this is no video" * 100)
    assert re.search(rf"{name}: cannot be read as a video \(.+\); is it complete\?",
                     refusal(tmp_path / name))


@pytest.mark.parametrize("cover", [False, True])
def test_sound_only(tmp_path, cover):
    path = encode_sound(tmp_path / "sound.mp4", cover)
    assert refusal(path) == f"{path}: there is no video stream in this file"


def test_broken_image_is_named(tmp_path):
    save_frames(tmp_path, ["1.png", "2.png"])
    Image.fromarray(noise_frames(1, 32, 48)[0]).save(tmp_path / "3.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:2000])
    video = open_video(tmp_path)
    assert len(video) == 3
    with pytest.raises(UserError, match=r"3\.png: cannot be read as an image \(.*truncated"):
        list(video)
    (tmp_path / "2.png").write_text("text")
    with pytest.raises(UserError, match=r"2\.png: cannot be read as an image"):
        open_video(tmp_path)


def test_missing_image(tmp_path):
    with pytest.raises(UserError, match=r"a\.png: no such file"):
        read_image(tmp_path / "a.png")


def faststart(path, frames):
    """An mp4 whose index is in front, so that a part of it can be opened."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_cut_off_video_tells_how_far_it_goes(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    frames = noise_frames(50)
    if kind == "mp4":
        faststart(path, frames)
    else:
        encode(path, frames, "mpeg4")
    assert len(open_video(path)) == 50
    content = path.read_bytes()
    path.write_bytes(content[:len(content) * 2 // 5])
    message = refusal(path)
    place = re.search(r"decoding failed at frame (\d+) \(.*re-encode|"
                      r"cut off after (\d+) frames; .*re-encode", message)
    assert place, message
    assert 5 < int(place[1] or place[2]) < 35


def test_garbage_in_the_middle_tells_the_frame(tmp_path):
    path = tmp_path / "a.mp4"
    faststart(path, noise_frames(30))
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start:start + 40000] = bytes(40000)
    path.write_bytes(content)
    place = re.search(r"a\.mp4: decoding failed at frame (\d+) \(.+\); re-encode", refusal(path))
    assert 0 < int(place[1]) < 20


def test_size_change_is_refused(tmp_path):
    """Every motion JPEG picture brings its own size."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for size in ((48, 64), (48, 64), (64, 64)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width = size
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(corners(*size), format="rgb24")
            for packet in encoder.encode(frame.reformat(format="yuvj420p")) + encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    assert "a.avi: the frame size changes at frame 2; re-encode" in refusal(path)


def save_mask(path, values, palette=None):
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


OBJECT = np.zeros((4, 6), bool)
OBJECT[1:3, 2:5] = True
INDEX = np.where(OBJECT, np.arange(6), 0).astype(np.uint8)  # objects 2, 3, 4
DAVIS_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


@pytest.mark.parametrize(("values", "palette"), [
    (OBJECT, None),
    (OBJECT.astype(np.uint8), None),
    (255 * OBJECT.astype(np.uint8), None),
    (np.where(OBJECT, 129, 128).astype(np.uint8), None),
    (INDEX, None),
    (INDEX, DAVIS_PALETTE),
    (INDEX, [40] * 15),
    (INDEX.astype(np.uint16), None),
    (65535 * OBJECT.astype(np.uint16), None),
    (255 * OBJECT.astype(np.uint16), None),
    (np.dstack([255 * OBJECT.astype(np.uint8)] * 3), None),
    (np.dstack([np.where(OBJECT, 200, 100).astype(np.uint8)] * 3), None),
    (np.array(DAVIS_PALETTE, np.uint8).reshape(-1, 3)[INDEX], None),
    (np.dstack([255 * OBJECT.astype(np.uint8)] * 4), None),
], ids=["1 bit", "0/1", "0/255", "grey", "numbers", "palette", "grey palette", "16-bit numbers", "16-bit",
        "8 of 16 bits", "rgb", "rgb grey", "rgb objects", "rgba"])
def test_read_mask(tmp_path, values, palette):
    save_mask(tmp_path / "mask.png", values, palette)
    mask = read_mask(tmp_path / "mask.png")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, OBJECT)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_read_empty_mask(tmp_path, mode):
    Image.new(mode, (6, 4)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


def test_ambiguous_mask_is_refused(tmp_path):
    """A DAVIS palette file that somebody saved as grey."""
    save_mask(tmp_path / "mask.png", 38 * OBJECT.astype(np.uint8))
    with pytest.raises(UserError, match=r"mask\.png: a grey mask whose brightest value is 38"):
        read_mask(tmp_path / "mask.png")


def test_write_mask_and_probability(tmp_path):
    write_mask(tmp_path / "new" / "mask.png", OBJECT)
    with Image.open(tmp_path / "new" / "mask.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(image, 255 * OBJECT)
    probability = np.array([[0, 0.001, 0.002, 0.25], [0.5, 0.997, 0.999, 1]], np.float32)
    write_probability(tmp_path / "p.png", probability)
    with Image.open(tmp_path / "p.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(image, [[0, 0, 1, 64], [128, 254, 255, 255]])


def test_write_json(tmp_path):
    write_json(tmp_path / "a.json", {"J": 0.5, "videos": ["bear"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"J": 0.5, "videos": ["bear"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"J": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (49, 64)])
def test_video_writer(tmp_path, size):
    frames = [corners(*size, level=15 * k) for k in range(6)]
    path = tmp_path / "new" / "a.mp4"
    with VideoWriter(path, 23.976, size) as writer:
        for frame in frames:
            writer.write(frame)
        assert not path.exists()
    assert os.listdir(path.parent) == ["a.mp4"]
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.colorspace == 1  # BT.709
    video = open_video(path)
    assert video.frame_size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert len(video) == 6
    assert video.fps == pytest.approx(23.976, abs=1e-3)
    for frame, expected in zip(video, frames, strict=True):
        for place, color in quarters(frame[:size[0], :size[1]]).items():
            np.testing.assert_allclose(color, quarters(expected)[place], atol=4)
        np.testing.assert_allclose(frame[-1, 5], expected[-1, 5], atol=8)
        np.testing.assert_allclose(frame[5, -1], expected[5, -1], atol=8)


def test_failed_video_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(path, 24, (32, 32)) as writer:
        writer.write(corners(32, 32))
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="frame of shape"), \
            VideoWriter(path, 24, (32, 32)) as writer:
        writer.write(corners(32, 34))
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_text() == "old"


def disk_full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    write_mask(tmp_path / "0.png", OBJECT)
    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(UserError, match=r"1\.png: the disk is full"):
        write_mask(tmp_path / "1.png", OBJECT)
    assert os.listdir(tmp_path) == ["0.png"]
    np.testing.assert_array_equal(read_mask(tmp_path / "0.png"), OBJECT)


def test_full_disk_while_a_video_is_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(writers.os, "replace", disk_full)
    with pytest.raises(UserError, match=r"a\.mp4: the disk is full"), \
            VideoWriter(tmp_path / "a.mp4", 24, (32, 32)) as writer:
        writer.write(corners(32, 32))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"mask\.png: cannot be written"):
        write_mask(tmp_path / "file" / "mask.png", OBJECT)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: cannot be written"):
        write_mask(tmp_path / "folder.png", OBJECT)
    with pytest.raises(UserError, match=r"File name too long"):
        write_mask(tmp_path / ("n" * 300 + ".png"), OBJECT)


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    write_mask(tmp_path / ("n" * 251 + ".png"), OBJECT)
    assert os.listdir(tmp_path) == ["n" * 251 + ".png"]


def test_a_name_that_is_not_utf_8_is_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_mask(tmp_path / name, OBJECT)
    writers.remove_leftovers(tmp_path, tmp_path / name)
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.png"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with writers.atomic_path(tmp_path / "a") as one, writers.atomic_path(tmp_path / "a") as other:
        one.write_text("1")
        other.write_text("2")
    assert (tmp_path / "a").read_text() == "1" and len(os.listdir(tmp_path)) == 1


def test_an_array_file_gives_items_back_and_goes_on_with_a_file_of_its_size(tmp_path):
    items = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float16)
    folder = tmp_path / "new"
    with ArrayFile(folder, 3, (2, 5), name="kept") as file:
        file[2], file[0] = items[2], items[0]
        np.testing.assert_array_equal(file[2], items[2])
        np.testing.assert_array_equal(file[1], 0)
    with ArrayFile(folder, 3, (2, 5), name="kept") as file:
        np.testing.assert_array_equal(file[0], items[0])
        file[1] = items[1].astype(np.float64)
        np.testing.assert_array_equal(np.stack([file[i] for i in range(3)]), items)
    with ArrayFile(folder, 4, (2, 5), name="kept") as file:
        np.testing.assert_array_equal(file[0], 0)
    with ArrayFile(folder, 3, (2, 5)) as file:
        file[1] = items[1]
        np.testing.assert_array_equal(file[1], items[1])
        assert [p.name for p in folder.iterdir()] == ["kept"]


def test_an_array_file_takes_items_of_its_shape_alone_and_is_gone_after_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"an item of \(4, 10, 3\) in a file of \(8, 10, 3\)"), \
            ArrayFile(tmp_path, 2, (8, 10, 3), np.uint8) as file:
        file[0] = corners(8, 10)[:4]
    assert os.listdir(tmp_path) == []


def test_a_file_system_that_cannot_take_room_at_once(tmp_path, monkeypatch):
    def refuse(file, start, size):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with ArrayFile(tmp_path, 2, (2, 5)) as file:
        file[1] = np.ones((2, 5))
        np.testing.assert_array_equal(np.stack([file[0], file[1]]), [np.zeros((2, 5)), np.ones((2, 5))])


def test_an_array_file_writes_what_the_system_takes_in_parts(tmp_path, monkeypatch):
    item = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float16)
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[:5], offset))
    with ArrayFile(tmp_path, 3, (3, 7)) as file:
        file[1] = item
        for index, expected in enumerate((0 * item, item, 0 * item)):
            np.testing.assert_array_equal(file[index], expected)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_an_array_file_on_a_full_disk(tmp_path, monkeypatch, call):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full, raising=False)
    with pytest.raises(UserError, match=r"the disk is full; make space here for 2 MiB"), \
            ArrayFile(tmp_path, 1, (1024, 1024)) as file:
        file[0] = np.zeros((1024, 1024))
