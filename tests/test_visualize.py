"""Overlays, contact sheets and curves."""

import os

import numpy as np
import pytest
from PIL import Image

from dattt_jax.visualize import contact_sheet, overlay, plot_curves, save_image


def test_overlay_tints_inside_and_draws_both_sides_of_the_border():
    frame = np.full((20, 30, 3), 100, np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:15, 8:22] = True
    image = overlay(frame, mask, color=(200, 0, 50), alpha=0.25)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[6:14, 9:21],
                                  np.broadcast_to([125, 75, 88], (8, 12, 3)))  # 87.5 to even
    for side in (image[5, 8:22], image[14, 8:22], image[5:15, 8], image[5:15, 21]):
        assert (side == [200, 0, 50]).all()
    for side in (image[4, 8:22], image[15, 8:22], image[5:15, 7], image[5:15, 22]):
        assert (side == 255).all()
    untouched = np.ones((20, 30), bool)
    untouched[4:16, 7:23] = False
    assert (image[untouched] == 100).all()
    assert (frame == 100).all()


def test_overlay_draws_no_line_where_the_frame_cuts_the_object():
    frame = np.zeros((20, 20, 3), np.uint8)
    image = overlay(frame, np.ones((20, 20), bool), color=(200, 100, 0), alpha=0.5)
    assert (image == [100, 50, 0]).all()
    np.testing.assert_array_equal(overlay(frame, np.zeros((20, 20), bool)), frame)


def test_overlay_line_grows_with_the_frame():
    frame = np.zeros((960, 40, 3), np.uint8)
    mask = np.zeros((960, 40), bool)
    mask[480:] = True
    assert (overlay(frame, mask) == 255).all(-1)[:, 20].sum() == 1
    wide = np.zeros((960, 960, 3), np.uint8)
    assert (overlay(wide, mask[:, :1].repeat(960, 1)) == 255).all(-1)[:, 20].sum() == 4


def test_contact_sheet_places_scaled_images_under_their_labels():
    red, blue = (np.full((10, 20, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    grey = np.full((40, 40), 128, np.uint8)
    sheet = contact_sheet([[red, blue], [grey]], ["first", "second row"], ["a", "b"],
                          cell_height=40)
    counts = {color: (sheet == color).all(-1).sum()
              for color in ((255, 0, 0), (0, 0, 255), (128, 128, 128))}
    assert counts[(255, 0, 0)] == counts[(0, 0, 255)] == 40 * 80
    assert counts[(128, 128, 128)] >= 40 * 40

    def box(color):
        rows, columns = np.nonzero((sheet == color).all(-1))
        return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1

    red_box, blue_box = box((255, 0, 0)), box((0, 0, 255))
    assert red_box[:2] == blue_box[:2] and red_box[3] + 8 == blue_box[2]
    below = sheet[red_box[1] + 8:red_box[1] + 48, red_box[2]:red_box[2] + 40]
    assert (below == 128).all()
    dark = (sheet < 100).all(-1)
    assert dark[:red_box[0], red_box[2]:red_box[3]].any()  # "a"
    assert dark[:red_box[0], blue_box[2]:blue_box[3]].any()  # "b"
    assert dark[red_box[0]:red_box[1], :red_box[2]].any()  # "first"
    assert dark[red_box[1] + 8:, :red_box[2]].any()  # "second row"


def test_contact_sheet_makes_room_for_a_long_column_label():
    image = np.zeros((20, 20, 3), np.uint8)
    short = contact_sheet([[image, image]], ["r"], ["a", "b"], cell_height=20)
    long = contact_sheet([[image, image]], ["r"], ["a", "a rather long label"], cell_height=20)
    assert long.shape[1] > short.shape[1] + 80


def test_contact_sheet_wants_a_label_for_each():
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="1 row and 1 column labels for 1 rows and 2 columns"):
        contact_sheet([[image, image]], ["r"], ["a"])


def test_save_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (12, 14, 3), np.uint8)
    save_image(tmp_path / "new" / "a.png", image)
    with Image.open(tmp_path / "new" / "a.png") as stored:
        np.testing.assert_array_equal(stored, image)
    assert os.listdir(tmp_path / "new") == ["a.png"]


def test_plot_curves(tmp_path):
    curves = {"entropy": ([0, 1, 2], [3.0, 2.0, float("nan")]), "depth": ([0, 1], [1, 2])}
    plot_curves(tmp_path / "a.png", curves, "step", "loss", "bear")
    plot_curves(tmp_path / "none.png", {}, "step", "loss", "bear")

    def drawn(name):
        with Image.open(tmp_path / name) as image:
            rgb = np.asarray(image.convert("RGB")).astype(int)
        return {color: (abs(rgb - color).max(-1) < 8).sum()
                for color in ((31, 119, 180), (255, 127, 14))}  # matplotlib's first two colours

    assert min(drawn("a.png").values()) > 300
    assert max(drawn("none.png").values()) == 0
    assert sorted(os.listdir(tmp_path)) == ["a.png", "none.png"]
