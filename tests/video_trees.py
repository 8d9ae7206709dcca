"""Small videos as files, with every part that a data set can have or lack."""

import cv2
import numpy as np
from PIL import Image

from input_pipeline.datasets.prepare import prepare_videos
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.flow import create_flow


def moving_frames(count, size=(40, 48), seed=0):
    """A smooth random picture that moves by (2, 1) pixels a frame: uint8 [count, H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] + count, size[1] + 2 * count, 3), np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([picture[t:t + size[0], 2 * t:2 * t + size[1]] for t in range(count)])


def write_video(folder, name, count=4, suffix=".jpg", size=(40, 48), masks=(0, 2), seed=0, **parts):
    """Writes `count` frames, and masks of two objects for the frames `masks`; returns the VideoFiles.

    `parts` are further fields of it.
    """
    frames, objects = {}, {}
    for index, frame in enumerate(moving_frames(count, size, seed)):
        path = folder / "frames" / name / f"{index:05d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(path)
        frames[path.stem] = path
        if index in masks:
            objects[path.stem] = tuple(_write_object(folder, name, index, number, size) for number in (1, 2))
    return VideoFiles(name, frames, objects, **parts)


def _write_object(folder, name, index, number, size):
    mask = np.zeros(size, np.uint8)
    mask[4 * number:4 * number + 6, 5 + index:20 + index] = 255
    path = folder / "masks" / name / str(number) / f"{index:05d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def settings(last_frame="repeat", split="train"):
    return {"dataset": "folder", "root": "tree", "split": split,
            "flow": {"method": "dis", "last_frame": last_frame}, "depth": {"method": ""}}


def prepared(out, videos, last_frame="repeat", **arguments):
    """Prepares the videos in `out` and returns the index."""
    return prepare_videos(videos, out, settings=settings(last_frame), flow_method=create_flow("dis"),
                          threads=2, **arguments)
