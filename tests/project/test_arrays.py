"""Files of arrays: any type comes back, and no damage stays unseen."""

import random

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from gradlab import _arrays

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "scalar": np.float32(3.5).reshape(()),
    "empty": np.zeros((0, 3), np.int8),
    "transposed": RANDOM.normal(size=(4, 3)).T,
    "complex": RANDOM.normal(size=3) + 1j,
    "complex64": np.array([1 + 2j], np.complex64),
    "flags": np.array([True, False]),
    "bfloat16": np.asarray(jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)),
    "one bfloat16": np.asarray(jnp.bfloat16(1.5)),
    "float8": np.array([0.5, -2.0], ml_dtypes.float8_e4m3fn),
    "key": np.array([1, 2**32 - 1], np.uint32),
}


def test_every_type_and_shape_comes_back(tmp_path):
    about = {"text": "ä\n", "list": [1, None, 2.5], "table": {}}
    _arrays.write(tmp_path / "new" / "file", about, ARRAYS)
    again, arrays = _arrays.read(tmp_path / "new" / "file")
    assert again == about and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()


def test_others_read_the_weights(tmp_path):
    _arrays.write(tmp_path / "file", {}, {"w": ARRAYS["transposed"]})
    again = safetensors.numpy.load_file(tmp_path / "file")
    np.testing.assert_array_equal(again["w"], ARRAYS["transposed"])


def test_no_flipped_bit_changes_an_array_in_silence(tmp_path):
    path = tmp_path / "file"
    about = {"version": 2, "unit": "words"}
    _arrays.write(path, about, ARRAYS)
    whole = path.read_bytes()
    draws = random.Random(0)
    for place in [*range(16), *draws.sample(range(len(whole)), 300)]:
        content = bytearray(whole)
        content[place] ^= 1 << draws.randrange(8)
        path.write_bytes(content)
        with pytest.raises(ValueError):
            _arrays.read(path)
    for size in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError):
            _arrays.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError):
        _arrays.read(path)


def test_the_sum_covers_names_types_and_shapes(tmp_path):
    """A whole safetensors file that says other things of the same bytes is refused."""
    path = tmp_path / "file"
    array = np.arange(6, dtype=np.int32)
    _arrays.write(path, {}, {"a": array})
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    for name, other in (("b", array), ("a", array.view(np.float32)), ("a", array.reshape(2, 3))):
        path.write_bytes(safetensors.numpy.save({name: other}, metadata))
        with pytest.raises(ValueError, match="does not have the sum"):
            _arrays.read(path)


def test_what_is_missing_or_of_somebody_else(tmp_path):
    with pytest.raises(FileNotFoundError):
        _arrays.read(tmp_path / "none")
    with pytest.raises(ValueError):
        _arrays.read(tmp_path)
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "theirs")
    with pytest.raises(ValueError):
        _arrays.read(tmp_path / "theirs")


def test_a_tilde_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _arrays.write("~/file", {}, {})
    assert (tmp_path / "file").exists() and _arrays.read("~/file") == ({}, {})
