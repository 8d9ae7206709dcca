"""The report of an evaluation: what its HTML says, and that it stands alone."""

import io
import json
import math
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dattt_jax import report
from dattt_jax.metrics.protocols import get_protocol
from dattt_jax.metrics.scoring import FrameScore, summarize
from dattt_jax.paper_numbers import DATA_SETS, data_set_key, paper_scores
from dattt_jax.report import report_of_run, strategy_sheet, write_report
from dattt_jax.report_charts import Series, bar_chart, line_chart, signed_number
from dattt_jax.report_template import tag
from dattt_jax.visualize import contact_sheet, overlay
from input_pipeline.eval_videos import EvalEntry, EvalVideo
from input_pipeline.flow import create_flow, flow_renderings
from input_pipeline.writers import write_json, write_mask

STRATEGIES = ("base", "n", "mwi", "ltv")
NASTY = "<script>alert('x')</script> & \"quoted\" \udcff"
MODEL = {"backbone": "mit_b1", "depth": True, "modulation": "alpha+beta"}
_VOID = ("meta", "img")


class Page(HTMLParser):
    """Checks the nesting of a page and collects its parts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.tables, self.text = [], [], {}, ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute of {name} is twice there"
        self.elements.append((name, dict(attributes)))
        if name not in _VOID:
            self.open.append(name)
        if name == "div" and dict(attributes).get("class") == "scroll":
            self.rows = self.tables.setdefault(dict(attributes)["aria-label"], [])
        if name == "tr":
            self.rows.append([])
        if name in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + "\n"
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def table(self, start):
        """Rows of the table whose caption starts so."""
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def run(videos, seed=0, protocol="dattt", strategies=STRATEGIES):
    """(results, details) of an evaluation with random scores: 4 frames per video, 3 steps per frame."""
    rng = np.random.default_rng(seed)
    details, summaries = {}, {}
    for strategy in strategies:
        scores = {video: {f"{t:02d}": FrameScore(*rng.random(2)) for t in range(4)} for video in videos}
        summaries[strategy] = summarize(scores, get_protocol(protocol))
        steps = 0 if strategy == "base" else 3
        details[strategy] = {video: {
            "frames": {}, "seconds": 2.5, "input_seconds": 0.5,
            "losses": {f"{t:02d}": rng.random(steps).tolist() for t in range(4)}} for video in videos}
    results = {"data": "/videos/FBMS", "init": "weights", "flow": ["dis"], "strategies": summaries}
    return json.loads(json.dumps(results)), details


def settings(protocol="dattt"):
    return {"seed": 0, "input_size": [512, 512], "init": "weights", "model": MODEL,
            "eval": {"protocol": protocol, "frames": "annotated"},
            "ttt": {"steps": 10, "batch_size": 4, "learning_rate": 1e-5}}


def written(path, results, details, sheets=(), **changes):
    arguments = {"settings": settings(), "environment": {"device": "1 × <cpu>"}} | changes
    write_report(path, results=results, details=details, sheets=sheets, **arguments)
    return path.read_text("utf-8")


def percents(summary, measures):
    return [f"{100 * summary[measure]['mean']:.2f}" for measure in measures]


def test_tables_hold_the_results_and_the_papers_numbers(tmp_path):
    results, details = run(["a", "b"])
    page = Page(written(tmp_path / "report.html", results, details))
    summaries = results["strategies"]
    base = summaries["base"]

    rows = page.table("J (region)")
    assert rows[1] == ["Strategy", "J", "F", "J&F", "ΔJ", "ΔF", "J", "F", "ΔJ", "ΔF"]
    paper = {"base": ["73.7", "75.8", "–", "–"], "n": ["73.8", "76.1", "+0.1", "+0.3"],
             "mwi": ["76.0", "77.9", "+2.3", "+2.1"], "ltv": ["76.9", "78.9", "+3.2", "+3.1"]}
    labels = {"base": "No TTT", "n": "TTT-N", "mwi": "TTT-MWI", "ltv": "TTT-LTV"}
    for row, (name, summary) in zip(rows[2:], summaries.items(), strict=True):
        changes = ["–", "–"] if name == "base" else [
            f"{100 * (summary[measure]['mean'] - base[measure]['mean']):+.2f}" for measure in "JF"]
        assert row == [labels[name] + name, *percents(summary, ("J", "F", "JF")), *changes, *paper[name]]
    assert "This run differs in crops per step 4 (paper: 8)." in page.text

    for row, summary in zip(page.table("Recall")[1:], summaries.values(), strict=True):
        assert row[1:] == [f"{100 * summary[measure][statistic]:.2f}"
                           for measure in "JF" for statistic in ("recall", "decay")]
    assert page.table("Time")[1:] == [[labels[name], "8", "5.0", "1.0", "0.625"] for name in STRATEGIES]
    assert page.table("J and F of each video")[2:] == [
        [video, "4", *(value for summary in summaries.values()
                       for value in percents(summary["videos"][video], "JF"))] for video in ("a", "b")]


def test_the_ground_truth_is_described_as_the_protocol_decodes_it(tmp_path):
    results, details = run(["a"])
    path, texts = tmp_path / "report.html", {}
    for protocol in ("dattt", "all", "mtnet-fbms"):
        texts[protocol] = Page(written(path, results, details, settings=settings(protocol))).text
    assert "grey above 128" in texts["dattt"] and "grey above 0" in texts["all"]
    assert "the size of the ground truth" in texts["all"] and "brought (nearest)" in texts["mtnet-fbms"]
    assert "counts as 0" in texts["all"]
    every = settings()
    every["eval"]["frames"] = "all"
    page = Page(written(tmp_path / "report.html", results, details, settings=every))
    assert "frames all (paper: annotated)" in page.text


def test_the_page_stands_alone_and_names_are_escaped(tmp_path):
    results, details = run(["a", NASTY])
    results["data"] = results["init"] = NASTY
    text = written(tmp_path / "report.html", results, details, [(NASTY, np.zeros((8, 8, 3), np.uint8))])
    page = Page(text)
    assert [name for name, _ in page.elements].count("script") == 1
    assert NASTY.replace("\udcff", "?") in page.text
    assert NASTY.replace("\udcff", "?") in [row[0] for row in page.table("J and F of each video")]
    assert "1 × <cpu>" in page.text
    for name, attributes in page.elements:
        for attribute in ("src", "href", "action", "srcset", "data"):
            assert re.match(r"data:image/jpeg;base64,|#", attributes.get(attribute, "#")), (name, attributes)
    assert not re.search(r"https?://|@import|url\(", text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["href"][1:] for _, attributes in page.elements if "href" in attributes} <= set(ids)


def test_equal_arguments_give_equal_files(tmp_path):
    results, details = run(["a", "b"])
    sheet = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    first, second = (written(tmp_path / name, results, details, [("a", sheet)]) for name in ("1", "2"))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_protocol_without_f_and_scores_that_are_missing(tmp_path):
    results, details = run(["a", "b"], protocol="tmo-fbms", strategies=("base", "n"))
    results["strategies"]["n"]["videos"]["a"]["J"] = dict.fromkeys(("mean", "recall", "decay"))
    results["data"] = "synthetic"
    page = Page(written(tmp_path / "report.html", results, details, settings=settings("tmo-fbms")))
    assert page.table("J (region)")[1] == ["Strategy", "J", "ΔJ"]
    first, second = page.table("J and F of each video")[2:]
    assert first[3] == "–" and second[3] != "–"
    assert "Change of J by TTT" in page.text and "J&F" not in page.text
    assert "those without an object" in page.text and "Paper" not in page.text


def test_without_base_there_is_nothing_to_compare_with(tmp_path):
    results, details = run(["a"], strategies=("mwi",))
    results["data"] = "synthetic"
    page = Page(written(tmp_path / "report.html", results, details))
    assert page.table("J (region)")[1] == ["Strategy", "J", "F", "J&F"]
    assert "Change" not in page.text


def test_loss_and_epoch_curves_are_drawn_where_they_exist(tmp_path):
    results, details = run(["a", "b"])
    results["curves"] = {"ltv": {"J": [0.25, 0.5], "F": [0.1, 0.9]}}
    page = Page(written(tmp_path / "report.html", results, details))
    for step in range(3):
        mean = np.mean([record["losses"][frame][step] for record in details["mwi"].values()
                        for frame in record["losses"]])
        assert f"TTT-MWI, {step + 1}: {mean:.4g}\n" in page.text
    assert "TTT-LTV, 2: 50\n" in page.text and "TTT-LTV, 2: 90\n" in page.text
    assert f"No TTT, 1: {100 * results['strategies']['base']['J']['mean']:.4g}\n" in page.text

    results, details = run(["a"], strategies=("base",))
    page = Page(written(tmp_path / "report.html", results, details))
    assert "Test-time training" not in page.text


def test_many_videos_are_cut_in_the_charts_but_not_in_the_table(tmp_path):
    results, details = run([f"v{i:03d}" for i in range(50)], strategies=("base", "n"))
    page = Page(written(tmp_path / "report.html", results, details))
    assert len(page.table("J and F of each video")) == 2 + 50
    groups = [attributes for name, attributes in page.elements
              if name == "text" and attributes.get("class") == "group"]
    assert len(groups) == 2 * 40 and "20 worst and the 20 best of 50" in page.text


def test_the_size_of_the_file_is_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 1600, 3), np.uint8)  # JPEG's worst case
    results, details = run(["a"])
    path = tmp_path / "report.html"
    page = Page(written(path, results, details, [(str(i), noise) for i in range(30)]))
    assert path.stat().st_size < 8e6
    assert "Further sheets are left out" in page.text
    shown = [attributes for name, attributes in page.elements if name == "img"]
    assert 5 <= len(shown) < 30
    decoded = Image.open(io.BytesIO(b64decode(shown[0]["src"].split(",")[1])))
    assert decoded.size == (1600, 400)


def test_bars_are_as_long_as_their_values():
    chart = Page(bar_chart("t", ["a", "b"], [Series("s", 1, [12.5, None])], "axis"))
    bars = [attributes for name, attributes in chart.elements if name == "rect" and "x" in attributes]
    assert [(bar["x"], bar["width"]) for bar in bars] == [("0.00%", "12.50%")]
    # From -2 to 2 with room for numbers: 0 is in the middle, and -2 and 2 are equally far from it.
    chart = Page(bar_chart("t", ["a", "b"], [Series("s", 1, [-2.0, 2.0])], "axis", signed=True))
    left, right = (attributes for name, attributes in chart.elements if name == "rect" and "x" in attributes)
    assert right["x"] == "50.00%" and left["width"] == right["width"]
    assert float(left["x"][:-1]) + float(left["width"][:-1]) == pytest.approx(50, abs=0.011)
    assert "-2.00\n" in chart.text and "+2.00\n" in chart.text


def test_curves_go_through_their_points():
    chart = Page(line_chart("t", [Series("s", 1, [0.0, None, 10.0, 5.0])], "x", "y"))
    lines = [attributes["points"] for name, attributes in chart.elements if name == "polyline"]
    assert lines == ["66.67,0.00 100.00,50.00"]  # 0 at the bottom, 10 at the top, a gap at the second
    marks = [(attributes["x"], attributes["y"]) for name, attributes in chart.elements
             if name == "use" and "%" in attributes["x"]]
    assert marks == [("0.00%", "100.00%"), ("66.67%", "0.00%"), ("100.00%", "50.00%")]
    single = Page(line_chart("t", [Series("s", 1, [3.0])], "x", "y"))
    assert [a["x"] for n, a in single.elements if n == "use" and "%" in a["x"]] == ["50.00%"]


def test_small_pieces():
    assert signed_number(-0.001) == "+0.00" and signed_number(-1.234) == "-1.23"
    assert tag("td", "a<b", None, tag("b", "&"), data_x='"', hidden=True, id=None) == \
        '<td data-x="&quot;" hidden>a&lt;b<b>&amp;</b></td>'


def test_numbers_of_the_paper():
    names = ("/d/DAVIS-16", "davis2016", "Long_Videos", "SegTrackv2", "x/fbms/", "mcl", "synthetic", "")
    assert [data_set_key(name) for name in names] == \
        ["davis16", "davis16", "long_videos", "segtrackv2", "fbms", "mcl", None, None]
    swin = MODEL | {"backbone": "swin_t"}
    assert paper_scores("long_videos", swin, "ltv") == (75.9, 79.2)
    assert paper_scores("long_videos", swin, "mwi") is None
    assert paper_scores("davis16", MODEL, "grouped_mwi") == (77.5, 78.9)  # the paper groups there …
    assert paper_scores("mcl", MODEL, "grouped_mwi") is None  # … and not here
    assert paper_scores("mcl", MODEL | {"depth": False}, "base") == (57.3, 70.8)
    assert paper_scores("mcl", MODEL | {"modulation": "alpha"}, "base") is None
    # Sums over the data sets of the absolute numbers, added by hand from the paper's table.
    sums = {"base": (331.0, 357.6), "n": (335.6, 362.4), "mwi": (350.5, 378.6), "ltv": (355.3, 380.9)}
    for strategy, total in sums.items():
        found = np.sum([paper_scores(name, MODEL, strategy) for name in DATA_SETS], axis=0)
        assert found == pytest.approx(total)


def clip(name, seed, masks):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    frames = [np.roll(base, t, axis=1) for t in range(5)]
    targets = {f"{t:02d}": np.eye(48, 64, k=t, dtype=bool) for t in masks}
    video = EvalVideo(name, [f"{t:02d}" for t in range(5)], 24.0, frames, targets.get, list(targets))
    return EvalEntry(name, 5, len(masks), lambda: video)


@pytest.fixture
def finished(tmp_path):
    """Workdir, videos and config of an evaluation of two videos, one sparsely annotated."""
    entries = [clip("first", 0, (1, 4)), clip("second", 1, range(5))]
    results, details = run(["first", "second"], protocol="all")
    for strategy in STRATEGIES:
        for entry in entries:
            write_json(tmp_path / "videos" / strategy / f"{entry.name}.json", details[strategy][entry.name])
            for t, name in enumerate(entry.open().frame_names):
                write_mask(tmp_path / "masks" / strategy / entry.name / f"{name}.png",
                           np.tri(48, 64, k=t, dtype=bool))
    write_json(tmp_path / "results.json", results)
    write_json(tmp_path / "settings.json", settings("all"))
    return tmp_path, entries, ConfigDict({"flow": {"method": "dis", "last_frame": "repeat"},
                                          "eval": {"frames": "all"}})


@pytest.mark.parametrize("last_frame", ["repeat", "backward", "drop"])
def test_a_sheet_shows_annotated_frames_with_their_own_flow(finished, last_frame):
    workdir, (entry, _), config = finished
    first = entry.open()
    config.flow.last_frame = last_frame
    pairs = list(flow_renderings(first.frames, create_flow("dis"), last_frame))
    shown = [1] if last_frame == "drop" else [1, 4]
    rows = [[*pairs[t], overlay(pairs[t][0], first.target(f"{t:02d}"), color=(40, 200, 40)),
             overlay(pairs[t][0], np.tri(48, 64, k=t, dtype=bool))] for t in shown]
    columns = ["frame", "flow", "ground truth", "TTT-N"]
    expected = contact_sheet(rows, [f"{t:02d}" for t in shown], columns, 50)
    found = strategy_sheet(config, workdir, first, ["n"], 3, 50, flow=create_flow())
    np.testing.assert_array_equal(found, expected)


def test_report_of_a_run(finished, monkeypatch):
    workdir, videos, config = finished
    page = Page(report_of_run(config, workdir, videos, create_flow()).read_text())
    summaries = json.loads((workdir / "results.json").read_text())["strategies"]
    means = {video.name: math.fsum(100 * s["videos"][video.name]["JF"]["mean"] for s in summaries.values())
             for video in videos}
    worst, best = sorted(means, key=means.get)
    titles = [attributes["aria-label"] for name, attributes in page.elements
              if attributes.get("class") == "sheet"]
    assert [title.split(".")[0] for title in titles] == [f"{worst}, rank 2 of 2", f"{best}, rank 1 of 2"]
    for strategy, name in (("base", "No TTT"), ("ltv", "TTT-LTV")):
        assert f"{name} {100 * summaries[strategy]['videos'][worst]['JF']['mean']:.2f}" in titles[0]
    assert "jax" in page.text and "cpu" in page.text

    monkeypatch.setattr(report, "_SHEETS", 1)
    page = Page(report_of_run(config, workdir, videos, create_flow()).read_text())
    assert [attributes["alt"].split(" ")[3].rstrip(",") for name, attributes in page.elements
            if name == "img"] == [worst]
