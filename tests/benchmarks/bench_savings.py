"""What each exact saving gains: the plain form beside ours, in turns, in one process.

    python tests/benchmarks/bench_savings.py [--size=512] [--batch=2] [--rounds=3] [--out=FILE]

MiT-b1. Every pair gives the same numbers up to rounding, which is checked before the clock starts, and
differs by one saving alone:

    fuse            the decoder, forward and input gradient: the 1×1 convolution on four upsampled maps, or on
                    each scale at its own resolution
    fold            the same, linear layers and convolution one after the other, or multiplied into one
    modulate        the mask decoder, forward and gradients: modulation of the two branches' concatenation, or
                    the layer's halves folded with the linear layers that make the branches
    flow            a prediction after a step: flow features computed anew, or known from the frame's first
    predictions     a gradient step that is not the frame's last: with a prediction after it, or without
    frozen          the decoder, forward and backward: with the gradients of its weights, or without
    views           a gradient step: an encoder call per view, or one for both

On a CPU the encoder takes a few images at a time whatever the calls (`models/encode.py`), so that one call
for both views saves compilation there rather than time. Prints, and with --out writes, JSON: medians over
`--rounds`, operations by XLA's own count, seconds of compilation.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from machine import describe
from measure_ours import Video, count

from configs import base
from dattt_jax.host_memory import start_with_huge_pages, trim_around_compiling
from dattt_jax.image_ops import upsample_bilinear
from dattt_jax.models import create_model
from dattt_jax.models.decoder import SegFormerHead
from dattt_jax.models.encode import encode_image, images_per_call
from dattt_jax.models.mit import MIT_SIZES
from dattt_jax.models.modulation import DepthAwareHead
from dattt_jax.ttt import adapt_step, fresh_state
from dattt_jax.ttt.objectives.depth_consistency import DepthConsistency
from dattt_jax.ttt.task import Task
from dattt_jax.variables import random_variables

BACKBONE = "mit_b1"
_TOLERANCE = 1e-3  # of the norm; rounding in float32 leaves 1e-5


class PublishedHead(SegFormerHead):
    """The decoder as its paper writes it, with the same variables: upsample, concatenate, convolve."""

    def __call__(self, features, *, train):
        first, *others = self.project(features)
        upsampled = [first, *(upsample_bilinear(x, first.shape[1:3]) for x in others)]
        fused = self.linear_fuse.conv(jnp.concatenate(upsampled[::-1], axis=-1))
        return self.linear_pred(self.linear_fuse(fused, train=train))


class UnfoldedHead(SegFormerHead):
    """The decoder with the convolution per scale and the linear layers before it."""

    def __call__(self, features, *, train):
        return self.predict(self.fuse(self.project(features)), train=train)


class ConcatenatingHead(DepthAwareHead):
    """The two decoders with the modulation as its paper writes it, of both branches' concatenation."""

    def _of_both(self, name, scale, image, fused, mask):
        depth = getattr(self.depth_head, f"linear_c{scale}")(image)
        return getattr(self, name)(jnp.concatenate([depth, mask], axis=-1))


class Program:
    """A compiled function, the seconds that took, and its operations."""

    def __init__(self, function, *arguments):
        start = time.perf_counter()
        self._run = jax.jit(function).lower(*arguments).compile()
        self.compile_s = time.perf_counter() - start
        # Another function object, or the trace would be the one above, with its images in pieces.
        self.flops = count(partial(function), *arguments)

    def __call__(self, *arguments):
        return self._run(*arguments)


@dataclasses.dataclass(frozen=True)
class Form:
    """One side: `work` runs it and gives trees that must equal the other's; `programs` is what that calls."""

    work: Callable[[], tuple]
    programs: tuple[Program, ...]


