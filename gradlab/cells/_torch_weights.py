"""A PyTorch module or state_dict as arrays by name, without PyTorch.

A state_dict holds only the parts from which a parametrized weight is computed. For a few
parametrizations these suffice; for the others the module itself computes the weight.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradlab._norms import widen

# torch.nn.utils.parametrize registers "parametrizations.NAME.original"; its forerunners
# (weight_norm, spectral_norm) and prune write "NAME_g" and the like beside the weight.
PARAMETRIZATION = re.compile(r"(.*?)parametrizations\.([^.]+)\.(.+)")
SUFFIX = re.compile(r"(.*(?:weight|bias)\w*)_(g|v|u|orig|mask)")


class TorchWeights(Mapping[str, Any]):
    """The weights whose names begin with a prefix, by the rest of the name.

    >>> import numpy as np
    >>> state = {"rnn.weight_g": np.ones((2, 1)), "rnn.weight_v": np.array([[3.0, 4.0], [0, 2.0]])}
    >>> weights = TorchWeights("from_torch", state, "rnn.")
    >>> list(weights), weights["weight"].round(3).tolist()
    (['weight'], [[0.6, 0.8], [0.0, 1.0]])
    """

    def __init__(self, who: str, source: Any, prefix: str = "") -> None:
        self.who, self.prefix = who, prefix
        self.module = source if callable(getattr(source, "state_dict", None)) else None
        state = source if self.module is None else self.module.state_dict()
        if not isinstance(state, Mapping):
            raise ValueError(f"{who} needs a state_dict or a module, got {type(source).__name__}")
        self.metadata = getattr(state, "_metadata", {})
        self.parts: dict[str, dict[str, Any]] = {}
        for key, value in state.items():
            if isinstance(key, str) and key.startswith(prefix):
                name, part = split_name(key.removeprefix(prefix))
                self.parts.setdefault(name, {})[part] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    def __getitem__(self, name: str) -> Any:
        parts = self.parts[name]
        if set(parts) == {""}:
            return parts[""]
        path, _, last = name.rpartition(".")
        path = self.prefix + path + "." * bool(path)
        registered = any(part.startswith("original") for part in parts)
        if registered and self.module is not None:
            return self._compute(path, last)
        # A second parametrization on top of the first shows only in the metadata.
        stacked = f"{path}parametrizations.{last}.1" in self.metadata
        weight = None if stacked else self._recompute(parts)
        if weight is not None:
            return weight
        remove = f"parametrize.remove_parametrizations(module, {last!r})"
        raise ValueError(
            f"{self.who}: {self.prefix + name!r} is parametrized, and a state_dict does not tell "
            f"how to compute it from its parts ({', '.join(sorted(parts))}); "
            + (f"give the module itself, or first call torch.nn.utils.{remove}" * registered)
            + ("first call torch.nn.utils.remove_spectral_norm(module, name)" * (not registered))
        )

    def attribute(self, name: str) -> Any:
        """An attribute of the module that holds these weights; None for a state_dict."""
        owner = self.module
        for part in filter(None, self.prefix.split(".")):
            owner = getattr(owner, part, None)
        return getattr(owner, name, None)

    def _compute(self, path: str, last: str) -> Any:
        """The weight as the module's own parametrizations give it."""
        owner: Any = self.module
        for part in filter(None, path.split(".")):
            owner = getattr(owner, part)
        # A spectral norm in training changes its estimate with every call: leave the module's own.
        return copy.deepcopy(owner.parametrizations[last]).eval()()

    def _recompute(self, parts: Mapping[str, Any]) -> Array | None:
        arrays = {part: to_array(self.who, part, value) for part, value in parts.items()}
        if set(arrays) == {"g", "v"}:
            return weight_norm(arrays["g"], arrays["v"])
        if set(arrays) == {"original0", "original1"}:
            return weight_norm(arrays["original0"], arrays["original1"])
        if set(arrays) == {"orig", "mask"}:
            return arrays["orig"] * arrays["mask"]
        return None


def split_name(key: str) -> tuple[str, str]:
    """The name of a weight and which part of it a key holds, "" for the weight itself.

    >>> split_name("rnn.parametrizations.weight_hh_l0.original0")
    ('rnn.weight_hh_l0', 'original0')
    >>> split_name("weight_hh_l0_g"), split_name("bias")
    (('weight_hh_l0', 'g'), ('bias', ''))
    """
    if match := PARAMETRIZATION.fullmatch(key):
        return match[1] + match[2], match[3]
    if match := SUFFIX.fullmatch(key):
        return match[1], match[2]
    return key, ""


def weight_norm(g: Array, v: Array) -> Array | None:
    """g v / ‖v‖, the norm along the axes where g has length 1, or over all; None for other shapes.

    NaN where v is 0, as in PyTorch.
    """
    shape = g.shape or (1,) * v.ndim
    fits = len(shape) == v.ndim and all(a in (1, b) for a, b in zip(shape, v.shape, strict=True))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    if not fits or not axes:
        return None
    wide = widen(v)
    norm = jnp.sqrt(jnp.sum(wide**2, axes, keepdims=True))
    return (widen(g).reshape(shape) * wide / norm).astype(v.dtype)


def to_array(who: str, key: str, value: Any) -> Array:
    """The value, a tensor or whatever JAX takes, as an array of its own dtype."""
    convert: Callable[[Any], Array] = from_tensor if hasattr(value, "detach") else jnp.asarray
    try:
        return convert(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = f": {error}".split("\n")[0] if hasattr(value, "detach") else ""
        kind = type(value).__name__
        raise ValueError(f"{who} needs an array at {key}, got {kind}{reason}") from None


def from_tensor(tensor: Any) -> Array:
    """A tensor as an array; NumPy refuses one that requires a gradient, and has no bfloat16."""
    tensor = tensor.detach().cpu()
    try:
        return jnp.asarray(tensor.numpy())
    except TypeError:
        # float32 holds every number of the types that NumPy lacks.
        dtype = jnp.dtype(str(tensor.dtype).removeprefix("torch."))
        return jnp.asarray(tensor.float().numpy(), dtype)
