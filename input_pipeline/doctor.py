"""Examines a data set before anything is spent on it; `dattt_jax/doctor.py` prints what it finds."""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from input_pipeline.datasets import VideoFiles
from input_pipeline.datasets.layouts.pairing import last_number
from input_pipeline.frame_checks import FrameCheck, check_decoded, check_files
from input_pipeline.video_io import MIN_FRAME_SIDE


@dataclasses.dataclass(frozen=True)
class Finding:
    """A kind of finding.

    Attributes:
        text: with the number of cases in front of it.
        prevents: of 'training' and 'evaluation', what does not work with a single case of it.
    """

    text: str
    prevents: tuple[str, ...] = ()


_BOTH = ("training", "evaluation")
FINDINGS: Mapping[str, Finding] = {
    "unreadable": Finding("unreadable frames or masks", _BOTH),
    "unreadable_flow": Finding("unreadable flow renderings", _BOTH),
    "unreadable_depth": Finding("unreadable depth maps", ("training",)),
    "frame_size": Finding("frames of another size than their video's first", _BOTH),
    "too_small": Finding(f"videos with a side below {MIN_FRAME_SIDE} pixels", _BOTH),
    "mask_size": Finding("masks of another size than their frame", _BOTH),
    "flow_size": Finding("flow renderings of another size than their frame", ("training",)),
    "one_frame": Finding("videos of one frame, which has no motion", _BOTH),
    "missing_videos": Finding("videos of the data set's own list that are not there"),
    "no_masks": Finding("videos without any mask"),
    "no_mask": Finding("frames without a mask (sparse annotation is normal)"),
    "no_flow": Finding("frames without flow in videos that have flow"),
    "no_depth": Finding("annotated frames without a depth map in a data set that has depth maps"),
    "orphans": Finding("files that belong to no frame"),
    "duplicates": Finding("videos with the same frames as another"),
    "gaps": Finding("gaps in the numbering of frames"),
    "empty_masks": Finding("masks without any object"),
    "full_masks": Finding("masks that cover nearly the whole frame: is the background taken for the object?"),
}


@dataclasses.dataclass(frozen=True)
class VideoSummary:
    """A video in numbers.

    Attributes:
        name, category: of the video.
        frames, annotated, with_flow, with_depth: numbers of frames.
        size: (height, width) of its first readable frame, (0, 0) if there is none.
        masks: how its masks are stored -> number of frames, see `FrameCheck.mask`.
    """

    name: str
    category: str
    frames: int
    annotated: int
    with_flow: int
    with_depth: int
    size: tuple[int, int]
    masks: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Examination:
    """All that was found.

    Attributes:
        videos: in numbers.
        findings: key of `FINDINGS` -> a line for each case; kinds without a case are left out.
    """

    videos: tuple[VideoSummary, ...]
    findings: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Patient:
    """A video to examine.

    Attributes:
        name, category: of the video.
        checks: one for each frame in order; each decodes the frame's files.
    """

    name: str
    category: str
    checks: Sequence[Callable[[], FrameCheck]]


def patients_of_files(videos: Iterable[VideoFiles]) -> list[Patient]:
    """Videos of a data set as downloaded."""
    return [Patient(video.name, video.category, [partial(check_files, video, name) for name in video.frames])
            for video in videos]


def patients_of_prepared(root: str) -> list[Patient]:
    """Videos of a folder that `--mode=prepare` wrote; checksums of its files are compared first.

    Raises:
        UserError: the folder is not one, or damaged.
    """
    from input_pipeline.datasets.prepared import PreparedData  # TensorFlow Datasets takes seconds to load

    data = PreparedData(root)
    data.check_content()

    def check(index: int, name: str) -> FrameCheck:
        frame = data[index]
        return check_decoded(name, frame)

    return [Patient(video.name, video.category,
                    [partial(check, video.first + i, name) for i, name in enumerate(video.frame_names)])
            for video in data.videos]


