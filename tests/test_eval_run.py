"""`--mode=eval` over devices and processes, and killed at any moment: always the same table."""

import csv
import json
import multiprocessing
import random
import signal
import threading
import time

import av
import jax
import numpy as np
import pytest
from PIL import Image
from tiny_eval import folder_config, tiny_config, tiny_evaluate, without_times, write_clip

from dattt_jax.errors import UserError
from dattt_jax.eval_data import Part, eval_entries, parse_part
from input_pipeline.writers import remove_leftovers


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Five clips of different lengths, two strategies, on one device."""
    root = tmp_path_factory.mktemp("data")
    for number, frames in enumerate((3, 6, 4, 2, 5)):
        write_clip(root, f"clip{number}", frames, masks=range(frames), seed=number)
    config = folder_config(tiny_config(tmp_path_factory.mktemp("weights")), root, strategies=("base", "ltv"))
    config.ttt.steps = 2
    return config


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("eval")
    tiny_evaluate(config, workdir)
    return workdir


def assert_same(workdir, expected):
    """The same tables, masks and records; the page's times and the video's encoding may differ."""
    for name in ("results.json", "results.csv", "strategies.png"):
        assert (workdir / name).read_bytes() == (expected / name).read_bytes()
    found, wanted = ({path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
                     for root in (workdir, expected))
    assert set(found) == set(wanted)
    for name, path in wanted.items():
        if name.parts[0] == "videos":
            records = (json.loads(each.read_text()) for each in (found[name], path))
            assert without_times(next(records)) == without_times(next(records))
        elif name.parts[0] == "masks":
            assert found[name].read_bytes() == path.read_bytes()


def test_four_devices_give_the_table_of_one(config, uninterrupted, tmp_path, monkeypatch):
    used = set()
    put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda tree, device: used.add(device) or put(tree, device))
    several = config.copy_and_resolve_references()
    several.eval.devices = 4
    tiny_evaluate(several, tmp_path)
    assert_same(tmp_path, uninterrupted)
    assert used == set(jax.local_devices()) and len(used) == 4


def test_what_fails_on_one_device_ends_the_run_and_is_told(config, tmp_path):
    several = config.copy_and_resolve_references()
    several.eval.devices = 3
    broken = tmp_path / "data"
    for number in range(4):
        write_clip(broken, f"clip{number}", 3, masks=range(3))
    (broken / "frames/clip2/00001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"clip2/00001\.png: cannot be read"):
        tiny_evaluate(folder_config(several, broken), tmp_path / "out")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("score")]
    assert not (tmp_path / "out/results.json").exists()


def test_parts_on_a_shared_folder_give_the_table_of_one_process(config, uninterrupted, tmp_path):
    first, second = (config.copy_and_resolve_references() for _ in range(2))
    first.eval.part, second.eval.part = "1/2", "2/2"
    results = []
    waits = threading.Thread(target=lambda: results.append(tiny_evaluate(first, tmp_path)))
    waits.start()
    while len(list((tmp_path / "videos").glob("ltv/*.json"))) < 3:  # its own videos
        time.sleep(0.01)
    time.sleep(0.1)
    assert waits.is_alive() and not (tmp_path / "results.json").exists()
    assert tiny_evaluate(second, tmp_path) == {}
    waits.join(60)
    assert results == [json.loads((uninterrupted / "results.json").read_text())]
    assert_same(tmp_path, uninterrupted)


def test_part_of_the_videos(config):
    names = [[entry.name for entry in Part(index, 2).of(eval_entries(config))] for index in range(2)]
    assert names == [["clip0", "clip2", "clip4"], ["clip1", "clip3"]]
    assert parse_part("") == Part(0, 1) and parse_part("4/4") == Part(3, 4)
    for text in ("0/2", "3/2", "1", "1/", "a/2", "-1/2"):
        with pytest.raises(UserError, match=r"config\.eval\.part='.*': give which of how many"):
            parse_part(text)


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    of_another = f"{'same beginning ' * 8}2"  # a process that works on another video of the folder writes it
    keep = [tmp_path / "masks/00000.png", tmp_path / ".hidden", tmp_path / ".b.json.12.tmp",
            tmp_path / f".{of_another}.json.12.tmp"]
    stale = [tmp_path / "masks/.00001.png.12.tmp", tmp_path / ".a.json.12.tmp", tmp_path / ".[c].json.12.tmp",
             tmp_path / f".{of_another[:-1]}1.json.12.tmp"]
    (tmp_path / "masks").mkdir()
    for path in keep + stale:
        path.touch()
    remove_leftovers(tmp_path / "masks", tmp_path / "a.json", tmp_path / "[c].json",
                     tmp_path / f"{of_another[:-1]}1.json", tmp_path / "nowhere" / "c.json")
    assert all(path.exists() for path in keep) and not any(path.exists() for path in stale)


def _assert_readable(workdir):
    for path in workdir.rglob("*"):
        if path.is_dir() or path.suffix == ".tmp":
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as image:
                assert np.asarray(image).size
        elif path.suffix == ".mp4":
            with av.open(str(path)) as container:
                assert sum(1 for _ in container.decode(video=0)) >= 2
        elif path.suffix == ".csv":
            rows = list(csv.reader(path.read_text().splitlines()))
            assert {len(row) for row in rows} == {len(rows[0])}
        else:
            assert path.suffix == ".html" and path.read_text().endswith("</html>\n")


def test_killed_at_random_moments_and_run_again(config, uninterrupted, tmp_path):
    # Children of a server that has imported everything: a process each, without a second of start-up.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_eval"])
    total = sum(path.is_file() for path in uninterrupted.rglob("*"))
    rng, moments = random.Random(0), []
    while True:
        written = sum(path.is_file() for path in tmp_path.rglob("*"))
        # Moments are numbers of files, so that they are spread over the run on any machine.
        moment = written + rng.randint(1, max(total // 4, 1)) + rng.random()
        process = context.Process(target=tiny_evaluate, args=(config, tmp_path))
        process.start()
        while process.is_alive() and sum(path.is_file() for path in tmp_path.rglob("*")) < moment:
            time.sleep(0.0005)
        time.sleep(0.003 * rng.random())
        process.kill()
        process.join()
        _assert_readable(tmp_path)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        moments.append(written)
        assert len(moments) < 20
    assert len(moments) >= 3  # it was killed several times, each time further on
    assert_same(tmp_path, uninterrupted)
