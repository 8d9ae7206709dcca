"""The README's tables of speed are those that the measured JSON files give."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import make_tables

MACHINE = {"cpu": "Some CPU", "cores": 4, "memory_gib": 16.0, "load_at_start": [0.1, 0.2, 0.3],
           "versions": {"python": "3.11.7", "jax": "0.10.2", "torch": "2.13.0"}}
COMPARE = {
    "benchmark": "compare", "machine": MACHINE,
    "settings": {"backbone": "mit_b1", "size": 512, "batch": 8, "frames": 2, "steps": 2, "device": "cpu",
                 "rounds": 3, "sides": ["ours", "torch"]},
    "measurements": {"ttt_step": {
        "ours": {"device": "cpu", "median_s": 5.0, "seconds": [[5.0]], "peak_gib": 3.5,
                 "start_up_s": [10.0, 2.0, 1.5], "matmul_flops_per_s": 4e11, "flops": 1e12,
                 "share_of_matmul_peak": 0.5},
        "torch": {"device": "cpu", "median_s": 12.5, "seconds": [[12.5]], "peak_gib": 9.6,
                  "start_up_s": [0.0], "matmul_flops_per_s": 4e11, "times_first": 2.5}},
        "flow": {"ours": {"device": "cpu", "median_s": 0.5, "seconds": [[0.5]], "peak_gib": 1.0,
                          "start_up_s": [3.0]},
                 "torch": {"skipped": "torchvision is not installed"}}},
}
LONG = {"benchmark": "long_video", "machine": MACHINE, "runs": {"mwi": [
    {"frames": 100, "peak_gib": 1.5, "frame_ms": 10.04, "first_frames_ms": 9.0, "last_frames_ms": 11.0}]}}


def test_readme_says_what_the_results_say():
    readme = make_tables.README.read_text()
    assert make_tables.with_tables(readme, make_tables.all_tables(make_tables.RESULTS)) == readme


def test_tables_of_a_comparison_and_of_long_videos(tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps(COMPARE))
    (tmp_path / "long.json").write_text(json.dumps(LONG))
    (tmp_path / "other.json").write_text("{}")  # of a benchmark without a table here
    assert make_tables.all_tables(tmp_path) == """\
mit_b1 at 512×512, batch 8, on 4 cores of Some CPU, load 0.1 at the start, jax 0.10.2, torch 2.13.0; medians \
of 3 processes in turns, peak memory, and how many times as long as ours:

|  | ours | PyTorch, default |
| --- | --- | --- |
| TTT step | 5 s, 3.5 GiB | 12.5 s, 9.6 GiB, ×2.50 |
| flow of a 854×480 pair, RAFT small | 500 ms, 1.0 GiB | torchvision is not installed |

Our programs: what the first call takes more (tracing, compiling), operations, and the share of what a large \
matrix product reached in the same processes:

|  | cold | from the cache | GFLOP | of the peak |
| --- | --- | --- | --- | --- |
| TTT step | 10 s | 1.5 s | 1000 | 50% |

Long videos (`--mode=segment`, a tiny network, 4 cores of Some CPU, load 0.1 at the start, jax 0.10.2, torch \
2.13.0):

| strategy | frames | peak memory | per frame | first 50 | last 50 |
| --- | --- | --- | --- | --- | --- |
| `mwi` | 100 | 1.50 GiB | 10.0 ms | 9.0 ms | 11.0 ms |"""


def test_tables_go_between_the_markers_and_nowhere_else():
    readme = f"a\n{make_tables.BEGIN}\nold\n{make_tables.END}\nb\n"
    new = make_tables.with_tables(readme, "new | \\1")
    assert new == f"a\n{make_tables.BEGIN}\nnew | \\1\n{make_tables.END}\nb\n"
    assert make_tables.with_tables("no place, no tables", "") == "no place, no tables"
    with pytest.raises(ValueError, match="must have one"):
        make_tables.with_tables("a\n", "tables")
