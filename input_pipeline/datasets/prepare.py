"""Prepares a data set once: every frame with its flow, mask and depth in array_record files.

Under the output folder:

    videos.json              the index and all that is known of how the data was made
    <data set>/<version>/    TensorFlow Datasets' folder: array_record shards, features, dataset_info
    cache/                   computed flow and depth while it runs, unless another folder is given

The index is written last, by one rename: a folder that has it is complete. Whatever a killed run left
behind is removed by the next one, which finds the flow and depth that were computed in the cache.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from dattt_jax.errors import UserError
from input_pipeline.datasets.builder import BUILDERS, Example
from input_pipeline.datasets.frame_examples import FrameExamples
from input_pipeline.datasets.out_folder import claimed, remove_unfinished
from input_pipeline.datasets.prepared import FORMAT_VERSION, INDEX_NAME, file_checksum, read_index
from input_pipeline.datasets.video_files import VideoFiles
from input_pipeline.depth import DepthMethod
from input_pipeline.depth.cache import DepthCache
from input_pipeline.depth.targets import NORMALISATION
from input_pipeline.flow import FlowMethod
from input_pipeline.flow.cache import FlowCache
from input_pipeline.image_cache import ImageCache
from input_pipeline.writers import is_disk_full, write_bytes

_RUN = 8  # frames a thread makes at a time; of two neighbouring runs one frame is decoded twice
_SHARD_FRAMES = 1024  # a shard ends with the video in which it reaches this: about 0.3 GB at 854x480
_PACKAGES = ("tensorflow-datasets", "array_record", "numpy", "pillow")

Settings = dict[str, Any]


def prepare_videos(videos: Sequence[VideoFiles], out: str | Path, *, settings: Settings,
                   flow_method: FlowMethod, depth_method: DepthMethod | None = None,
                   cache: str | Path = "", annotated_only: bool = False, threads: int = 4,
                   on_frame: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Writes a data set; does nothing if the folder already holds the same one.

    Args:
        videos: the files, at least one video.
        out: the folder, also of `PreparedData`; made if it does not exist.
        settings: `dataset` (a name of `BUILDERS`), `root` (name of the source folder), `split`, `flow`
            ({'method', 'last_frame'}) and `depth` ({'method'}), as they are recorded.
        flow_method: estimates the flow that the data set does not bring; safe to call from several threads.
        depth_method: the same for the depth of annotated frames; None leaves it out.
        cache: folder of computed flow and depth, kept and to be shared; '' is one in `out`, removed at the
            end.
        annotated_only: keep only frames with a mask, all that training reads; flow still goes to the
            video's next frame.
        threads: frames worked on at a time.
        on_frame: called when a frame is made, by one thread at a time.

    Returns:
        The index, as `videos.json` holds it.

    Raises:
        UserError: there are no frames, a file is wrong (names it), the disk is full, or `out` holds
            something else or is being written by another run.
    """
    out = Path(out)
    work, shard_lengths = _plan(videos, annotated_only)
    if not work:
        raise UserError(f"config.data.root: {settings['root']!r} has no "
                        f"{'annotated frame' if annotated_only else 'frame'}")
    settings = settings | {
        "annotated_only": annotated_only,
        "flow": settings["flow"] | {"identity": flow_method.identity,
                                    "direction": "forward: to the next frame of the video"},
        "depth": settings["depth"] | ({} if depth_method is None else {
            "identity": depth_method.identity, "kind": depth_method.kind, "stored": NORMALISATION})}
    identity = _identity(videos, settings)
    with claimed(out, settings["dataset"]):
        if (out / INDEX_NAME).exists():
            return _same_index(out, identity)
        images = ImageCache(cache or out / "cache")
        workshop = _Workshop(FlowCache(images, flow_method), settings["flow"]["last_frame"],
                             None if depth_method is None else DepthCache(images, depth_method), on_frame)
        builder_class = BUILDERS[settings["dataset"]]
        remove_unfinished(out / builder_class.name, str(builder_class.VERSION))
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            # TFDS keeps the name 'all' for all splits together.
            split = "frames" if settings["split"] == "all" else settings["split"]
            builder = builder_class(data_dir=out, split=split, shard_lengths=shard_lengths,
                                    examples=_examples(work, workshop, pool, 2 * threads))
            try:
                _build(builder)
            finally:
                workshop.closed.set()
                pool.shutdown(cancel_futures=True)
        index = _index(out, Path(builder.data_dir), settings, identity, work)
        _write_index(out / INDEX_NAME, index)
        if not cache:
            shutil.rmtree(out / "cache", ignore_errors=True)
    return index


@dataclasses.dataclass(frozen=True)
class _Work:
    """A video, which of its frames are kept, and its entry of the index, which grows as they are made."""

    video: VideoFiles
    indices: list[int]
    entry: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Workshop:
    """What the threads share."""

    flow: FlowCache
    last_frame: str
    depth: DepthCache | None
    on_frame: Callable[[], None]
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)  # nobody waits for results
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def make(self, item: _Work, start: int) -> tuple[tuple[int, int], list[Example]]:
        """The video's frame size, and the examples of `_RUN` of its kept frames from number `start` on.

        Fewer if the workshop is closed, by the caller or by an error in any thread, which the caller meets
        when it comes to that thread's result.
        """
        maker, examples = FrameExamples(item.video, self.flow, self.last_frame, self.depth), []
        try:
            for index in item.indices[start:start + _RUN]:
                if self.closed.is_set():
                    break
                examples.append(maker.make(index))
                with self.lock:
                    self.on_frame()
            return maker.size, examples
        except BaseException:
            self.closed.set()
            raise


