"""How far rounding alone may take two right forms apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradlab.tracing._constants import lift_constants

SAFETY = 4
DRAWS = 4
# Arithmetic in a wider float than this one's is not asked of a fast form.
SINGLE = float(np.finfo(np.float32).eps)

# What hands numbers on without rounding them.
_MOVES = frozenset(
    "abs broadcast_in_dim concatenate copy copy_p dynamic_slice dynamic_update_slice expand_dims "
    "gather max min neg pad reshape rev select_n slice split squeeze transpose".split()
)


def is_float(leaf: Any) -> bool:
    """Whether an argument's leaf is a float or an array of floats."""
    if isinstance(leaf, float | complex):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def epsilons(form: Callable[..., Any], args: Any, kwargs: Any) -> tuple[float, float]:
    """(ε, floor): that of the narrowest float in which a form computes, and the least of any form.

    A narrow float in which numbers only come or go does not count: to sum them in it is a fault.
    """
    value, arrays = _of_arrays(form, args, kwargs)
    program = jax.make_jaxpr(value)(*arrays)
    leaves = jax.tree.leaves((args, kwargs))
    own = [float(jnp.finfo(jnp.result_type(x)).eps) for x in leaves if is_float(x)]
    floor = min([*own, SINGLE])
    return max([floor, *_find_epsilons(program.jaxpr)]), floor


def _of_arrays(form: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, list[Any]]:
    """The loss as a function of those leaves of the arguments that are numbers, and these."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    places = _places(leaves)

    def value(*arrays: Any) -> Any:
        rest = iter(arrays)
        args, kwargs = jax.tree.unflatten(tree, [next(rest) if i in places else x
                                                 for i, x in enumerate(leaves)])  # fmt: skip
        return jnp.asarray(jax.tree.leaves(form(*args, **kwargs))[0])

    return value, [leaves[i] for i in places]


def _places(leaves: list[Any]) -> list[int]:
    kinds = np.ndarray | np.generic | jax.Array
    return [i for i, x in enumerate(leaves) if isinstance(x, kinds) or is_float(x)]


CLOSED_OVER = "the arrays that the form closes over"


def open_form(
    form: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The loss of a form with the arrays that it closes over as a keyword, and these, if any."""
    value, numbers = _of_arrays(form, args, kwargs)
    arrays, call = lift_constants(value, *numbers)

    def loss(*args: Any, **kwargs: Any) -> Any:
        arrays = kwargs.pop(CLOSED_OVER)
        leaves = jax.tree.leaves((args, kwargs))
        return call(arrays, *(leaves[i] for i in _places(leaves)))

    return loss, {CLOSED_OVER: arrays} if arrays else {}


def _find_epsilons(jaxpr: Any) -> Iterator[float]:
    for eqn in jaxpr.eqns:
        inner = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(eqn.params.values()))]
        inner = [x for x in inner if hasattr(x, "eqns")]
        for each in inner:
            yield from _find_epsilons(each)
        if not inner and eqn.primitive.name not in _MOVES:
            for var in eqn.outvars:
                if jnp.issubdtype(getattr(var.aval, "dtype", bool), jnp.inexact):
                    yield float(jnp.finfo(var.aval.dtype).eps)


def disturb_args(args: Any, kwargs: Any, epsilon: float) -> tuple[float, Iterator[tuple[Any, Any]]]:
    """(η, draws): the arguments with every float x as x(1 ± η), signs drawn at random.

    Whole numbers stay, which may be flags or masks. η is ε, or more where x could not show it.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    floats = [jnp.result_type(x) for x in leaves if is_float(x)]
    eta = max([epsilon, *(float(jnp.finfo(dtype).eps) for dtype in floats)])

    def draws() -> Iterator[tuple[Any, Any]]:
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            yield jax.tree.unflatten(tree, [_disturb(x, eta, rng) for x in leaves])

    return eta, draws()


def _disturb(x: Any, eta: float, rng: np.random.Generator) -> Any:
    if not is_float(x):
        return x
    plain = isinstance(x, float | complex)
    values = np.asarray(x)
    wide = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    whole = wide == np.round(wide)
    noisy = np.where(whole, wide, wide * (1 + eta * rng.choice([-1.0, 1.0], wide.shape)))
    if plain:
        return type(x)(noisy[()])
    noisy = noisy.astype(values.dtype)
    if isinstance(x, jax.Array):
        return jax.device_put(noisy, x.sharding)
    return noisy if isinstance(x, np.ndarray) else noisy[()]
