"""`--mode=eval`: scores, resuming, options and errors, with a network and with a problem of one number."""

import dataclasses
import json
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_model import random_variables
from PIL import Image
from tiny_eval import (
    HEIGHT,
    PROBLEM,
    VARIABLES,
    WIDTH,
    folder_config,
    tiny_config,
    tiny_evaluate,
    without_times,
    write_clip,
)

from dattt_jax import eval_run
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.eval_data import eval_entries
from dattt_jax.evaluate import evaluate
from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.region import jaccard
from dattt_jax.metrics.saliency import describe_profile, frame_profile
from dattt_jax.propagation import Propagation
from dattt_jax.score import score
from dattt_jax.ttt import SOURCE, Engine, Objective
from input_pipeline.eval_pairs import frame_pairs
from input_pipeline.flow import create_flow
from input_pipeline.images import read_image_size, read_mask
from input_pipeline.writers import VideoWriter

pytestmark = pytest.mark.usefixtures("shared_engines")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def real_config(config, tmp_path_factory, tiny_backbones):
    """With a real network of random weights."""
    config = config.copy_and_resolve_references()
    config.input_size = (32, 32)
    config.model.decoder_features = 8
    config.ttt.batch_size = 2
    config.init = str(tmp_path_factory.mktemp("network"))
    save_variables(config.init, random_variables(config.model), config.model)
    return config


@pytest.fixture(scope="module")
def finished(real_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("eval")
    return workdir, evaluate(real_config, workdir)


def test_scores_are_those_of_the_masks_on_disk(real_config, finished):
    workdir, results = finished
    for strategy in ("base", "n"):
        per_video = []
        for video in (entry.open() for entry in eval_entries(real_config)):
            scores = []
            for name in video.frame_names:
                path = workdir / "masks" / strategy / video.name / f"{name}.png"
                mask, target = read_mask(path), video.target(name)
                scores.append((jaccard(mask, target), boundary_f(mask, target)))
            per_video.append(np.mean(scores, axis=0))
            assert (workdir / "overlays" / strategy / f"{video.name}.mp4").exists()
        summary = results["strategies"][strategy]
        np.testing.assert_allclose([summary["J"]["mean"], summary["F"]["mean"]],
                                   np.mean(per_video, axis=0), rtol=1e-9)
        adaptation = results["adaptation"][strategy].values()
        assert {each["kept"] for each in adaptation} == {"none" if strategy == "base" else "all"}
    assert json.loads((workdir / "results.json").read_text()) == json.loads(json.dumps(results))
    assert len((workdir / "results.csv").read_text().splitlines()) == 1 + 2 * (2 + 1)
    assert f"{100 * results['strategies']['n']['J']['mean']:.2f}" in (workdir / "report.html").read_text()
    assert read_image_size(workdir / "strategies.png")[1] > 4 * 64


def test_finished_videos_are_not_run_again_and_missing_ones_are(real_config, finished):
    workdir, results = finished
    kept = workdir / "videos" / "n"
    first, second = sorted(kept.iterdir())
    before = first.stat().st_mtime_ns
    content = json.loads(second.read_text())
    second.unlink()
    assert evaluate(real_config, workdir) == results
    assert first.stat().st_mtime_ns == before
    assert without_times(json.loads(second.read_text())) == without_times(content)


def test_what_changes_no_result_may_change(real_config, finished):
    workdir, results = finished
    other = real_config.copy_and_resolve_references()
    other.ttt.chunk, other.ttt.strategy, other.flow.batch_size, other.flow.volume_gib = 2, "n", 1, 1.0
    assert evaluate(other, workdir) == results


def test_a_workdir_of_other_settings_is_refused(real_config, finished):
    other = real_config.copy_and_resolve_references()
    other.ttt.learning_rate = 0.5
    with pytest.raises(UserError, match=r"other settings \(config\.ttt\.learning_rate was 1e-05, now 0\.5\)"):
        tiny_evaluate(other, finished[0])
    other = real_config.copy_and_resolve_references()
    other.eval.protocol = "davis16"
    with pytest.raises(UserError, match=r"config\.eval\.protocol was 'all', now 'davis16'\)"):
        tiny_evaluate(other, finished[0])


def test_what_does_not_change_results_may_change(config, tmp_path):
    results = tiny_evaluate(config, tmp_path)
    other = config.copy_and_resolve_references()
    other.eval.strategies, other.eval.devices, other.eval.overlays = ("n", "base", "mwi"), 2, False
    again = tiny_evaluate(other, tmp_path)["strategies"]
    assert list(again) == ["n", "base", "mwi"]
    assert {name: again[name] for name in ("base", "n")} == results["strategies"]


def test_overlays_are_written_later_where_they_were_not_wanted_first(config, tmp_path, monkeypatch):
    shown = {}  # frames, not bytes: x264 gives other bytes for the same frames now and then

    class Writer(VideoWriter):
        def write(self, frame):
            shown.setdefault(self._path, []).append(frame.tobytes())
            super().write(frame)

    monkeypatch.setattr(eval_run, "VideoWriter", Writer)
    config = config.copy_and_resolve_references()
    config.eval.overlays, config.eval.strategies = True, ("base",)
    tiny_evaluate(config, tmp_path / "once")
    config.eval.overlays = False
    tiny_evaluate(config, tmp_path / "later")
    assert not (tmp_path / "later" / "overlays").exists()
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "later" / "videos").rglob("*.json")}
    config.eval.overlays = True
    tiny_evaluate(config, tmp_path / "later")
    assert {path: path.stat().st_mtime_ns for path in records} == records
    once, later = ({path.name: shown[path] for path in (tmp_path / run / "overlays" / "base").iterdir()}
                   for run in ("once", "later"))
    assert once == later != {}


