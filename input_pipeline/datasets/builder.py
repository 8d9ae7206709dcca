"""TensorFlow Datasets builders: one example per frame, in array_record, without TensorFlow.

`input_pipeline.datasets.prepare` decides what is in the examples; here is how they are stored. Every
data set has the same features and code, and a class of its own so that TFDS knows it by name:

    tfds.builder_from_directory("data/davis16/davis16/1.0.0").as_data_source("train")[0]
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

Example = dict[str, Any]

# Encoded images are kept as bytes (TFDS' Text stores any bytes as they are): a file is then read back
# bit for bit, an image that is missing is empty, and a reader decodes only what it needs.
FEATURES = {
    "image": tfds.features.Text(doc="frame: the file itself if JPEG or PNG, else PNG"),
    "flow": tfds.features.Text(doc="colour-wheel rendering of the forward flow, JPEG or PNG; or empty"),
    "mask": tfds.features.Text(doc="union of the objects, PNG of 0 and 255; empty if not annotated"),
    "depth": tfds.features.Text(doc="depth target, 16-bit PNG, 65535 is 1, 0 is unknown; or empty"),
    "video": tfds.features.Text(doc="name of the video"),
    "frame": tfds.features.Text(doc="name of the frame"),
    "index": tfds.features.Scalar(dtype=np.int64, doc="number of the frame in its video, from 0"),
}


class _LocalInfo(tfds.core.DatasetInfo):
    """What is known of a data set, without asking the network."""

    def initialize_from_bucket(self) -> None:
        """Nothing: Google's bucket has none of these, and TFDS would leave a temporary folder behind."""


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders; writes the frames it is given, in order, a video as one run.

    TFDS' own writer collects a split in memory and above 1 GB goes on through TensorFlow's file
    system. This one writes shard after shard and holds one example.

    Args:
        split: name of the split to write, for example 'train'.
        shard_lengths: examples in each shard; each video is whole in one of them.
        examples: as many, in the order of the videos and their frames.
        kwargs: those of `tfds.core.GeneratorBasedBuilder`, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = ""
    CITATION = ""

    def __init__(self, *, split: str = "", shard_lengths: Sequence[int] = (),
                 examples: Iterable[Example] = (), **kwargs: Any) -> None:
        self._split, self._shard_lengths, self._examples = split, shard_lengths, examples
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self, description=type(self).__doc__, homepage=self.HOMEPAGE, citation=self.CITATION,
            features=tfds.features.FeaturesDict(FEATURES), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        return {self._split: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, Example]]:
        yield from enumerate(self._examples)

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        serializer = example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        [(split, examples)] = self._split_generators(dl_manager).items()
        template = self._get_filename_template(split_name=split)
        num_bytes = 0

        def serialized(count: int) -> Iterator[tuple[int, bytes]]:
            nonlocal num_bytes
            for key, example in itertools.islice(examples, count):
                record = serializer.get_tf_example(self.info.features.encode_example(example))
                record = record.SerializeToString(deterministic=True)  # else its order varies by process
                num_bytes += len(record)
                yield key, record

        for index, length in enumerate(self._shard_lengths):
            path = template.sharded_filepath(shard_index=index, num_shards=len(self._shard_lengths))
            self._example_writer().write(path, serialized(length))
        return [tfds.core.SplitInfo(name=split, shard_lengths=list(self._shard_lengths),
                                    num_bytes=num_bytes, filename_template=template)]

    def _log_download_bytes(self) -> None:
        """Nothing is downloaded: what TFDS prints about it would mislead."""

    def _log_download_done(self) -> None:
        """See `_log_download_bytes`."""


class Davis16(FrameBuilder):
    """DAVIS 2016: 30 training and 20 validation videos, the moving objects annotated in every frame."""

    HOMEPAGE = "https://davischallenge.org/davis2016/code.html"
    CITATION = ("Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object "
                "Segmentation, CVPR 2016")


class YoutubeVos(FrameBuilder):
    """YouTube-VOS 2018, training split: 3,471 videos, annotated every 5th frame; objects united."""

    HOMEPAGE = "https://youtube-vos.org/dataset/vos/"
    CITATION = "Xu et al., YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark, 2018"


class Fbms(FrameBuilder):
    """FBMS-59: 29 training and 30 test videos of moving objects, sparsely annotated; objects united."""

    HOMEPAGE = "https://lmb.informatik.uni-freiburg.de/resources/datasets/moseg.en.html"
    CITATION = "Ochs et al., Segmentation of Moving Objects by Long Term Video Analysis, TPAMI 2014"


class LongVideos(FrameBuilder):
    """Long-Videos: 3 videos of more than 1,500 frames, sparsely annotated."""

    CITATION = ("Liang et al., Video Object Segmentation with Adaptive Feature Bank and Uncertain-Region "
                "Refinement, NeurIPS 2020")


class Mcl(FrameBuilder):
    """MCL: 9 videos of low resolution."""

    CITATION = ("Kim et al., Spatiotemporal Saliency Detection for Video Sequences Based on Random Walk With "
                "Restart, TIP 2015")


class SegtrackV2(FrameBuilder):
    """SegTrackV2: 14 videos, every object of every frame annotated; objects united."""

    HOMEPAGE = "https://web.engr.oregonstate.edu/~lif/SegTrack2/dataset.html"
    CITATION = "Li et al., Video Segmentation by Tracking Many Figure-Ground Segments, ICCV 2013"


class YoutubeObjects(FrameBuilder):
    """YouTube-Objects: 10 classes, 126 videos, every 10th frame annotated."""

    HOMEPAGE = "https://data.vision.ee.ethz.ch/cvl/youtube-objects/"
    CITATION = "Prest et al., Learning Object Class Detectors from Weakly Annotated Video, CVPR 2012"


class Folder(FrameBuilder):
    """Videos of a folder: frames/<video>/<frame> and masks/<video>/<frame>, or a layout like it."""


BUILDERS: dict[str, type[FrameBuilder]] = {builder.name: builder for builder in (
    Davis16, YoutubeVos, Fbms, LongVideos, Mcl, SegtrackV2, YoutubeObjects, Folder)}
