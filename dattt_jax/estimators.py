"""The flow and depth methods that a config names, for every mode alike."""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dattt_jax.errors import UserError
from input_pipeline.depth import DepthMethod, create_depth, depth_options
from input_pipeline.flow import LAST_FRAME_RULES, FlowMethod, RenderingSource, create_flow, flow_options
from input_pipeline.flow.cache import CachedFlow
from input_pipeline.flow.files import FlowFiles
from input_pipeline.flow.nearby import NearbyFlow
from input_pipeline.image_cache import ImageCache

_NEVER_IN_VAIN = ("weights", "root", "kind", "stabilized")  # what a user sets, a method must take
_NO_FIELDS = ("side", "parallax")  # options of flow methods that are not fields of config.flow by themselves


def pair_flow(config: ConfigDict) -> FlowMethod:
    """The method of `config.flow`, with its weights read, for the flow of one pair of frames.

    Of several sides it takes the first.

    Raises:
        UserError: there is no such method, or an option is wrong, or set for a method that has no use for it;
            or `config.flow.last_frame` is no rule; or as `flow_settings`.
    """
    return _flow_methods(config)[0]


def video_flow(config: ConfigDict) -> FlowMethod | NearbyFlow:
    """The flow of videos by `config.flow`; `flow_of_video` binds it to one.

    Its renderings are kept in `config.estimates_dir`, where that names a folder.

    Raises:
        UserError: as `pair_flow` and `flow_gaps`; or there are several gaps and flow files.
    """
    methods, gaps = _flow_methods(config), flow_gaps(config)
    if isinstance(methods[0], FlowFiles):
        if gaps != (1,):
            raise UserError(f"config.flow.gaps={gaps}: flow files are of neighbours; set config.flow.gaps="
                            "(1,) or another config.flow.method")
        return methods[0]
    methods = _kept(config, methods)
    # What data sets bring is plain flow between neighbours: any other is estimated, whatever they bring.
    if gaps != (1,) or config.flow.stabilized or config.flow.sides:
        return NearbyFlow(methods, gaps)
    return methods[0]


def flow_with_and_without_parallax(config: ConfigDict) -> NearbyFlow:
    """The flow of videos by `config.flow`, and after it the same across epipolar lines: twice as many gaps.

    Raises:
        UserError: as `video_flow`; or `config.flow` is not stabilized, or its method has no such flow.
    """
    if "parallax" not in flow_options(config.flow.method):
        raise UserError(f"config.flow.parallax_probes={config.flow.parallax_probes} is of no use to "
                        f"config.flow.method={config.flow.method}: set config.flow.parallax_probes=0")
    if not config.flow.stabilized:
        raise UserError(f"config.flow.parallax_probes={config.flow.parallax_probes} needs config.flow."
                        "stabilized=True: only then parallax can be taken out, too; or set it to 0")
    gaps, methods = flow_gaps(config), []
    for parallax in (True, False):
        found = _flow_methods(config, parallax=parallax)
        methods += found * len(gaps) if len(found) == 1 else found
    return NearbyFlow(_kept(config, methods), gaps * 2)


def _kept(config: ConfigDict, methods: list[FlowMethod]) -> list[FlowMethod]:
    """The methods; where `config.estimates_dir` names a folder, their renderings are kept there."""
    if not config.estimates_dir:
        return methods
    images = ImageCache(config.estimates_dir)
    return [CachedFlow(images, method) for method in methods]


def _flow_methods(config: ConfigDict, **options: Any) -> list[FlowMethod]:
    """One method for all gaps, or one for each of them, with more options; raises as `pair_flow`."""
    if config.flow.last_frame not in LAST_FRAME_RULES:
        raise UserError(f"config.flow.last_frame={config.flow.last_frame!r}: use one of "
                        f"{', '.join(LAST_FRAME_RULES)}")
    return [create_flow(config.flow.method, **fields, **options) for fields in flow_settings(config)]


def flow_settings(config: ConfigDict) -> list[dict[str, Any]]:
    """The options of `create_flow` for the method of `config.flow`: for all gaps, or for each of them.

    Raises:
        UserError: as `pair_flow`, before any weights are read; or `config.flow.sides` are no lengths, or not
            as many as the gaps, or the method has no use for them.
    """
    names, sides = flow_options(config.flow.method), tuple(config.flow.sides)
    options = _options("flow", config, [name for name in names if name not in _NO_FIELDS])
    if not sides:
        return [options]
    if "side" not in names:
        raise UserError(f"config.flow.sides={sides} is of no use to config.flow.method={config.flow.method}: "
                        "set config.flow.sides=()")
    if len(sides) != len(flow_gaps(config)) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"config.flow.sides={sides}: give a whole number of pixels, 1 or more, for each of "
                        f"config.flow.gaps={tuple(config.flow.gaps)}, or ()")
    return [options | {"side": side} for side in sides]


def renderings_shape(method: FlowMethod | RenderingSource, frame_size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of what a frame of `frame_size` (height, width) gets from `flow_renderings`."""
    several = (len(method.gaps),) if isinstance(method, NearbyFlow) else ()
    return (*several, *frame_size, 3)


def flow_gaps(config: ConfigDict) -> tuple[int, ...]:
    """`config.flow.gaps`.

    Raises:
        UserError: it has no gap, or one that is 0 or not a whole number.
    """
    gaps = tuple(config.flow.gaps)
    if not gaps or not all(isinstance(gap, int) and gap for gap in gaps):
        raise UserError(f"config.flow.gaps={gaps}: give whole numbers of frames other than 0, for example "
                        "(1,) or (1, -1)")
    return gaps


def flow_of_video(method: FlowMethod | NearbyFlow, video: str, frame_names: Sequence[str]
                  ) -> FlowMethod | RenderingSource:
    """What `flow_renderings` takes for a video: the method itself, or the video's flow files.

    Args:
        method: see `video_flow`.
        video: name of the video.
        frame_names: names of all its frames, in order.
    """
    return method.for_video(video, frame_names) if isinstance(method, FlowFiles) else method


def depth_method(config: ConfigDict) -> DepthMethod | None:
    """The method of `config.depth`, with its weights read; None if it names none.

    Raises:
        UserError: as `pair_flow`.
    """
    if not config.depth.method:
        return None
    return create_depth(config.depth.method, **_options("depth", config, depth_options(config.depth.method)))


def _options(section: str, config: ConfigDict, names: Sequence[str]) -> dict[str, Any]:
    """The fields of `config.<section>` that the method takes."""
    fields = config[section]
    for name in _NEVER_IN_VAIN:
        if fields.get(name) and name not in names:
            raise UserError(f"config.{section}.{name}={fields[name]} is of no use to config.{section}.method="
                            f"{fields.method}: set it to {type(fields[name])()!r} or name another method")
    return {name: fields[name] for name in names}
