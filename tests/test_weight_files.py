"""Reading files of weights: what is in them, and every way they can be damaged."""

import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from dattt_jax.errors import UserError
from dattt_jax.weight_files import read_state_dict

WEIGHT = np.array([[1.5, -2.0, 0.25]], np.float32)  # exact in every float type
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def assert_weight(found, name="w"):
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], WEIGHT)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_safetensors_of_every_float_type(tmp_path, dtype):
    save_file({"w": WEIGHT.astype(dtype), "steps": np.array([3])}, tmp_path / "a.safetensors")
    found = read_state_dict(tmp_path / "a.safetensors")
    assert_weight(found)
    assert found["steps"].dtype == np.int64


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"model": state, "epoch": 3},
    lambda state: {"state_dict": {"model": state}},
    lambda state: {**state, "epoch": 3},
])
def test_torch_files_are_unwrapped(tmp_path, torch, suffix, wrap):
    state = {"w": torch.nn.Parameter(torch.tensor(WEIGHT)), "steps": torch.tensor(3)}
    torch.save(wrap(state), tmp_path / f"a{suffix}")
    found = read_state_dict(tmp_path / f"a{suffix}")
    assert found.keys() == {"w", "steps"}
    assert_weight(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_every_float_type_and_format(tmp_path, torch, dtype, zipped):
    torch.save({"w": torch.tensor(WEIGHT).to(getattr(torch, dtype))}, tmp_path / "a.pth",
               _use_new_zipfile_serialization=zipped)
    assert_weight(read_state_dict(tmp_path / "a.pth"))


class Unsafe:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_can_run_code_is_refused_and_not_run(tmp_path, torch):
    torch.save({"w": torch.tensor(WEIGHT), "hook": Unsafe(tmp_path / "ran")}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"refused, .*open.* can run code; save its tensors") as raised:
        read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", LFS_POINTER, bytes(range(256)) * 8])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_what_is_no_such_file_is_told_in_one_line(tmp_path, torch, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: not a whole .*download or copy it again$") as raised:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_file(tmp_path, torch, zipped):
    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "a.pth").read_bytes()
    for length in (10, len(content) // 2, len(content) - 1):
        (tmp_path / "a.pth").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.pth: not a whole PyTorch checkpoint"):
            read_state_dict(tmp_path / "a.pth")


def test_truncated_safetensors(tmp_path):
    save_file({"w": WEIGHT}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    for length in (4, len(content) // 2, len(content) - 1):
        (tmp_path / "a.safetensors").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"a\.safetensors: not a whole safetensors file"):
            read_state_dict(tmp_path / "a.safetensors")


def test_a_number_format_numpy_lacks(tmp_path, torch):
    from safetensors.torch import save_file as save_torch
    save_torch({"w": torch.tensor(WEIGHT).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="of a type NumPy cannot read"):
        read_state_dict(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"epoch": 3}}, {}])
def test_a_file_without_tensors(tmp_path, torch, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "a.pth")


def test_without_torch_the_way_out_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"run `pip install torch`, or give the weights as a \.safe"):
        read_state_dict(tmp_path / "a.pth")


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match=r"a\.h5: weights are read from \.pth"):
        read_state_dict(tmp_path / "a.h5")
    with pytest.raises(UserError, match=r"a\.pth: cannot be read \(No such file"):
        read_state_dict(tmp_path / "a.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(UserError, match=r"folder\.pth: cannot be read \(Is a directory"):
        read_state_dict(tmp_path / "folder.pth")
