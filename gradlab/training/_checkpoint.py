"""The file that a training is resumed from, and what it must agree on with the program."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab import _arrays
from gradlab._files import expand
from gradlab._identity import Identity, Unknown

# Part of every checkpoint: a change of what one holds makes old ones another program's.
VERSION = 2
# The settings of JAX that change the numbers of a program whose text they leave as it is.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_threefry_gpu_kernel_lowering",
    "jax_disable_jit",
)
# Flags of XLA that change no number: how many devices there are, and what is printed.
_HARMLESS_FLAGS = ("--xla_force_host_platform_device_count", "--xla_dump")


class Checkpoint:
    """One file that holds a state and the records so far, replaced whole or not at all."""

    def __init__(self, path: str | Path | None, seconds: float) -> None:
        self.path = None if path is None else expand(path)
        self.seconds = seconds
        self._written = time.monotonic()
        self._waiting: Callable[[], None] | None = None
        self._content: tuple[dict[str, Any], list[np.ndarray]] | None = None
        if self.path is not None and self.path.exists():
            self._content = self._load(self.path)

    @staticmethod
    def _load(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            about, arrays = _arrays.read(path)
            return about, [arrays[f"{i:06d}"] for i in range(about["arrays"])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: damaged or no checkpoint; delete it to start anew ({error})"
            ) from None

    def block(self) -> int | None:
        """The updates of a compiled call of the run that the file holds."""
        return self._content[0].get("block") if self._content else None

    def identify(self, program: Any, about: dict[str, Any], version: str | int | None) -> None:
        """Digest all that a checkpoint must agree on, part by part."""
        self.block_size = about["block"]
        self._identity = partial(_parts, program, about, version)
        try:
            self.parts = self._identity()
        except Unknown as error:
            raise ValueError(
                f"{self.path}: what this program holds cannot be read, so a checkpoint cannot be "
                f"told from another program's: {error}, {error.where}; name it with version=, and "
                "change that name whenever it changes"
            ) from None

    def read(self, state: Any, shapes: Any) -> tuple[Any, list[Any]]:
        """The state and the records of the file, or those of a run that has yet to begin."""
        if self._content is None:
            return state, []
        about, arrays = self._content
        theirs = about.get("parts", {}) if about.get("version") == VERSION else {}
        names = dict.fromkeys([*self.parts, *theirs])
        others = [name for name in names if theirs.get(name) != self.parts.get(name)]
        if others:
            what = f"other {', '.join(others)}" if theirs else "another version of gradlab"
            raise ValueError(
                f"{self.path}: a checkpoint of another program ({what}); give another file, or "
                "delete it to start anew"
            )
        leaves, tree = jax.tree.flatten((state, shapes))
        values = [_restore(array, leaf) for leaf, array in zip(leaves, arrays, strict=True)]
        state, records = jax.tree.unflatten(tree, values)
        return jax.tree.map(jnp.asarray, state), [records]

    def write(self, state: Any, blocks: list[Any], last: bool) -> None:
        """Remember this point of the run; write it now if the last write is long ago."""
        if self.path is None:
            return
        blocks = list(blocks)
        self._waiting = lambda: self._save(state, blocks)
        if last or time.monotonic() - self._written >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is not in the file yet."""
        if self._waiting is not None:
            self._waiting()
            self._waiting = None
            self._written = time.monotonic()

    def _save(self, state: Any, blocks: list[Any]) -> None:
        assert self.path is not None
        if self._identity() != self.parts:
            raise ValueError(
                f"{self.path}: Python that this program calls back changes its own state, which a "
                "checkpoint cannot restore; keep it in params or in the key, or name it with "
                "version= where a resumed run may begin with a fresh one"
            )
        records = jax.tree.map(lambda *x: np.concatenate(x), *blocks)
        arrays = [np.asarray(_plain(leaf)) for leaf in jax.tree.leaves((state, records))]
        about = {"version": VERSION, "parts": self.parts, "block": self.block_size}
        about["arrays"] = len(arrays)
        _arrays.write(self.path, about, {f"{i:06d}": array for i, array in enumerate(arrays)})


def _parts(program: Any, about: dict[str, Any], version: str | int | None) -> dict[str, str]:
    """What a checkpoint must agree on, a digest for each name that a message can say."""
    identity = Identity(None if version is None else repr(version))
    state = about["state"]
    # The attributes know of `with jax.enable_x64(...)`, which this one has no attribute for.
    settings = {name: getattr(jax.config, name) for name in _SETTINGS}
    settings["optimize"] = not jax.config.read("jax_disable_most_optimizations")
    flags = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if not flag.startswith(_HARMLESS_FLAGS)
    ]

    def leaves(tree: Any) -> Any:
        paths, _ = jax.tree.flatten_with_path(tree)
        return [(jax.tree_util.keystr(path), leaf) for path, leaf in paths]

    parts = {
        "code or data": program,
        "arguments of sample": leaves(about["sample"]),
        "parameters": leaves(state.params),
        "state of the optimizer": leaves(state.opt_state),
        "key": state.key,
        **{f"{name}=": value for name, value in about["options"].items()},
        "block=": about["block"],
        "version=": identity.version,
        "settings of JAX": (settings, flags, jax.default_backend()),
        "version of JAX": jax.__version__,
    }
    return {name: identity(value).hex() for name, value in parts.items()}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _restore(array: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    # An older file has bfloat16 and the like as void types.
    return array.view(like.dtype) if array.dtype.kind == "V" else array


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if isinstance(leaf, jax.Array) and _is_key(leaf) else leaf
