"""Pictures for people: mask overlays, contact sheets and curves."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from input_pipeline.writers import write_bytes, write_image

_MARGIN = 8  # pixels between the cells of a contact sheet
_TEXT_SIZE = 16


def overlay(frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int] = (255, 40, 40),
            alpha: float = 0.45) -> np.ndarray:
    """Draws a mask over its frame: a tint inside, and a line along its border.

    The line has two sides, `color` within the object and white around it, so that one of them
    stands out whatever the background is. There is no line where the frame cuts the object.

    Args:
        frame: `[H, W, 3]` uint8 RGB.
        mask: `[H, W]` bool.
        color: RGB, 0..255.
        alpha: strength of the tint, 0 (none) to 1 (solid).

    Returns:
        `[H, W, 3]` uint8 RGB, a new image.
    """
    mask = np.asarray(mask, bool)
    line = max(1, round(min(mask.shape) / 240))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * line + 1, 2 * line + 1))
    within = cv2.erode(mask.astype(np.uint8), disc).astype(bool)
    around = cv2.dilate(mask.astype(np.uint8), disc).astype(bool)

    image = frame.copy()
    tinted = (1 - alpha) * frame[mask] + alpha * np.array(color, np.float32)
    image[mask] = np.rint(tinted).astype(np.uint8)
    image[mask & ~within] = color
    image[around & ~mask] = 255
    return image


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], row_labels: Sequence[str],
                  column_labels: Sequence[str], cell_height: int = 160) -> np.ndarray:
    """Lays images out as a table with labels.

    Args:
        rows: the images of each row, `[H, W, 3]` uint8 RGB or `[H, W]` uint8 grey, of any sizes.
            Each is scaled to `cell_height`. A row may be shorter than others.
        row_labels: one for each row, written on its left.
        column_labels: one for each column, written above it.
        cell_height: height of every image in pixels.

    Returns:
        `[h, w, 3]` uint8 RGB, dark text on white.

    Raises:
        ValueError: the labels are not as many as the rows and the columns.
    """
    columns = max(len(row) for row in rows)
    if len(row_labels) != len(rows) or len(column_labels) != columns:
        raise ValueError(f"{len(row_labels)} row and {len(column_labels)} column labels for "
                         f"{len(rows)} rows and {columns} columns")
    font = ImageFont.load_default(_TEXT_SIZE)
    cells = [[_fit_height(image, cell_height) for image in row] for row in rows]
    widths = [max([round(font.getlength(label)) + 1]
                  + [row[column].width for row in cells if column < len(row)])
              for column, label in enumerate(column_labels)]
    left = 2 * _MARGIN + max(round(font.getlength(label)) + 1 for label in row_labels)
    top = 2 * _MARGIN + _TEXT_SIZE
    lefts = left + np.cumsum([0] + [width + _MARGIN for width in widths])

    sheet = Image.new("RGB", (int(lefts[-1]), top + len(rows) * (cell_height + _MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, width, label in zip(lefts, widths, column_labels, strict=False):
        draw.text((x + width // 2, top // 2), label, "black", font, anchor="mm")
    for index, (row, label) in enumerate(zip(cells, row_labels, strict=True)):
        y = top + index * (cell_height + _MARGIN)
        draw.text((_MARGIN, y + cell_height // 2), label, "black", font, anchor="lm")
        for x, cell in zip(lefts, row, strict=False):
            sheet.paste(cell, (int(x), y))
    return np.array(sheet)


def _fit_height(image: np.ndarray, height: int) -> Image.Image:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return Image.fromarray(image).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def save_image(path: Path | str, image: np.ndarray) -> None:
    """Writes an image in the format of the file's suffix, atomically.

    Args:
        path: the file, for example `.png` or `.jpg`; its folder is made.
        image: `[H, W, 3]` uint8 RGB or `[H, W]` uint8 grey.

    Raises:
        UserError: the disk is full.
    """
    write_image(path, image)


def plot_curves(path: Path | str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
                xlabel: str, ylabel: str, title: str) -> None:
    """Draws curves into one PNG with a legend, atomically.

    Args:
        path: the `.png` file; its folder is made.
        curves: (x, y) by name, drawn in this order; a NaN leaves a gap.
        xlabel: the horizontal axis, with its unit.
        ylabel: the vertical axis, with its unit.
        title: the title.

    Raises:
        UserError: the disk is full.
    """
    from matplotlib.figure import Figure  # 0.7 s and 24 MiB, which modes that draw no curves are spared

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name, marker="." if len(x) < 50 else None)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=110)
    write_bytes(path, encoded.getvalue())
