"""Weights and image pairs fed to the RAFT reference. NumPy only; recipe.py is beside it.

Names are torch state-dict names WITHOUT the leading 'module.', shapes are torch shapes (O,I,kh,kw).
"""
import numpy as np
from golden import recipe

GAIN = {'update_block.encoder.convc1.weight': 4.0,      # makes the correlation matter
        'update_block.flow_head.conv2.weight': 0.5,     # keeps 12 iterations inside the image, roughly
        'update_block.flow_head.conv2.bias': 0.0,
        'update_block.mask.2.weight': 8.0}              # large only: makes the softmax far from uniform

SIZES = {'184x248': [(3, -2)], '128x160': [(-5, 4), (2, 6)]}   # (dx, dy) of each batch element


def weight(name, shape, seed=0):
    """Value of one state-dict entry. 'norm3' is another name of 'downsample.1' (same tensor): same value."""
    src = name.replace('.norm3.', '.downsample.1.')
    a = recipe.fill(src, shape, seed)
    if a.dtype == np.float32:
        a = (a * np.float32(GAIN.get(src, 1.0))).astype(np.float32)
    return a


def pair(h, w, dx, dy, k=0, pad=16):
    """uint8 (h,w,3) RGB x 2; the content of frame 2 is that of frame 1 moved by (+dx right, +dy down), plus noise."""
    name = 'raft/a/%dx%d/%d' % (h, w, k)
    big = recipe.frame(name, h + 2 * pad, w + 2 * pad)
    one = big[pad:pad + h, pad:pad + w]
    two = big[pad - dy:pad - dy + h, pad - dx:pad - dx + w].astype(np.int64)
    z = recipe.rng('raft_noise/' + name).randint(-4, 5, (h, w, 3))
    return np.ascontiguousarray(one), np.clip(two + z, 0, 255).astype(np.uint8)


def batch(size):
    """'184x248' -> (1,184,248,3) x 2 ; '128x160' -> (2,128,160,3) x 2 (uint8)"""
    h, w = map(int, size.split('x'))
    p = [pair(h, w, dx, dy, k) for k, (dx, dy) in enumerate(SIZES[size])]
    return np.stack([a for a, _ in p]), np.stack([b for _, b in p])


def flow_init(shape=(2, 2, 16, 20)):
    """(n,2,h/8,w/8) float32, for the warm-start test at 128x160"""
    return (np.float32(2) * recipe.field('raft/flow_init', shape, cell=4)).astype(np.float32)


def unit_lookup(r):
    """f1, f2 (1,64,17,23) float32 and absolute (x,y) coords (1,2,17,23) reaching 6 cells outside the map"""
    f1 = recipe.field('raft/unit/f1', (1, 64, 17, 23), cell=4)
    f2 = recipe.field('raft/unit/f2', (1, 64, 17, 23), cell=4)
    u = recipe.rng('raft/unit/coords/r%d' % r).random_sample((1, 2, 17, 23))
    lo, hi = -6.0, np.array([23 + 5.0, 17 + 5.0])[None, :, None, None]
    return f1, f2, (lo + u * (hi - lo)).astype(np.float32)


def unit_upsample():
    """flow (1,2,5,7), mask (1,576,5,7) AFTER the 0.25 factor"""
    flow = recipe.rng('raft/unit/flow').standard_normal((1, 2, 5, 7)).astype(np.float32)
    mask = (2.0 * recipe.rng('raft/unit/mask').standard_normal((1, 576, 5, 7))).astype(np.float32)
    return flow, mask