def _plan(videos: Sequence[VideoFiles], annotated_only: bool) -> tuple[list[_Work], list[int]]:
    """What there is to make, in order, and the number of frames of each shard."""
    work, shard_lengths, first = [], [0], 0
    for video in videos:
        names = list(video.frames)
        _check_names(video.name, *names)
        indices = [index for index, name in enumerate(names) if not annotated_only or video.masks.get(name)]
        if not indices:
            continue
        if shard_lengths[-1] >= _SHARD_FRAMES:
            shard_lengths.append(0)
        work.append(_Work(video, indices, {
            "name": video.name, "category": video.category, "first": first,
            "frame_names": [names[index] for index in indices],
            "size": [], "annotated": [], "flow": [], "depth": []}))
        first += len(indices)
        shard_lengths[-1] += len(indices)
    return work, shard_lengths


def _check_names(video: str, *frames: str) -> None:
    for name in (video, *frames):
        try:
            name.encode()
        except UnicodeEncodeError as error:  # Python keeps such bytes as lone surrogates, which TFDS does not
            raise UserError(f"video {video!r}: {name!r} is not UTF-8; rename the file or folder") from error


def _examples(work: Sequence[_Work], workshop: _Workshop, pool: concurrent.futures.Executor,
              lookahead: int) -> Iterator[Example]:
    """The examples in order, made ahead of need; completes the index entries as they pass."""
    runs = [(item, start) for item in work for start in range(0, len(item.indices), _RUN)]
    results = _in_order(pool, (functools.partial(workshop.make, *run) for run in runs), lookahead)
    for (item, start), (size, examples) in zip(runs, results, strict=True):
        item.entry["size"] = list(size)
        for place, example in enumerate(examples, start):
            for key, part in (("annotated", "mask"), ("flow", "flow"), ("depth", "depth")):
                if example[part]:
                    item.entry[key].append(place)
            yield example


def _in_order(pool: concurrent.futures.Executor, jobs: Iterable[Callable[[], Any]],
              lookahead: int) -> Iterator[Any]:
    """Results of the jobs in their order, at most `lookahead` of them unfetched."""
    pending: collections.deque[concurrent.futures.Future] = collections.deque()
    for job in jobs:
        pending.append(pool.submit(job))
        if len(pending) >= lookahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _build(builder: tfds.core.DatasetBuilder) -> None:
    with tempfile.TemporaryDirectory() as downloads:  # TFDS makes one, and would in the user's folder
        try:
            builder.download_and_prepare(
                download_dir=downloads, download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        except (OSError, RuntimeError) as error:
            if not is_disk_full(error) and "write() failed" not in str(error):  # array_record's words
                raise
            raise UserError(f"{builder.data_dir}: cannot be written ({error}); make space and run again: "
                            "what was computed is kept") from error


def _index(out: Path, folder: Path, settings: Settings, identity: str,
           work: Sequence[_Work]) -> dict[str, Any]:
    files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_checksum(path)}
             for path in sorted(folder.iterdir())]
    return {
        "format_version": FORMAT_VERSION, "identity": identity, **settings,
        "given_flow": _count(work, "flows"), "given_depth": _count(work, "depths"),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "folder": str(folder.relative_to(out)), "files": files, "videos": [item.entry for item in work],
    }


def _count(work: Sequence[_Work], part: str) -> int:
    """Kept frames that the data set itself has this part of."""
    return sum(name in getattr(item.video, part) for item in work for name in item.entry["frame_names"])


def _write_index(path: Path, index: dict[str, Any]) -> None:
    """JSON, with one line for a video: for people who look, and diff."""
    head = json.dumps({key: value for key, value in index.items() if key != "videos"}, indent=2)
    videos = ",\n".join("    " + json.dumps(entry) for entry in index["videos"])
    write_bytes(path, f'{head[:-2]},\n  "videos": [\n{videos}\n  ]\n}}\n'.encode())


def _identity(videos: Sequence[VideoFiles], settings: Settings) -> str:
    """Of the settings and the source files, by name and size: reading them all is what is to be saved."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, settings], sort_keys=True).encode())
    for video in videos:
        digest.update(json.dumps([video.name, video.category]).encode())
        for part in (video.frames, video.masks, video.flows, video.depths):
            for name, paths in part.items():
                for path in paths if isinstance(paths, tuple) else (paths,):
                    digest.update(json.dumps([name, path.suffix, _size(path)]).encode())
            digest.update(b"\n")
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _same_index(out: Path, identity: str) -> dict[str, Any]:
    index = read_index(out)
    if index["identity"] != identity:
        raise UserError(f"--workdir={out} holds a data set prepared from other files or with other settings "
                        f"(see {out / INDEX_NAME}): give another folder or remove this one")
    return index