def examine(patients: Sequence[Patient], threads: int,
            on_frames: Callable[[int], None] = lambda count: None) -> Examination:
    """Decodes every file.

    Args:
        patients: the videos.
        threads: files decoded at a time.
        on_frames: called with the number of frames examined since the last call.

    Returns:
        What was found.
    """
    summaries: list[VideoSummary] = []
    found: dict[str, list[str]] = collections.defaultdict(list)
    first_of: dict[bytes, str] = {}
    no_depth: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for patient in patients:
            checks = list(pool.map(lambda check: check(), patient.checks))
            summary = _summary(patient, checks)
            summaries.append(summary)
            for finding, line in _problems(summary, checks):
                found[finding].append(line)
            no_depth += [f"{summary.name}/{check.name}" for check in checks
                         if check.mask and not check.has_depth]
            digest = hashlib.blake2b(b"".join(check.digest for check in checks)).digest()
            same = first_of.setdefault(digest, summary.name)
            if same != summary.name and all(check.digest for check in checks):
                found["duplicates"].append(f"{summary.name} is {same}")
            on_frames(len(checks))
    if any(summary.with_depth for summary in summaries) and no_depth:
        found["no_depth"] = no_depth
    return Examination(tuple(summaries), {key: tuple(found[key]) for key in FINDINGS if found[key]})


def _summary(patient: Patient, checks: Sequence[FrameCheck]) -> VideoSummary:
    return VideoSummary(
        patient.name, patient.category, len(checks), sum(bool(check.mask) for check in checks),
        sum(check.has_flow for check in checks), sum(check.has_depth for check in checks),
        next((check.size for check in checks if check.size), (0, 0)),
        dict(collections.Counter(check.mask for check in checks if check.mask)))


def _problems(video: VideoSummary, checks: Sequence[FrameCheck]) -> Iterator[tuple[str, str]]:
    for check in checks:
        yield from check.problems
        if check.size and check.size != video.size:
            yield "frame_size", (f"{video.name}/{check.name} is {check.size[1]}x{check.size[0]} "
                                 f"(width x height), the video {video.size[1]}x{video.size[0]}")
    if video.size != (0, 0) and min(video.size) < MIN_FRAME_SIDE:
        yield "too_small", f"{video.name} is {video.size[1]}x{video.size[0]} (width x height)"
    if len(checks) == 1:
        yield "one_frame", video.name
    if not video.annotated:
        yield "no_masks", video.name
    for check in checks:
        if video.annotated and not check.mask:
            yield "no_mask", f"{video.name}/{check.name}"
    # N frames have N - 1 flows: the last one's follows a rule of its own.
    for check in checks[:-1]:
        if video.with_flow and not check.has_flow:
            yield "no_flow", f"{video.name}/{check.name}"
    for before, after in _gaps([check.name for check in checks]):
        yield "gaps", f"{video.name}: {before} is followed by {after}"


def _gaps(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Neighbours whose numbers differ by more than what is usual in the video (5 in YouTube-VOS)."""
    places = [last_number(name) for name in names]
    steps = [after[1] - before[1] if before and after else 0 for before, after in itertools.pairwise(places)]
    usual = max(set(steps), key=lambda step: (steps.count(step), -step), default=0)
    for index, step in enumerate(steps):
        if step > usual:
            yield names[index], names[index + 1]


def verdicts(examination: Examination, *, prepared: bool, needs_depth: bool) -> dict[str, list[str]]:
    """Whether training and evaluation would work.

    Args:
        examination: of the data.
        prepared: it is prepared data, with flow; other data needs `--mode=prepare` before training.
        needs_depth: training needs a depth map for every annotated frame, and none will be made.

    Returns:
        For 'training' and 'evaluation' the reasons why not; empty if it would work.
    """
    reasons: dict[str, list[str]] = {use: [] for use in _BOTH}
    for key, lines in examination.findings.items():
        for use in FINDINGS[key].prevents:
            reasons[use].append(f"{len(lines)} {FINDINGS[key].text}")
    if not any(video.annotated for video in examination.videos):
        for use in _BOTH:
            reasons[use].append("no frame has a mask")
    elif needs_depth:
        without = len(examination.findings.get("no_depth", ()))
        if not any(video.with_depth for video in examination.videos):
            without = sum(video.annotated for video in examination.videos)
        if without:
            reasons["training"].append(
                f"{without} annotated frames have no depth map (set config.depth.method for --mode=prepare, "
                "or train with config.model.depth=False or config.train.depth_weight=0)")
    if prepared and not any(video.with_flow for video in examination.videos):
        reasons["training"].append("no frame has flow")
    return reasons
