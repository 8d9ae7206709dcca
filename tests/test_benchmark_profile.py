"""Where the time of a step goes: operations, their kinds, and the shares of a real profile."""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import make_tables
from bench_profile import kinds_of, shares

BENCHMARKS = Path(__file__).parent / "benchmarks"
DUMP = """\
HloModule jit_step, is_scheduled=true

%fused (p.0: f32[8,8], p.1: f32[8,8]) -> f32[8,8] {
  %p.0 = f32[8,8]{1,0} parameter(0)
  %p.1 = f32[8,8]{1,0} parameter(1)
  ROOT %dot.3 = f32[8,8]{1,0} dot(%p.0, %p.1), metadata={op_name="jit(step)/transpose(jvp())/mlp/fc1/dot"}
}

ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %fusion.1 = f32[8,8]{1,0} fusion(%a, %a), kind=kCustom, calls=%fused
  %erf.2 = f32[8,8]{1,0} erf(%fusion.1), metadata={op_name="jit(step)/block1_0/mlp/jvp()/erf"}
  %mul.3 = f32[8,8]{1,0} multiply(%erf.2, %a), metadata={op_name="jit(step)/transpose(jvp())/mlp/dwconv/mul"}
  ROOT %while.4 = f32[8,8]{1,0} while(%mul.3), metadata={op_name="jit(step)/while"}
}
"""
CHILD = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp
from bench_profile import profile

def loss(x):
    with jax.named_scope("encoder"), jax.named_scope("norm1"):
        x = jnp.sort(x, 0)
    return jnp.sum(jnp.tanh(x @ x))

step, x = jax.jit(jax.grad(loss)), jnp.ones((256, 256))
work = lambda: step(x).block_until_ready()
work()
print(json.dumps(profile(work, Path(sys.argv[1]))))
"""


def test_an_operation_is_of_the_kind_that_its_name_says_unless_it_has_a_product():
    kinds = kinds_of(DUMP)
    assert {name: kinds[name] for name in ("fusion.1", "erf.2", "mul.3", "a")} == {
        "fusion.1": ("matrix products", True), "erf.2": ("GELU and biases", False),
        "mul.3": ("depthwise convolutions", True), "a": ("the rest", False)}


def test_shares_add_up_what_belongs_to_known_programs_but_loops():
    def event(operation, microseconds, program="jit_step"):
        return {"ph": "X", "dur": microseconds, "args": {"hlo_op": operation, "hlo_module": program}}

    events = [event("erf.2", 2e6), event("fusion.1", 3e6), event("erf.2", 0.5e6), event("while.4", 9e6),
              event("erf.2", 7e6, "jit_other"), {"ph": "M"}, {"ph": "X", "dur": 1e6, "name": "python"}]
    found = shares(events, {"jit_step": kinds_of(DUMP)})
    assert list(found.items()) == [("matrix products", {"forward": 0.0, "backward": 3.0}),
                                   ("GELU and biases", {"forward": 2.5, "backward": 0.0})]
    machine = {"cpu": "Some CPU", "cores": 2, "load_at_start": [0.5], "versions": {"jax": "0.10.2"}}
    report = {"machine": machine, "seconds": 3.0, "operations_s": 5.5, "kinds": found, "settings": {
        "what": "ttt_step", "backbone": "mit_b1", "size": 512, "batch": 8, "device": "cpu"}}
    text, table = make_tables.profile(report)
    assert text.endswith("shares of the 5.5 s that the operations take, beside each other, in one call of "
                         "3 s:")
    assert table.splitlines()[2:] == ["| matrix products | 0% | 55% |", "| GELU and biases | 45% | 0% |"]


def test_a_profile_of_a_real_program(tmp_path):
    environment = os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "PYTHONPATH": f"{BENCHMARKS}:."}
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path], env=environment, capture_output=True,
                          text=True, check=True, cwd=BENCHMARKS.parents[1])
    seconds, found = json.loads(done.stdout)
    assert found["matrix products"]["forward"] > 0
    assert found["matrix products"]["backward"] > 0
    assert found["normalisation"]["forward"] > 0
    assert 0 < sum(sum(row.values()) for row in found.values()) <= seconds * os.cpu_count()
