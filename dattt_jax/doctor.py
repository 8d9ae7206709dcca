"""`--mode=doctor`: what is in a data folder, what is wrong with it, and what it can be used for."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from dattt_jax.progress import Progress
from input_pipeline.datasets import DATASETS, Listing, list_videos
from input_pipeline.doctor import (
    FINDINGS,
    Examination,
    Patient,
    examine,
    patients_of_files,
    patients_of_prepared,
    verdicts,
)
from input_pipeline.writers import write_json

_SHOWN = 5  # cases of a finding that are printed; doctor.json has them all
_USES = {"any": (), "train": ("training",), "eval": ("evaluation",)}


def doctor(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Examines the data that `config.data` names: decodes every file, prints a report, writes doctor.json.

    Returns:
        What doctor.json holds.

    Raises:
        UserError: the data is not there, or would not work for `config.doctor.use`.
    """
    data, settings = config.data, config.doctor
    if settings.use not in _USES:
        raise UserError(f"config.doctor.use={settings.use!r}: give one of {', '.join(_USES)}")
    if settings.threads < 1:
        raise UserError(f"config.doctor.threads={settings.threads}: give 1 or more")
    listing, patients = _patients(data.dataset, data.root, data.split)
    with Progress(f"doctor {data.dataset}", sum(len(patient.checks) for patient in patients)) as progress:
        examination = examine(patients, settings.threads, progress.update)
    examination = _with_listing(examination, listing)
    prepared = data.dataset == "prepared"
    made_later = config.depth.method and not prepared
    needs_depth = bool(config.model.depth and config.train.depth_weight > 0 and not made_later)
    reasons = verdicts(examination, prepared=prepared, needs_depth=needs_depth)
    published = _published(data.dataset, data.split, len(examination.videos))
    print("\n".join(_report(data, listing, examination, published, reasons, prepared)))
    path = Path(workdir) / "doctor.json"
    result = {
        "dataset": data.dataset, "root": str(data.root), "split": data.split, "layout": listing.layout,
        "published_count": published, "verdicts": reasons,
        "videos": [dataclasses.asdict(video) for video in examination.videos],
        "findings": {key: list(lines) for key, lines in examination.findings.items()},
    }
    write_json(path, result)
    print(f"all cases: {path}")
    _check_use(settings.use, reasons)
    return result


def _patients(dataset: str, root: str, split: str) -> tuple[Listing, Sequence[Patient]]:
    if dataset == "prepared":
        if not root:
            raise UserError("config.data.root is empty: give the --workdir of --mode=prepare")
        return Listing("prepared", ()), patients_of_prepared(root)
    if dataset not in DATASETS:
        raise UserError(f"config.data.dataset={dataset!r} has no files to examine; give prepared, or one "
                        f"of {', '.join(sorted(DATASETS))}")
    listing = list_videos(dataset, root, split)
    return listing, patients_of_files(listing.videos)


def _with_listing(examination: Examination, listing: Listing) -> Examination:
    """Adds what was seen while the files were paired."""
    findings = dict(examination.findings)
    for key, lines in (("orphans", listing.orphans), ("missing_videos", listing.missing_videos)):
        if lines:
            findings[key] = tuple(lines)
    ordered = {key: findings[key] for key in FINDINGS if key in findings}
    return dataclasses.replace(examination, findings=ordered)


def _published(dataset: str, split: str, count: int) -> str:
    """The number of videos beside the published one; '' where none is published."""
    info = DATASETS.get(dataset)
    expected = info.video_counts.get(split or info.default_split) if info else None
    if expected is None:
        return ""
    state = "as published" if count == expected else f"{expected} are published: numbers will not compare"
    return f"{count} of {info.title} {split or info.default_split}, {state}"


def _report(data: ConfigDict, listing: Listing, examination: Examination, published: str,
            reasons: Mapping[str, Sequence[str]], prepared: bool) -> list[str]:
    videos = examination.videos
    frames, annotated = sum(video.frames for video in videos), sum(video.annotated for video in videos)
    masks: collections.Counter[str] = collections.Counter()
    for video in videos:
        masks.update(video.masks)
    categories = collections.Counter(video.category for video in videos if video.category)
    rows = [
        ("data", f"{data.dataset} in {data.root}, layout: {listing.layout}"),
        ("videos", published or str(len(videos))),
        ("frames", f"{frames} ({min(v.frames for v in videos)} to {max(v.frames for v in videos)} a video)"),
        ("annotated", f"{annotated} frames, {sum(v.annotated > 0 for v in videos)} videos"),
        ("sizes", _counted(collections.Counter(f"{v.size[1]}x{v.size[0]}" for v in videos).most_common())),
        ("masks", _counted(masks.most_common()) or "none"),
        ("flow", _share(sum(video.with_flow for video in videos), frames)),
        ("depth", _share(sum(video.with_depth for video in videos), frames)),
    ]
    if categories:
        rows.append(("classes", _counted(sorted(categories.items()))))
    lines = [f"{name:<11}{text}" for name, text in rows]
    for key, cases in examination.findings.items():
        mark = "!" if FINDINGS[key].prevents else "-"
        lines.append(f"{mark} {len(cases)} {FINDINGS[key].text}")
        lines += [f"    {case}" for case in cases[:_SHOWN]]
        if len(cases) > _SHOWN:
            lines.append(f"    … and {len(cases) - _SHOWN} more")
    first = "" if prepared else ", after --mode=prepare"
    lines.append(f"training:   {_verdict(reasons['training'], first)}")
    flow = "" if any(video.with_flow for video in videos) else "; flow is computed on the way"
    lines.append(f"evaluation: {_verdict(reasons['evaluation'], flow)}")
    return lines


def _verdict(reasons: Sequence[str], how: str) -> str:
    return f"no, because {'; '.join(reasons)}" if reasons else f"yes{how}"


def _counted(items: Iterable[tuple[str, int]]) -> str:
    """`854x480 (19), 910x480`: what occurs how often, the first of them."""
    texts = [f"{name} ({count})" for name, count in items]
    return ", ".join(texts[:_SHOWN]) + (f", … and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def _share(count: int, total: int) -> str:
    return f"{count} of {total} frames" if count else "none"


def _check_use(use: str, reasons: Mapping[str, Sequence[str]]) -> None:
    failed = {name: why for name, why in reasons.items() if why}
    wanted = _USES[use]
    if any(name in failed for name in wanted) or (not wanted and len(failed) == len(reasons)):
        name = wanted[0] if wanted else "neither training nor evaluation"
        why = failed[wanted[0]] if wanted else failed["evaluation"]
        state = f"{name} would not work" if wanted else f"{name} would work"
        raise UserError(f"config.data: {state}: {'; '.join(why)}")