def test_a_folder_with_sparse_masks(config, tmp_path):
    write_clip(tmp_path / "data", "cat", 4, masks=[2])
    config = folder_config(config, tmp_path / "data", strategies=("base",))
    results = tiny_evaluate(config, tmp_path / "out")
    assert results["strategies"]["base"]["frames"] == 1 and results["flow"][0].startswith("dis")
    assert len(list((tmp_path / "out/masks/base/cat").iterdir())) == 4

    (tmp_path / "data/masks/cat/00002.png").rename(tmp_path / "data/masks/cat/00009.png")
    with pytest.raises(UserError, match=r"config\.data\.root.*: no frame of it is annotated"):
        tiny_evaluate(config, tmp_path / "out2")
    with pytest.raises(UserError, match=r"config\.data\.root.*nothing.*no such folder"):
        config.data.root = str(tmp_path / "nothing")
        tiny_evaluate(config, tmp_path / "out3")
    with pytest.raises(UserError, match=r"config\.data\.root is empty"):
        config.data.root = ""
        tiny_evaluate(config, tmp_path / "out4")


def test_only_annotated_frames_are_seen_and_their_flow_is_that_of_neighbours(config, tmp_path):
    write_clip(tmp_path / "data", "cat", 6, masks=[1, 4])
    config = folder_config(config, tmp_path / "data")
    every = tiny_evaluate(config, tmp_path / "all")
    config.eval.frames = "annotated"
    annotated = tiny_evaluate(config, tmp_path / "annotated")
    for strategy in ("base", "n"):
        masks = tmp_path / "annotated" / "masks" / strategy / "cat"
        assert sorted(path.name for path in masks.iterdir()) == ["00001.png", "00004.png"]
    # Without adaptation a frame is predicted from itself and its flow alone: the same under both.
    assert annotated["strategies"]["base"] == every["strategies"]["base"]
    record = json.loads((tmp_path / "annotated/videos/n/cat.json").read_text())
    assert list(record["losses"]) == list(record["frames"]) == ["00001", "00004"]
    config.eval.frames = "some"
    with pytest.raises(UserError, match=r"config\.eval\.frames='some': use one of all, annotated"):
        tiny_evaluate(config, tmp_path / "out")


@pytest.mark.parametrize("protocol", ["all", "davis16", "dattt"])
@pytest.mark.parametrize("last_frame", ["repeat", "drop"])
def test_score_of_the_masks_is_the_same(config, tmp_path, protocol, last_frame):
    """Frames without a prediction included: a last frame that is dropped counts as the protocol says."""
    write_clip(tmp_path / "data", "cat", 5, masks=range(5), level=100)  # above 0, not 128
    write_clip(tmp_path / "data", "dog", 5, masks=range(5), level=200, seed=1)
    config = folder_config(config, tmp_path / "data", strategies=("base",), protocol=protocol)
    config.flow.last_frame = last_frame
    found = tiny_evaluate(config, tmp_path / "out")["strategies"]["base"]
    config.score.pred, config.score.gt = str(tmp_path / "out/masks/base"), str(tmp_path / "data/masks")
    config.score.protocol = protocol
    expected = score(config, tmp_path / "score")
    assert found == {name: expected[name] for name in found}
    assert found["J"]["mean"] != pytest.approx(0)