def feature_maps(batch, size):
    """Four maps at strides 4, …, 32, [batch, h_i, w_i, C_i], random."""
    channels = MIT_SIZES[BACKBONE].dims
    return [jax.random.normal(key, (batch, size // stride, size // stride, width)) for key, stride, width
            in zip(jax.random.split(jax.random.key(0), len(channels)), (4, 8, 16, 32), channels, strict=True)]


def decoder_savings(batch, size):
    """{saving: (plain, ours)} of fuse, fold and frozen."""
    channels, maps = MIT_SIZES[BACKBONE].dims, feature_maps(batch, size)
    variables = SegFormerHead(channels).init(jax.random.key(1), maps, train=False)
    weight = jax.random.normal(jax.random.key(2), (batch, size // 4, size // 4, 1))

    def form(head, wanted):
        """Loss and gradients with respect to the arguments `wanted`; the features' are the last."""
        def loss(params, maps):
            return jnp.vdot(head.apply({**variables, "params": params}, maps, train=True), weight)

        program = Program(jax.value_and_grad(loss, wanted), variables["params"], maps)

        def work():
            value, gradients = program(variables["params"], maps)
            return value, gradients[-1]

        return Form(work, (program,))

    ours, unfolded = form(SegFormerHead(channels), (1,)), form(UnfoldedHead(channels), (1,))
    return {"fuse": (form(PublishedHead(channels), (1,)), unfolded), "fold": (unfolded, ours),
            "frozen": (form(SegFormerHead(channels), (0, 1)), ours)}


def modulation_saving(batch, size):
    """{saving: (plain, ours)} of modulate."""
    channels, maps = MIT_SIZES[BACKBONE].dims, feature_maps(batch, size)
    ours, plain = (head(channels, base.get_config().model.modulation)
                   for head in (DepthAwareHead, ConcatenatingHead))
    variables = ours.init(jax.random.key(1), maps, maps, method=ours.fuse_mask)
    weight = jax.random.normal(jax.random.key(2), (*maps[0].shape[:-1], ours.features))

    def form(head):
        def loss(params, image, fused):
            return jnp.vdot(head.apply({"params": params}, image, fused, method=head.fuse_mask), weight)

        program = Program(jax.value_and_grad(loss, (0, 1, 2)), variables["params"], maps, maps)
        return Form(lambda: program(variables["params"], maps, maps), (program,))

    return {"modulate": (form(plain), form(ours))}


def view_by_view(model, variables, views, key):
    """`forward.depth_of_views` with an encoder call for each view, and the same drop-path coins."""
    def depth(images, keys):
        features = encode_image(model, variables, images, train=True, keys=keys,
                                at_once=images_per_call(*images.shape[1:3]))
        return model.apply(variables, features, train=True, method=model.depth_logits)

    keys = jax.random.split(key, views.shape[:2])
    return jnp.stack([depth(*view) for view in zip(views, keys, strict=True)])


def step_savings(batch, size):
    """{saving: (plain, ours)} of flow, predictions and views."""
    config = base.get_config()
    config.model.backbone = BACKBONE
    model = create_model(config.model)
    task = Task(model, (size, size), batch)
    variables = jax.tree.map(jnp.asarray, random_variables(config.model, 0))
    frame = jax.tree.map(jnp.asarray, Video(1).frame())

    # A program of its own: where two calls use the views, XLA computes some of what makes them twice.
    augment = Program(task.views, jax.random.key(0), frame)

    def problem_with(depth_logits):
        return task.problem(DepthConsistency(lambda _, frame: frame["views"], depth_logits),
                            config.ttt.learning_rate)

    def step_of(problem):
        """A step that gives its loss and its gradients, which are Adam's first moments but for a factor."""
        start, key = fresh_state(problem, variables), jax.random.key(0)
        program = Program(partial(adapt_step, problem), *start, {"views": augment(key, frame)}, jnp.int32(0),
                          key)

        def work():
            views = augment(key, frame)
            state, (loss, _) = program(*start, {"views": views}, jnp.int32(0), key)
            return loss, optax.tree.get(state.opt_state, "mu")

        return Form(work, (augment, program))

    problem = problem_with(task.depth_logits)
    step = step_of(problem)
    encode_flow = Program(problem.context, variables, frame)
    features = encode_flow(variables, frame)
    predict = Program(problem.predict, variables, frame, features)

    def step_and_prediction():
        result = step.work()
        predict(variables, frame, features).block_until_ready()
        return result

    known = Form(lambda: (predict(variables, frame, features),), (predict,))
    anew = Form(lambda: (predict(variables, frame, encode_flow(variables, frame)),), (encode_flow, predict))
    return {"flow": (anew, known),
            "predictions": (Form(step_and_prediction, (*step.programs, predict)), step),
            "views": (step_of(problem_with(partial(view_by_view, model))), step)}


def difference(plain, ours):
    """Norm of the difference over the norm, for the tree where that is largest.

    Over whole trees: some gradients are zero but for rounding, as those of the biases of attention's keys.
    """
    norms = [(optax.tree.norm(optax.tree.sub(a, b)), optax.tree.norm(b))
             for a, b in zip(plain, ours, strict=True)]
    return max(float(difference / norm) for difference, norm in norms)


def seconds(work):
    """Time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def measure(name, forms, rounds):
    """One saving: both forms in turns, medians and their ratio."""
    error = difference(*(form.work() for form in forms))  # also the call that warms up
    if not error <= _TOLERANCE:
        sys.exit(f"{name}: the two forms differ by {error:.1e} of the norm")
    times = [[seconds(form.work) for form in forms] for _ in range(rounds)]
    row = {"difference": float(f"{error:.2g}")}
    for side, form, found in zip(("plain", "ours"), forms, zip(*times, strict=True), strict=True):
        row[side] = {"median_s": statistics.median(found), "seconds": found,
                     "flops": sum(program.flops for program in form.programs),
                     "compile_s": sum(program.compile_s for program in form.programs)}
    row["ratio"] = row["plain"]["median_s"] / row["ours"]["median_s"]
    print(f"{name:12s} plain {row['plain']['median_s']:8.4f} s  ours {row['ours']['median_s']:8.4f} s  "
          f"ratio {row['ratio']:.3f}  GFLOP {row['plain']['flops'] / 1e9:.4g} and "
          f"{row['ours']['flops'] / 1e9:.4g}  difference {error:.1e}", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width the network sees")
    parser.add_argument("--batch", type=int, default=2, help="crops per step; the paper's 8 takes a while")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="", help="the JSON file to write")
    options = parser.parse_args()

    trim_around_compiling()
    report = {"benchmark": "savings", "machine": describe(),
              "settings": {"backbone": BACKBONE, "size": options.size, "batch": options.batch,
                           "rounds": options.rounds, "device": jax.devices()[0].device_kind}, "savings": {}}
    for savings in (decoder_savings, modulation_saving, step_savings):
        for name, forms in savings(options.batch, options.size).items():
            report["savings"][name] = measure(name, forms, options.rounds)
    print(json.dumps(report, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    start_with_huge_pages()
    main()
