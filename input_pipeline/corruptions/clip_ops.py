"""Corruptions of whole clips: frames in, as many frames out, holding only a few of them at a time.

Both are DAVIS-C's (Bertrand et al., "Test-Time Training for Matching-Based Video Object Segmentation",
NeurIPS 2023). Frames are float32 `[H, W, 3]` RGB in 0..255 as in `frame_ops`. Nothing is random.
"""

import collections
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from dattt_jax.errors import UserError

_ENCODER = "libx265"
_FPS = 24  # DAVIS-C's; x265's rate control looks at it
# One frame at a time and a fixed pool: the result must not depend on the number of cores.
_X265 = "frame-threads=1:pools=2:log-level=none"


def temporal_motion_blur(frames: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Weighted means of the last frames, the weights 1, 2, 3, … growing towards the newest.

    Args:
        frames: float32 [H, W, 3] each.
        length: how many frames are averaged; the first frames have fewer.

    Yields:
        float32 [H, W, 3] for each frame.
    """
    recent: collections.deque[np.ndarray] = collections.deque(maxlen=length)
    for frame in frames:
        recent.append(frame)
        total = len(recent) * (len(recent) + 1) // 2
        yield sum(np.float32(weight / total) * each for weight, each in enumerate(recent, start=1))


def crf_compression(frames: Iterable[np.ndarray], crf: int) -> Iterator[np.ndarray]:
    """Encodes the clip as H.265 of constant quality (preset medium, 4:2:0, BT.709) and decodes it.

    Odd sides are made even by doubling the last row or column, which is cut off again.

    Args:
        frames: float32 [H, W, 3] each, of one size; rounded to 8 bit for the encoder.
        crf: constant rate factor, 0 (best) to 51.

    Yields:
        float32 [H, W, 3] of whole numbers, for each frame.

    Raises:
        UserError: this PyAV has no H.265 encoder.
    """
    if _ENCODER not in av.codecs_available:
        raise UserError(f"crf_compression: this PyAV has no {_ENCODER}; install the one of PyPI "
                        "(pip install av) or leave the corruption out")
    encoder, decoder, size = None, av.CodecContext.create("hevc", "r"), (0, 0)
    for index, frame in enumerate(frames):
        if encoder is None:
            size = frame.shape[:2]
            encoder = _create_encoder(size, crf)
        for packet in encoder.encode(_to_picture(frame, index)):
            yield from _decode(decoder, packet, size)
    if encoder is not None:
        for packet in encoder.encode(None):
            yield from _decode(decoder, packet, size)
        yield from _decode(decoder, None, size)


def _create_encoder(size: tuple[int, int], crf: int) -> av.VideoCodecContext:
    height, width = size
    encoder = av.CodecContext.create(_ENCODER, "w")
    encoder.height, encoder.width = height + height % 2, width + width % 2
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, _FPS), Fraction(_FPS)
    encoder.options = {"preset": "medium", "crf": str(crf), "x265-params": _X265}
    return encoder


def _to_picture(frame: np.ndarray, index: int) -> av.VideoFrame:
    height, width = frame.shape[:2]
    image = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    picture.pts, picture.time_base = index, Fraction(1, _FPS)
    return picture


def _decode(decoder: av.VideoCodecContext, packet: av.Packet | None,
            size: tuple[int, int]) -> Iterator[np.ndarray]:
    for picture in decoder.decode(packet):
        image = picture.reformat(format="rgb24", src_colorspace=Colorspace.ITU709,
                                 src_color_range=ColorRange.MPEG).to_ndarray()
        yield image[:size[0], :size[1]].astype(np.float32)
