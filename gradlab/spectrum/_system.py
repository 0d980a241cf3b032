"""A step on ravelled states and its tangents, and the checks of what a caller asks for."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class System(NamedTuple):
    """A step on ravelled states.

    ``begin(frame)`` is a carry (orbit, frame, steps made, first non-finite step) for the scan body
    ``advance``. A frame holds a tangent in each row. ``eps`` is that of the narrowest float among
    the state's leaves, which every tangent is rounded to.
    """

    start: Array
    eps: float
    begin: Callable[[Array], Any]
    advance: Callable[[Any, Any], tuple[Any, None]]


class Coordinates(NamedTuple):
    """A step between states as their real coordinates, (n,), and their leaves without a tangent.

    ``move(flat, others, *inputs)`` gives the next two, ``restore(flat, others)`` the state itself.
    """

    start: Array
    others: list[Array]
    eps: float
    move: Callable[..., tuple[Array, list[Array]]]
    restore: Callable[[Array, list[Array]], Any]


def ravel_step(step: Callable[..., Any], state: Any) -> Coordinates:
    leaves, tree = jax.tree.flatten(state)
    leaves = [jnp.asarray(leaf, jnp.result_type(leaf)) for leaf in leaves]
    start, others = ravel(leaves)
    if start.size == 0:
        raise ValueError("the state has no floating-point entries, so it has no Jacobian")

    def restore(flat: Array, others: list[Array]) -> Any:
        return jax.tree.unflatten(tree, unravel(flat, others, leaves))

    def move(flat: Array, others: list[Array], *inputs: Any) -> tuple[Array, list[Array]]:
        new = step(restore(flat, others), *inputs)
        new, new_tree = jax.tree.flatten(new)
        new = [jnp.asarray(leaf) for leaf in new]
        if new_tree != tree or _kinds(new) != _kinds(leaves):
            raise ValueError(
                "step must return a state like the one it takes: "
                f"it takes {tree} of {_kinds(leaves)}, returns {new_tree} of {_kinds(new)}"
            )
        return ravel(new)

    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves if _has_tangent(leaf))
    return Coordinates(start, others, eps, move, restore)


def ravel_system(step: Callable[..., Any], state: Any, xs: Any) -> System:
    system = ravel_step(step, state)

    def begin(frame: Array) -> Any:
        return (system.start, system.others), frame, jnp.int32(0), jnp.int32(0)

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        (flat, others), frame, count, bad = carry
        inputs = () if xs is None else (x,)

        flat, others, frame = push(system, flat, others, frame, *inputs)
        finite = jnp.isfinite(flat).all() & jnp.isfinite(frame).all()
        bad = jnp.where((bad == 0) & ~finite, count + 1, bad)
        return ((flat, others), frame, count + 1, bad), None

    return System(system.start, system.eps, begin, advance)


def push(
    system: Coordinates, flat: Array, others: list[Array], tangents: Array, *inputs: Any
) -> tuple[Array, list[Array], Array]:
    """The next state, and J times each of the tangents, which are rows."""

    def along(tangent: Array) -> tuple[Array, Array, list[Array]]:
        return jax.jvp(
            lambda flat: system.move(flat, others, *inputs), (flat,), (tangent,), has_aux=True
        )

    # The state depends on no tangent: its rows are all the same, and computed once.
    flats, rows, others = jax.vmap(along)(tangents)
    return flats[0], [each[0] for each in others], rows


def _kinds(leaves: list[Array]) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)


def _has_tangent(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def ravel(leaves: list[Array]) -> tuple[Array, list[Array]]:
    """The real coordinates of the leaves that have a tangent, and the other leaves."""
    parts = [jnp.zeros(0, jnp.float32)]  # QR knows no narrower floats
    for leaf in filter(_has_tangent, leaves):
        both = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
        parts += [part.ravel() for part in both]
    return jnp.concatenate(parts), [leaf for leaf in leaves if not _has_tangent(leaf)]


def unravel(flat: Array, others: list[Array], like: list[Array]) -> list[Array]:
    """The leaves that ``ravel`` took apart."""
    leaves, start, rest = [], 0, iter(others)
    for leaf in like:
        if not _has_tangent(leaf):
            leaves.append(next(rest))
            continue
        parts = 2 if jnp.iscomplexobj(leaf) else 1
        values = flat[start : start + parts * leaf.size].reshape(parts, *leaf.shape)
        start += values.size
        value = values[0] if parts == 1 else jax.lax.complex(*values)
        leaves.append(value.astype(leaf.dtype))
    return leaves


def ravel_leaf(leaf: Array) -> tuple[Array, Callable[[Array], Array]]:
    """The real coordinates of a leaf of the parameters, and what makes a leaf of them."""
    flat, others = ravel([leaf])
    if others or flat.size == 0:
        raise ValueError(f"a leaf of {leaf.dtype}{list(leaf.shape)} in params has no derivative")
    return flat, lambda flat: unravel(flat, [], [leaf])[0]


def check_count(k: int | None, n: int) -> int:
    if k is None:
        return n
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and {n}, the size of the state, got {k}")
    return k


def check_steps(xs: Any, steps: int | None, burn_in: int) -> tuple[int, Any]:
    """How many steps to average over, and the inputs of these and of the burn-in."""
    length: Any = None
    if xs is not None:
        xs = jax.tree.map(jnp.asarray, xs)
        lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(xs)}
        if len(lengths) != 1 or () in lengths:
            raise ValueError("every leaf of xs needs a leading axis of time, of one length")
        ((length,),) = lengths
    if steps is None and length is None:
        raise ValueError("give steps or xs")
    count: int = length - burn_in if steps is None else steps
    if count < 1:
        raise ValueError(f"steps must be at least 1 past the burn-in, got {count}")
    total = burn_in + count
    if length is not None and total > length:
        raise ValueError(f"xs holds {length} steps, fewer than burn_in + steps = {total}")
    return count, jax.tree.map(lambda leaf: leaf[:total], xs)


@functools.partial(jax.jit, static_argnums=1)
def draw_frame(start: Array, k: int, key: Array | None) -> Array:
    """k random orthonormal tangents, as rows, so that no direction is favoured."""
    key = jax.random.key(0) if key is None else key
    return jnp.linalg.qr(jax.random.normal(key, (start.size, k), start.dtype))[0].T


def refuse_nonfinite(first: Array, total: int) -> None:
    try:
        step = int(first)
    except jax.errors.ConcretizationTypeError:
        return
    if step:
        raise ValueError(
            f"the orbit or one of its tangents is not finite after step {step} of {total}"
            " (burn-in included)"
        )
