"""What a state remembers of parameters and of earlier states, forwards in time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradlab.spectrum._system import check_steps, push, ravel_leaf, ravel_step
from gradlab.spectrum._units import Rows, add, log_entries, log_norms, log_total, rescale


def log_sensitivity(
    step: Callable[..., Any],
    params: Any,
    state: Any,
    xs: Any,
    *,
    probes: int | None = None,
    key: Array | None = None,
) -> Any:
    """How far each state depends on the parameters: ln‖dh_t/dθ_l‖ over t, for each leaf θ_l.

    The total derivative S_t = dh_t/dθ, through all earlier steps, is carried forwards::

      S_t = J_t S_{t-1} + B_t,   J_t = ∂h_t/∂h_{t-1},   B_t = ∂h_t/∂θ,   S_0 = 0

    with ‖·‖ Frobenius' norm. Near an exponent of 0, ‖S_t‖ grows while ‖λ_t‖ stays of one size: a
    small change of the weights moves the state far. Each column of S_t is carried in its own unit,
    a power of two, so that it may leave the float's range.

    Args:
      step: ``step(params, state, x)``; returns the next state.
      params: θ, a pytree of the leaves to be measured; close over all others.
      state: h_0, which does not depend on θ.
      xs: x_1..x_T, a pytree whose leaves have one leading axis of time.
      probes: without it, the norms are exact, at the cost of one tangent for each entry of θ: a
        few thousand entries. With it, that many Gaussian vectors v of a leaf's shape stand for its
        entries, and √mean ‖S_t v‖² for ‖S_t‖: the square has no bias, and a relative standard error
        of √(2/probes) at most.
      key: draws the probes; without it, always the same ones.

    Returns:
      A pytree like ``params`` of (T,) arrays, in nats, row t-1 for step t: -inf for an exact zero,
      NaN from the step on at which the state or S_t is not finite.

    Raises:
      ValueError: for a leaf of ``params`` or a state without floats, inputs of several lengths,
        fewer than one probe, and a step that does not return the state's structure.

    A complex leaf, of the state or of θ, counts as two real coordinates per entry.

    >>> logs = log_sensitivity(lambda w, h, x: w * h + x, 1.0, 0.0, jnp.ones(4))
    >>> [round(float(size), 3) for size in jnp.exp(logs)]  # h_t = t, dh_t/dw = t (t - 1)/2
    [0.0, 1.0, 3.0, 6.0]

    Source: Zucchet & Orvieto, "Recurrent neural networks: vanishing and exploding gradients are not
    the end of the story" (2024), section 2; Williams & Zipser, "A learning algorithm for
    continually running fully recurrent neural networks" (1989), for the recursion.
    """
    if probes is not None and probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    leaves, tree = jax.tree.flatten(params)
    if not leaves:
        raise ValueError("params has no leaves: what is closed over is not measured")
    leaves = [jnp.asarray(leaf, jnp.result_type(leaf)) for leaf in leaves]
    places = [ravel_leaf(leaf) for leaf in leaves]
    system = ravel_step(lambda state, leaves, x: step(tree.unflatten(leaves), state, x), state)
    _, xs = check_steps(xs, None, 0)
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(leaves))
    vectors = [
        None if probes is None else jax.random.normal(k, (probes, flat.size), flat.dtype)
        for k, (flat, _) in zip(keys, places, strict=False)
    ]
    counts = [flat.size if probes is None else probes for flat, _ in places]
    ends = np.cumsum([0, *counts])

    def advance(carry: Any, x: Any) -> tuple[Any, Array]:
        (flat, others), tangents, ok = carry
        new = []
        for i, ((leaf, rebuild), rows) in enumerate(zip(places, vectors, strict=True)):

            def by_leaf(leaf: Array, i: int = i, rebuild: Any = rebuild) -> Array:
                every = [*leaves[:i], rebuild(leaf), *leaves[i + 1 :]]
                return system.move(flat, others, every, x)[0]

            new.append(_columns(by_leaf, leaf, rows))

        flat, others, rows = push(system, flat, others, tangents.rows, leaves, x)
        own = rescale(jnp.concatenate(new).astype(rows.dtype))
        tangents = add(rescale(rows, tangents.exponent), own)
        ok = ok & jnp.isfinite(flat).all()
        logs = log_norms(tangents)
        norms = [
            log_total(logs[a:b]) - (0 if probes is None else np.log(probes) / 2)
            for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]
        return ((flat, others), tangents, ok), jnp.where(ok, jnp.stack(norms), jnp.nan)

    # One program: each operation outside of it would be one.
    @jax.jit
    def run(xs: Any) -> list[Array]:
        nothing = rescale(jnp.zeros((ends[-1], system.start.size), system.start.dtype))
        carry = (system.start, system.others), nothing, jnp.isfinite(system.start).all()
        return list(jax.lax.scan(advance, carry, xs)[1].T)

    return tree.unflatten(run(xs))


def _columns(move: Callable[[Array], Array], leaf: Array, vectors: Array | None) -> Array:
    """∂move/∂leaf times each of the vectors; its own columns without any."""
    if vectors is not None:
        return jax.vmap(lambda v: jax.jvp(move, (leaf,), (v,))[1])(vectors)
    # Row by row: a state has fewer entries than its weights.
    value, pull = jax.vjp(move, leaf)
    return jax.vmap(lambda row: pull(row)[0])(jnp.eye(value.size, dtype=value.dtype)).T


def log_jacobian(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    at: tuple[int, ...] | None = None,
) -> Array:
    """ln|∂h_t,i / ∂h_0,j|: which unit still depends on which, after t steps.

    Each column of J_t ... J_1 is carried in its own unit, a power of two, past the float's range.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T; without it, all that ``xs`` holds.
      at: the steps t to return; without it, 1..T.

    Returns:
      (len(at), n, n) in nats, with i before j: -inf for an exact zero, where no path of nonzero
      entries of J_1..J_t leads from j to i. NaN for an entry that was lost more than 87 nats (708
      in float64) below the largest of its column, and where the orbit up to t, or the entry, is not
      finite. The diagonal is what a unit remembers of itself.

    Raises:
      ValueError: as ``lyapunov`` does for its arguments, and for a t outside 1..T.

    >>> W = jnp.array([[0.5, 0.1], [0.0, 0.5]])
    >>> logs = log_jacobian(lambda h: W @ h, jnp.zeros(2), steps=3)
    >>> [round(float(entry), 4) for entry in jnp.exp(logs[-1]).ravel()]
    [0.125, 0.075, 0.0, 0.125]

    Source: Zucchet & Orvieto (2024), section 2, for a recurrence that is diagonal and one that is
    not.
    """
    system = ravel_step(step, state)
    steps, xs = check_steps(xs, steps, 0)
    times = range(1, steps + 1) if at is None else at
    if not len(times):
        raise ValueError(f"at must hold steps between 1 and {steps}, got none")
    for t in times:
        if not 1 <= t <= steps:
            raise ValueError(f"at must hold steps between 1 and {steps}, got {t}")

    eye = jnp.eye(system.start.size, dtype=system.start.dtype)

    def advance(carry: Any, x: Any) -> tuple[Any, Rows]:
        (flat, others), columns, reach, ok = carry
        inputs = () if xs is None else (x,)
        flat, others, J = push(system, flat, others, eye, *inputs)
        columns = rescale(jnp.matmul(columns.rows, J, precision="highest"), columns.exponent)
        reach = ((reach @ (J != 0).astype(J.dtype)) > 0).astype(J.dtype)
        ok = ok & jnp.isfinite(flat).all()
        is_known = ok & ((columns.rows != 0) | (reach == 0))
        values = jnp.where(is_known, columns.rows, jnp.nan)
        return ((flat, others), columns, reach, ok), Rows(values, columns.exponent)

    @jax.jit
    def run(xs: Any) -> Array:
        carry = (system.start, system.others), rescale(eye), eye, jnp.isfinite(system.start).all()
        _, columns = jax.lax.scan(advance, carry, xs, length=steps)
        rows = np.array(times) - 1
        return log_entries(jax.tree.map(lambda part: part[rows], columns)).swapaxes(1, 2)

    return run(xs)
