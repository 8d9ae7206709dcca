"""Weights and images fed to the depth references (Lite-Mono, MonoDepth2). NumPy only; recipe.py is beside it.

Names are torch state-dict names, shapes are torch shapes. Encoder and decoder are two separate state dicts.
"""
import numpy as np
from golden import recipe

GAIN = {'temperature': 4.0}      # Lite-Mono attention: makes the softmax far from uniform. Matched by name ending.


def weight(name, shape, seed=0):
    a = recipe.fill(name, shape, seed)
    if a.dtype == np.float32:
        for suffix, g in GAIN.items():
            if name.endswith(suffix):
                a = (a * np.float32(g)).astype(np.float32)
    return a


def images(h, w, n):
    """uint8 (n,h,w,3) RGB"""
    return np.stack([recipe.frame('depth/%dx%d/%d' % (h, w, k), h, w) for k in range(n)])


def batch(size):
    """'192x640' -> n=1 ; '96x320' -> n=2. float32 (n,h,w,3) in [0,1] is images / float32(255)."""
    h, w = map(int, size.split('x'))
    return images(h, w, 1 if size == '192x640' else 2)
