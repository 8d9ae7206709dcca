"""Validation during training."""

import numpy as np
import pytest
import tiny

from dattt_jax.models import create_model
from dattt_jax.validation import Validation, threshold_flow

pytestmark = pytest.mark.usefixtures("tiny_backbone")


class Squares:
    """Sample i has a square of 8 × 8 pixels that moves unlike the rest, and the mask of it from 4 + i on."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        flow = np.full((32, 32, 3), 250, np.uint8)
        flow[4:12, 4:12] = (200, 30, 10)
        mask = np.zeros((32, 32, 1), np.uint8)
        mask[4:12, 4 + index : 12] = 1
        return {"image": np.zeros((32, 32, 3), np.uint8), "flow": flow, "mask": mask}


def make(num_samples, batch_size):
    config = tiny.tiny_config()
    return config, Validation(create_model(config.model), Squares(), num_samples=num_samples,
                              batch_size=batch_size)


def test_flow_alone_scores_what_moves_unlike_the_rest():
    _, validation = make(5, 2)
    # The square is found exactly: J is (8 - i) / 8 on sample i.
    assert validation.flow_threshold()["J"] == pytest.approx(np.mean([8, 7, 6, 5, 4]) / 8)
    np.testing.assert_array_equal(threshold_flow(np.full((4, 4, 3), 9, np.uint8)), np.zeros((4, 4), bool))


def test_network_is_scored_on_samples_spread_over_the_source():
    config, validation = make(3, 2)  # samples 0, 2 and 4; the second batch is filled up
    assert validation.num_samples == 3
    everything, nothing = tiny.filled(config.model), tiny.filled(config.model)
    for variables, bias in ((everything, 1e3), (nothing, -1e3)):
        variables["params"]["decode_head"]["vos_head"]["linear_pred"]["bias"][:] = bias
    scores = validation(everything)
    assert scores["J"] == pytest.approx(np.mean([64, 48, 32]) / 1024)
    assert scores["JF"] == pytest.approx((scores["J"] + scores["F"]) / 2)
    assert validation(nothing) == {"J": 0, "F": 0, "JF": 0}
