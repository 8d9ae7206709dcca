"""The primary object among what masks show: what there is most of over the whole video. Not in the paper.

What moves by the way (a passer-by, leaves, parallax) is a piece of mask of its own in some frames. The pieces
of all frames that are one thing make a tube: pieces of neighbouring frames belong together where much of the
smaller one lies, moved along optical flow, in the other. A tube's size is its number of places in all frames.
In each frame the piece of the largest tube stays, with those whose tube is at least
`config.primary_share` of it; what is left out of a frame is never all that it shows.

The idea is that of spatio-temporal connected components, as in Xu and Corso, "Evaluation of super-voxel
methods for early video processing", CVPR 2012, of masks instead of colours.
"""

import cv2
import numpy as np

_OVERLAP = 0.3  # of the smaller of two pieces, in places, by which they are one thing
_OUTSIDE = -3.0  # most that a logit is where a piece was taken away
_FRINGE = 2  # places around such a piece that go with it
_KEPT = 1  # places around a piece that stays, which stay


class Tubes:
    """Gathers the masks of a video's frames, in order; knows after the last which pieces stay.

    Args:
        share: of the largest tube of a frame below which a tube is left out, in 0..1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._parent: list[int] = []  # of every piece, towards the one that stands for its tube
        self._size: list[int] = []  # places of every piece; of a whole tube, where it stands for one
        self._first: list[int] = []  # number of each frame's first piece
        self._before: np.ndarray | None = None  # pieces of the last frame

    def add(self, logits: np.ndarray, motion: np.ndarray | None = None) -> None:
        """Takes the next frame.

        Args:
            logits: float [h, w] of its mask.
            motion: from the frame before it to this one, [h, w, 2 or more]: (dx, dy) in places; None for the
                first frame.
        """
        count, pieces = _pieces(logits)
        first = len(self._parent)
        self._first.append(first)
        self._parent += range(first, first + count)
        self._size += np.bincount(pieces.ravel(), minlength=count + 1)[1:].tolist()
        if motion is not None:
            self._connect(self._before, self._first[-2], pieces, first, motion)
        self._before = pieces

    def primary(self, frame: int, logits: np.ndarray) -> np.ndarray:
        """The logits [h, w] that frame `frame` was added with, lowered where they show what does not stay."""
        count, pieces = _pieces(logits)
        if count < 2:
            return logits
        first = self._first[frame]
        sizes = np.array([self._size[self._root(first + i)] for i in range(count)])
        stays = np.concatenate([[False], sizes >= self._share * sizes.max()])
        kept = stays[pieces]
        gone = (pieces > 0) & ~kept
        near = _widened(gone, _FRINGE) & ~_widened(kept, _KEPT)
        return np.where(near, np.minimum(logits, _OUTSIDE), logits)

    def _connect(self, before: np.ndarray, first_before: int, pieces: np.ndarray, first: int,
                 motion: np.ndarray) -> None:
        """Makes one tube of those of pieces, before and now, that overlap."""
        height, width = pieces.shape
        rows, columns = np.nonzero(before)
        there = [np.clip(np.rint(places + motion[rows, columns, axis]).astype(int), 0, side - 1)
                 for places, axis, side in ((rows, 1, height), (columns, 0, width))]
        pairs = np.stack([before[rows, columns], pieces[tuple(there)]])
        sizes = [np.bincount(labels.ravel()) for labels in (before, pieces)]
        found, overlaps = np.unique(pairs[:, pairs[1] > 0], axis=1, return_counts=True)
        for old, new, overlap in zip(*found.tolist(), overlaps.tolist(), strict=True):
            if overlap >= _OVERLAP * min(sizes[0][old], sizes[1][new]):
                one, other = self._root(first_before + old - 1), self._root(first + new - 1)
                if one != other:
                    self._parent[one] = other
                    self._size[other] += self._size[one]

    def _root(self, piece: int) -> int:
        """The piece that stands for the tube of `piece`."""
        while self._parent[piece] != piece:
            self._parent[piece] = self._parent[self._parent[piece]]
            piece = self._parent[piece]
        return piece


def _pieces(logits: np.ndarray) -> tuple[int, np.ndarray]:
    """How many connected pieces a mask has, and the number of each place's, from 1; 0 outside."""
    count, labels = cv2.connectedComponents((logits > 0).astype(np.uint8), connectivity=8)
    return count - 1, labels


def _widened(mask: np.ndarray, by: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)).astype(bool)