def test_further_measures(config, tmp_path):
    pytest.importorskip("py_sod_metrics")
    config = config.copy_and_resolve_references()
    config.eval.strategies, config.eval.measures, config.eval.clips = ("base",), ("region_F", "saliency"), 1
    summary = tiny_evaluate(config, tmp_path)["strategies"]["base"]
    record = json.loads((tmp_path / "videos/base/synthetic_00000.json").read_text())
    assert summary["saliency"] == describe_profile(np.asarray(record["saliency"]))
    assert summary["region_F"]["mean"] == pytest.approx(
        np.mean([2 * score["J"] / (1 + score["J"]) for score in record["frames"].values()]))
    # The maps are soft: those of the masks have another E-measure curve.
    video = eval_entries(config)[0].open()
    masks = [frame_profile(read_mask(tmp_path / f"masks/base/{video.name}/{name}.png"), video.target(name))
             for name in video.frame_names]
    assert summary["saliency"] != describe_profile(np.mean(masks, axis=0))
    text = (tmp_path / "report.html").read_text()
    assert f"{100 * summary['saliency']['S']:.2f}" in text and "equation 6" in text
    header, row = (tmp_path / "results.csv").read_text().splitlines()[:2]
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(values["MAE"]) == pytest.approx(summary["saliency"]["MAE"])
    assert float(values["J_decay"]) == pytest.approx(summary["videos"][video.name]["J"]["decay"])


