"""`--mode=eval` on tiny synthetic clips and on a folder."""

import json
import shutil

import numpy as np
import pytest
from golden_model import random_variables
from PIL import Image

from configs import demo
from dattt_jax.checkpoints import save_variables
from dattt_jax.errors import UserError
from dattt_jax.evaluate import eval_videos, evaluate
from dattt_jax.metrics.boundary import boundary_f
from dattt_jax.metrics.region import jaccard
from input_pipeline.images import read_image_size, read_mask


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = demo.get_config()
    config.input_size = (32, 32)
    config.synthetic.size, config.synthetic.num_frames = (48, 64), 3
    config.model.decoder_features = 8
    config.ttt.steps, config.ttt.batch_size = 1, 2
    config.eval.strategies, config.eval.clips = ("base", "n"), 2
    config.init = str(tmp_path_factory.mktemp("weights"))
    save_variables(config.init, random_variables(config.model), config.model)
    return config


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("eval")
    return workdir, evaluate(config, workdir)


def test_scores_are_those_of_the_masks_on_disk(config, finished):
    workdir, results = finished
    for strategy in ("base", "n"):
        per_video = []
        for video in eval_videos(config):
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
    assert json.loads((workdir / "results.json").read_text()) == json.loads(json.dumps(results))
    assert len((workdir / "results.csv").read_text().splitlines()) == 1 + 2 * (2 + 1)
    assert f"{100 * results['strategies']['n']['J']['mean']:.2f}" in (workdir / "report.html").read_text()
    assert read_image_size(workdir / "strategies.png")[1] > 4 * 64


def test_finished_videos_are_not_run_again_and_missing_ones_are(config, finished):
    workdir, results = finished
    kept = workdir / "videos" / "n"
    first, second = sorted(kept.iterdir())
    before = first.stat().st_mtime_ns
    content = json.loads(second.read_text())
    second.unlink()
    assert evaluate(config, workdir) == results
    assert first.stat().st_mtime_ns == before
    again = json.loads(second.read_text())
    assert {k: again[k] for k in ("frames", "losses")} == {k: content[k] for k in ("frames", "losses")}


def test_a_workdir_of_other_settings_is_refused(config, finished):
    other = config.copy_and_resolve_references()
    other.ttt.learning_rate = 0.5
    with pytest.raises(UserError, match="holds results of other settings"):
        evaluate(other, finished[0])


def test_a_folder_with_sparse_masks(config, tmp_path):
    rng = np.random.default_rng(0)
    for part in ("frames", "masks"):
        (tmp_path / "data" / part / "cat").mkdir(parents=True)
    for t in range(4):
        frame = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(frame).save(tmp_path / "data/frames/cat" / f"{t:05d}.jpg")
    Image.fromarray(np.full((40, 50), 255, np.uint8)).save(tmp_path / "data/masks/cat/00002.png")
    config = config.copy_and_resolve_references()
    config.eval.data, config.eval.strategies = str(tmp_path / "data"), ("base",)
    results = evaluate(config, tmp_path / "out")
    assert results["strategies"]["base"]["frames"] == 1
    assert len(list((tmp_path / "out/masks/base/cat").iterdir())) == 4

    (tmp_path / "data/masks/cat/00002.png").rename(tmp_path / "data/masks/cat/00009.png")
    with pytest.raises(UserError, match=r"00009\.png has no frame"):
        evaluate(config, tmp_path / "out2")
    with pytest.raises(UserError, match="frames does not exist"):
        config.eval.data = str(tmp_path / "nothing")
        evaluate(config, tmp_path / "out3")


def test_corrupted_frames_are_what_the_network_sees(config):
    noisy = config.copy_and_resolve_references()
    noisy.eval.corruption = "gaussian_noise:3"
    clean, corrupted = (next(iter(eval_videos(c))) for c in (config, noisy))
    difference = np.stack(list(corrupted.frames)).astype(float) - np.stack(list(clean.frames))
    assert 20 < difference.std() < 31  # sigma 30, less what clipping takes
    np.testing.assert_array_equal(clean.target("00001"), corrupted.target("00001"))
    noisy.eval.corruption = "gaussian_noise"
    with pytest.raises(UserError, match="give one level"):
        eval_videos(noisy)


def test_curves_end_at_the_reported_scores(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.eval.curves, config.eval.strategies, config.eval.clips = True, ("base", "ltv"), 1
    config.ttt.steps = 2
    results = evaluate(config, tmp_path)
    [(strategy, curves)] = results["curves"].items()
    assert strategy == "ltv"
    for measure in ("J", "F"):
        assert len(curves[measure]) == 2
        assert curves[measure][-1] == pytest.approx(results["strategies"]["ltv"][measure]["mean"])


def test_a_failed_run_does_not_claim_the_workdir(config, tmp_path):
    wrong = config.copy_and_resolve_references()
    wrong.init = str(tmp_path / "nothing")
    with pytest.raises(UserError, match="nothing does not exist"):
        evaluate(wrong, tmp_path / "out")
    wrong.init, wrong.eval.strategies = config.init, ("bsae",)
    with pytest.raises(UserError, match=r"config\.eval\.strategies: 'bsae' is not one of"):
        evaluate(wrong, tmp_path / "out")
    wrong.eval.strategies = ("base",)
    evaluate(wrong, tmp_path / "out")


def test_new_weights_in_the_same_place_are_new_settings(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.eval.strategies, config.eval.clips, config.eval.protocol = ("base",), 1, "tmo-fbms"
    for first in (True, False):
        config.init = str(tmp_path / "weights")
        shutil.rmtree(config.init, ignore_errors=True)
        save_variables(config.init, random_variables(config.model), config.model)
        if first:
            assert evaluate(config, tmp_path / "out")["strategies"]["base"]["F"] is None
    with pytest.raises(UserError, match=r"config\.init was"):
        evaluate(config, tmp_path / "out")


def test_a_mask_of_another_size_is_named(config, tmp_path):
    for part, size in (("frames", (40, 50)), ("masks", (40, 51))):
        (tmp_path / part / "cat").mkdir(parents=True)
        for t in range(2):
            shape = (*size, 3) if part == "frames" else size
            Image.fromarray(np.full(shape, 255, np.uint8)).save(tmp_path / part / "cat" / f"{t}.png")
    config = config.copy_and_resolve_references()
    config.eval.data, config.eval.strategies = str(tmp_path), ("base",)
    with pytest.raises(UserError, match=r"masks/cat/0\.png is 51x40"):
        evaluate(config, tmp_path / "out")
