"""Comparisons with the authors' numbers; the largest error of each kind is printed after the tests."""

import numpy as np

LARGEST = {}  # what -> (largest error, 'abs' or 'rel')


def remember(what, error, kind):
    """Keeps the largest error of a kind."""
    LARGEST[what] = (max(error, LARGEST.get(what, (0.0, kind))[0]), kind)


def check(what, ours, reference, *, atol=0.0, rtol=0.0):
    """Asserts that `ours` is within `atol` (or, relatively, `rtol`) and remembers how close it is."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    error = np.abs(ours - reference)
    if rtol:
        error = error / np.abs(reference)
    worst = float(error.max())
    kind = "rel" if rtol else "abs"
    remember(what, worst, kind)
    assert worst <= (rtol or atol), f"{what}: {kind} error {worst:.3g}"