def test_curves_end_at_the_reported_scores(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.eval.curves, config.eval.strategies, config.eval.clips = True, ("base", "ltv"), 1
    config.ttt.steps = 2
    results = tiny_evaluate(config, tmp_path)
    [(strategy, curves)] = results["curves"].items()
    assert strategy == "ltv"
    for measure in ("J", "F"):
        assert len(curves[measure]) == 2
        assert curves[measure][-1] == pytest.approx(results["strategies"]["ltv"][measure]["mean"])


def test_propagated_masks_are_scored(config, tmp_path):
    """Those of a share of almost nothing are the plain ones; a mask is made of its own frame."""
    plain = tiny_evaluate(config, tmp_path / "plain")
    seen = []

    def upsample(frame, logits):
        seen.append(frame)
        return 1 / (1 + np.exp(-logits))

    nearly = tiny_evaluate(config, tmp_path / "nearly", Propagation(1e-9, (HEIGHT, WIDTH), upsample))
    for strategy, summary in plain["strategies"].items():
        for measure in ("J", "F"):
            assert abs(nearly["strategies"][strategy][measure]["mean"] - summary[measure]["mean"]) < 0.01
    for entry, frames in zip(eval_entries(config), (seen[:3], seen[6:9]), strict=True):
        np.testing.assert_array_equal(frames, np.stack(list(entry.open().frames)))
    left = np.broadcast_to(np.arange(WIDTH) < 20, (HEIGHT, WIDTH)).astype(np.float32)
    results = tiny_evaluate(config, tmp_path / "left", Propagation(0.5, (6, 8), lambda frame, logits: left))
    scores = []
    for video in (entry.open() for entry in eval_entries(config)):
        for name in video.frame_names:
            mask = read_mask(tmp_path / "left" / "masks" / "n" / video.name / f"{name}.png")
            np.testing.assert_array_equal(mask, left > 0.5)
            scores.append(jaccard(left > 0.5, video.target(name)))
    assert results["strategies"]["n"]["J"]["mean"] == pytest.approx(np.mean(scores))


class Knowing(Objective):
    """Brings the level to what is known of the frame's mask."""

    learns_predictions = True

    def label(self, source, frame):
        return jnp.mean(frame["prediction"])

    def sample(self, frame, step, key):
        return frame["label"]

    def loss(self, variables, batch, key):
        return (variables["params"]["level"] - batch) ** 2


def test_predictions_of_a_video_are_learnt_once_they_agree(config, tmp_path):
    """By strategies that take steps; with one that takes none, or alone."""
    problem = dataclasses.replace(PROBLEM, objective=Knowing())
    propagation = Propagation(0.5, (6, 8), lambda frame, logits: 1 / (1 + np.exp(-cv2.resize(
        logits, (WIDTH, HEIGHT)))))
    plain = tiny_evaluate(config, tmp_path / "plain", propagation)
    both = tiny_evaluate(config, tmp_path / "both", propagation, problem)
    assert both["strategies"]["base"] == plain["strategies"]["base"]
    engine = Engine(problem, chunk=2)
    for entry in eval_entries(config):
        video = entry.open()
        pairs = list(frame_pairs(video, range(3), create_flow("dis"), "repeat"))

        class Clip:
            def __len__(self):
                return 3

            def read(self, indices, pairs=pairs):
                image, flow = (np.stack(x) for x in zip(*(pairs[i] for i in indices), strict=True))
                return {"image": image, "flow": flow}

        results = engine.run(VARIABLES, Clip(), SOURCE, jax.random.key(0))
        with propagation.predicted(Clip(), results, lambda video=video: video.frames, tmp_path) as clip:
            known = clip.read(np.arange(3))["prediction"].mean((1, 2))
        record = json.loads((tmp_path / "both" / "videos" / "n" / f"{video.name}.json").read_text())
        found = [record["losses"][name] for name in video.frame_names]
        np.testing.assert_allclose(found, ((0.3 - known) ** 2)[:, None], rtol=1e-4)
    alone = config.copy_and_resolve_references()
    alone.eval.strategies = ("n",)
    assert tiny_evaluate(alone, tmp_path / "alone", propagation, problem)["strategies"]["n"] == (
        both["strategies"]["n"])


def test_a_video_without_annotation_is_passed_over_with_propagation_too(config, tmp_path):
    write_clip(tmp_path / "data", "cat", 4, masks=[2])
    write_clip(tmp_path / "data", "dog", 4, masks=())
    config = folder_config(config, tmp_path / "data", frames="annotated", overlays=True)
    propagation = Propagation(0.9, (HEIGHT // 4, WIDTH // 4), upsample=lambda frame, logits: cv2.resize(
        logits, frame.shape[1::-1]))
    results = tiny_evaluate(config, tmp_path / "out", propagation)
    assert results["strategies"]["n"]["frames"] == 1
    assert [path.name for path in (tmp_path / "out" / "overlays" / "n").iterdir()] == ["cat.mp4"]


def test_curves_and_propagation_exclude_each_other(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.eval.curves, config.propagation = True, 0.5
    with pytest.raises(UserError, match=r"config\.eval\.curves .*propagation=0 and .* not 0\.5 and 0\.0"):
        tiny_evaluate(config, tmp_path)
    config.propagation, config.primary_share = 0.0, 0.2
    with pytest.raises(UserError, match=r"primary_share=0, not 0\.0 and 0\.2"):
        tiny_evaluate(config, tmp_path)


def test_a_failed_run_does_not_claim_the_workdir(config, tmp_path):
    wrong = config.copy_and_resolve_references()
    wrong.init = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="nothing does not exist"):
        evaluate(wrong, tmp_path / "out")
    wrong.init, wrong.eval.strategies = config.init, ("bsae",)
    with pytest.raises(UserError, match=r"config\.eval\.strategies: 'bsae' is not one of"):
        evaluate(wrong, tmp_path / "out")
    wrong.eval.strategies, wrong.eval.corruptions = ("base",), ("fog",)
    with pytest.raises(UserError, match="'fog' is unknown"):
        evaluate(wrong, tmp_path / "out")
    wrong.eval.corruptions, wrong.flow.method = ("contrast",), "files"
    with pytest.raises(UserError, match=r"config\.flow\.method=files: stored flow shows the clean frames"):
        evaluate(wrong, tmp_path / "out")
    wrong.eval.corruptions, wrong.eval.devices = (), 5
    with pytest.raises(UserError, match=r"config\.eval\.devices=5: there are 4 here"):
        evaluate(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_new_weights_in_the_same_place_are_new_settings(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.eval.strategies, config.eval.clips, config.eval.protocol = ("base",), 1, "tmo-fbms"
    config.init = str(tmp_path / "weights")
    (tmp_path / "weights/variables").mkdir(parents=True)
    assert tiny_evaluate(config, tmp_path / "out")["strategies"]["base"]["F"] is None
    shutil.rmtree(config.init)
    (tmp_path / "weights/variables").mkdir(parents=True)
    with pytest.raises(UserError, match=r"config\.init was"):
        tiny_evaluate(config, tmp_path / "out")


def test_a_mask_of_another_size_is_named(config, tmp_path):
    write_clip(tmp_path, "cat", 2, masks=range(2))
    Image.fromarray(np.full((HEIGHT, WIDTH + 1), 255, np.uint8)).save(tmp_path / "masks/cat/00000.png")
    config = folder_config(config, tmp_path, strategies=("base",))
    with pytest.raises(UserError, match=r"masks/cat/00000\.png is 65x48 .*its frame 64x48"):
        tiny_evaluate(config, tmp_path / "out")
    config.eval.protocol = "mtnet-fbms"  # compares at the size of the prediction
    write_clip(tmp_path, "cat", 4, masks=range(1, 4))
    Image.fromarray(np.full((2 * HEIGHT, 2 * WIDTH), 255, np.uint8)).save(tmp_path / "masks/cat/00002.png")
    assert tiny_evaluate(config, tmp_path / "out2")["strategies"]["base"]["frames"] == 2
