"""Lyapunov exponents, and singular values of long Jacobian products, of any step function.

A step maps a state to the next one, ``step(state)`` or ``step(state, x)``. The state is any pytree;
its floating-point leaves, ravelled, are the n coordinates of the Jacobian J_t = ∂h_t/∂h_{t-1}. A
complex leaf counts as two real coordinates per entry; integer leaves go along without a tangent.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# More batches resolve the error better, fewer are longer against the correlation time.
_BATCHES = 20
_MOST_SWEEPS = 40


class LyapunovSpectrum(NamedTuple):
    """The first k Lyapunov exponents of an orbit, and how far to trust them.

    Attributes:
      exponents: λ_1..λ_k in the order of the tangent frame, in nats per step (per unit of time
        where ``dt`` gives one); -inf where a tangent was lost exactly.
      stderr: the standard error of each by batch means: the spread of the means of up to 20
        batches of successive steps, so correlations that are short against a batch are paid for.
        NaN with fewer than two batches.
      convergence: |mean over the second half - mean over the first half| of each.
      steps: the number of steps that the means are over, burn-in not counted.
      first_nonfinite_step: the first step, counted from 1 and with the burn-in, after which the
        state or a tangent was not finite; 0 if there was none.
    """

    exponents: Array
    stderr: Array
    convergence: Array
    steps: int
    first_nonfinite_step: Array

    @property
    def kaplan_yorke(self) -> Array:
        """The Kaplan-Yorke dimension of these exponents; see ``kaplan_yorke``."""
        return kaplan_yorke(self.exponents)

    @property
    def entropy_rate(self) -> Array:
        """The entropy rate of these exponents; see ``entropy_rate``."""
        return entropy_rate(self.exponents)


def lyapunov(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    burn_in: int = 0,
    qr_every: int = 1,
    dt: ArrayLike = 1.0,
    key: Array | None = None,
) -> LyapunovSpectrum:
    """The first k Lyapunov exponents along an orbit, by QR of k tangents.

    A frame Q (n, k) of orthonormal tangents is carried along the orbit and made orthonormal again
    every s = ``qr_every`` steps, with J the product of the s Jacobians between::

      J Q = Q' R
      λ_i = mean of ln|R_ii| / (s dt)

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T, how many steps to average over; without it, all that ``xs`` holds past the burn-in.
      k: how many exponents, the largest first; all n without it.
      burn_in: how many steps to make first, with the orbit and the frame, that no mean sees.
      qr_every: s, which must divide ``steps`` and ``burn_in``.
      dt: the time that a step takes; exponents are per unit of it.
      key: draws the first frame; without it, always the same one.

    Returns:
      A ``LyapunovSpectrum``. Under ``jit`` or ``vmap`` a divergent orbit shows in its
      ``first_nonfinite_step``, and its exponents mean nothing.

    Raises:
      ValueError: for a k outside 1..n, counts that do not fit together, a step that does not
        return the state's structure, shapes and dtypes, and (outside ``jit`` and ``vmap``) an
        orbit that does not stay finite: at which step.

    Outside ``jit`` every call compiles. With s > 1 the tangents lean towards the leading ones for
    s steps: λ_i is lost in rounding where s (λ_1 - λ_i) > -ln eps, 15.9 in float32, and everything
    where s |λ| leaves the float's range, 87 in float32. A singular Jacobian leaves rounding as
    well, an exponent near λ_1 + ln eps / s. On a CPU, QR is LAPACK's: with hundreds of exponents on
    cores that others use as well, set OPENBLAS_NUM_THREADS=1, since its threads wait by spinning.

    >>> spectrum = lyapunov(lambda h: 4 * h * (1 - h), 0.3, steps=1000, burn_in=100)
    >>> round(float(spectrum.exponents[0]), 2)
    0.69

    Source: Benettin, Galgani, Giorgilli & Strelcyn, "Lyapunov characteristic exponents for smooth
    dynamical systems" (1980); Geist, Parlitz & Lauterborn, "Comparison of different methods for
    computing Lyapunov exponents" (1990).
    """
    system = _system(step, state, xs)
    k = _count(k, system.start.size)
    if burn_in < 0 or qr_every < 1:
        raise ValueError(
            f"burn_in must be at least 0 and qr_every at least 1, got {burn_in} and {qr_every}"
        )
    steps, xs = _steps(xs, steps, burn_in)
    if steps % qr_every or burn_in % qr_every:
        raise ValueError(
            f"qr_every must divide steps and burn_in, got {qr_every}, {steps} and {burn_in}"
        )
    intervals = steps // qr_every
    batches = min(_BATCHES, intervals)
    batch = np.arange(intervals) * batches // intervals
    # The burn-in adds to a row of its own, which nobody reads.
    rows = np.concatenate([np.full(burn_in // qr_every, batches), batch])

    def interval(carry: Any, inputs: Any) -> tuple[Any, None]:
        moving, sums = carry
        row, x = inputs
        (orbit, frame, *count), _ = jax.lax.scan(system.advance, moving, x, length=qr_every)
        Q, R = jnp.linalg.qr(frame.T)
        # The sign of R_ii is left as it falls: nothing here reads it.
        growth = jnp.log(jnp.abs(jnp.diagonal(R)))
        sums = jax.lax.dynamic_update_index_in_dim(sums, sums[row] + growth, row, 0)
        return ((orbit, Q.T, *count), sums), None

    if xs is not None:
        xs = jax.tree.map(lambda leaf: leaf.reshape(-1, qr_every, *leaf.shape[1:]), xs)
    sums = jnp.zeros((batches + 1, k), system.start.dtype)
    carry = (system.begin(_frame(system.start, k, key)), sums)
    (moving, sums), _ = jax.lax.scan(interval, carry, (jnp.asarray(rows), xs))
    first_nonfinite_step = moving[-1]
    _refuse_nonfinite(first_nonfinite_step, burn_in + steps)

    sums = sums[:-1] / jnp.asarray(dt, sums.dtype)
    lengths = np.bincount(batch) * qr_every
    exponents = sums.sum(0) / steps
    stderr = convergence = jnp.full_like(exponents, jnp.nan)
    if batches > 1:
        # Σ (sum_b - T_b λ)² / T², where the mean of batch b is sum_b / T_b.
        excess = (sums - jnp.asarray(lengths, sums.dtype)[:, None] * exponents[None]) / steps
        stderr = jnp.sqrt((excess**2).sum(0) * (batches / (batches - 1)))
        half = batches // 2
        first = sums[:half].sum(0) / lengths[:half].sum()
        second = sums[half:].sum(0) / lengths[half:].sum()
        convergence = jnp.abs(second - first)
    return LyapunovSpectrum(exponents, stderr, convergence, steps, first_nonfinite_step)


def log_singular_values(
    step: Callable[..., Any],
    state: Any,
    xs: Any = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    key: Array | None = None,
) -> Array:
    """Log singular values of J = ∂h_T/∂h_0 = J_T ... J_1, far past the float's range.

    A full frame is carried by QR from a random orthogonal Q_0, and the triangular factors are
    multiplied in units of their diagonals, so that nothing over- or underflows::

      J Q_0 = Q_T D U,   D = exp(diag(d)),   U unit upper triangular and of order 1

    The singular values of D U come from one-sided Jacobi rotations of its rows, whose scales stay
    logarithms. For ∂h_T/∂h_t start at the state h_t, with the inputs from t + 1 on.

    Args:
      step: ``step(state)``, or ``step(state, x)`` where ``xs`` is given; returns the next state.
      state: h_0, where the orbit starts.
      xs: inputs, a pytree whose leaves have one leading axis of time.
      steps: T; without it, all that ``xs`` holds.
      k: how many to return, the largest first; all n without it. The work is that of all.
      key: draws Q_0; without it, always the same one.

    Returns:
      (k,), descending, in nats.

    Raises:
      ValueError: as ``lyapunov`` does.

    The result is exact for Jacobians that differ from those given by a few eps of their norm each:
    a log is off by about eps √T where the steps are well conditioned, and by up to eps T κ for the
    smallest, κ being the condition number of a step. An exact zero of a step shows as about ln eps
    rather than -inf.

    >>> W = jnp.diag(jnp.array([2.0, 0.5]))
    >>> logs = log_singular_values(lambda h: W @ h, jnp.zeros(2), steps=2000)
    >>> [round(float(log), 1) for log in logs]
    [1386.3, -1386.3]

    Source: Oliveira & Stewart, "Exponential splittings of products of matrices and accurately
    computing singular values of long products" (2000); Demmel & Veselić, "Jacobi's method is more
    accurate than QR" (1992), on why the rows' scales cost no accuracy.
    """
    system = _system(step, state, xs)
    n = system.start.size
    k = _count(k, n)
    steps, xs = _steps(xs, steps, 0)

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        moving, logs, U = carry
        (orbit, frame, *count), _ = system.advance(moving, x)
        Q, R = jnp.linalg.qr(frame.T)
        return ((orbit, Q.T, *count), *_times_graded(R, logs, U)), None

    moving = system.begin(_frame(system.start, n, key))
    identity = jnp.zeros_like(system.start), jnp.eye(n, dtype=system.start.dtype)
    (moving, logs, U), _ = jax.lax.scan(advance, (moving, *identity), xs, length=steps)
    _refuse_nonfinite(moving[-1], steps)
    return _graded_singular_values(logs, U)[:k]


def kaplan_yorke(exponents: ArrayLike) -> Array:
    """The Kaplan-Yorke dimension: where the sum of the largest exponents turns negative.

    With the exponents in descending order and j the most of them whose sum is not negative::

      D = j + (λ_1 + ... + λ_j) / |λ_{j+1}|

    Args:
      exponents: (..., k), in any order.

    Returns:
      D, of shape (...); 0 where every exponent is negative. Where no partial sum is negative, k:
      the dimension if these are all exponents, a lower bound if they are the first k.

    >>> round(float(kaplan_yorke(jnp.array([0.9, 0.0, -14.5]))), 3)
    2.062

    Source: Frederickson, Kaplan, Yorke & Yorke, "The Liapunov dimension of strange attractors"
    (1983), equation 3.
    """
    exponents = jnp.sort(jnp.asarray(exponents), axis=-1, descending=True)
    sums = jnp.cumsum(exponents, axis=-1)
    # The partial sums rise, then fall: once negative, they stay so.
    negative = sums < 0
    turn = negative & (jnp.cumsum(negative, axis=-1) == 1)
    before = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    part = jnp.where(turn, before / jnp.abs(exponents), 0)
    return jnp.sum(jnp.where(negative, part, 1), axis=-1)


def entropy_rate(exponents: ArrayLike) -> Array:
    """The sum of the positive exponents, h = Σ_i max(λ_i, 0), in nats per step (or unit of time).

    The Kolmogorov-Sinai entropy where Pesin's identity holds, an upper bound of it elsewhere.

    Args:
      exponents: (..., k).

    Returns:
      h, of shape (...).

    >>> float(entropy_rate(jnp.array([0.5, 0.25, -3.0])))
    0.75

    Source: Pesin, "Characteristic Lyapunov exponents and smooth ergodic theory" (1977); Ruelle, "An
    inequality for the entropy of differentiable maps" (1978) for the bound.
    """
    return jnp.sum(jnp.maximum(jnp.asarray(exponents), 0), axis=-1)


class _System(NamedTuple):
    """A step on ravelled states.

    ``begin(frame)`` is a carry (orbit, frame, steps made, first non-finite step) for the scan body
    ``advance``. A frame holds a tangent in each row.
    """

    start: Array
    begin: Callable[[Array], Any]
    advance: Callable[[Any, Any], tuple[Any, None]]


def _system(step: Callable[..., Any], state: Any, xs: Any) -> _System:
    leaves, tree = jax.tree.flatten(state)
    leaves = [jnp.asarray(leaf, jnp.result_type(leaf)) for leaf in leaves]
    start, others = _ravel(leaves)
    if start.size == 0:
        raise ValueError("the state has no floating-point entries, so it has no Jacobian")

    def begin(frame: Array) -> Any:
        return (start, others), frame, jnp.int32(0), jnp.int32(0)

    def advance(carry: Any, x: Any) -> tuple[Any, None]:
        (flat, others), frame, made, bad = carry
        inputs = () if xs is None else (x,)

        def move(flat: Array) -> tuple[Array, list[Array]]:
            new = step(jax.tree.unflatten(tree, _unravel(flat, others, leaves)), *inputs)
            new, new_tree = jax.tree.flatten(new)
            new = [jnp.asarray(leaf) for leaf in new]
            if new_tree != tree or _kinds(new) != _kinds(leaves):
                raise ValueError(
                    "step must return a state like the one it takes: "
                    f"it takes {tree} of {_kinds(leaves)}, returns {new_tree} of {_kinds(new)}"
                )
            return _ravel(new)

        def along(tangent: Array) -> tuple[Array, Array, list[Array]]:
            return jax.jvp(move, (flat,), (tangent,), has_aux=True)

        # The state depends on no tangent: its rows are all the same, and computed once.
        flats, frame, others = jax.vmap(along)(frame)
        flat, others = flats[0], [rows[0] for rows in others]
        finite = jnp.isfinite(flat).all() & jnp.isfinite(frame).all()
        bad = jnp.where((bad == 0) & ~finite, made + 1, bad)
        return ((flat, others), frame, made + 1, bad), None

    return _System(start, begin, advance)


def _kinds(leaves: list[Array]) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)


def _has_tangent(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _ravel(leaves: list[Array]) -> tuple[Array, list[Array]]:
    """The real coordinates of the leaves that have a tangent, and the other leaves."""
    parts = [jnp.zeros(0, jnp.float32)]  # QR knows no narrower floats
    for leaf in filter(_has_tangent, leaves):
        both = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
        parts += [part.ravel() for part in both]
    return jnp.concatenate(parts), [leaf for leaf in leaves if not _has_tangent(leaf)]


def _unravel(flat: Array, others: list[Array], like: list[Array]) -> list[Array]:
    """The leaves that ``_ravel`` took apart."""
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


def _count(k: int | None, n: int) -> int:
    if k is None:
        return n
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and {n}, the size of the state, got {k}")
    return k


def _steps(xs: Any, steps: int | None, burn_in: int) -> tuple[int, Any]:
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


def _frame(start: Array, k: int, key: Array | None) -> Array:
    """k random orthonormal tangents, as rows, so that no direction is favoured."""
    key = jax.random.key(0) if key is None else key
    return jnp.linalg.qr(jax.random.normal(key, (start.size, k), start.dtype))[0].T


def _refuse_nonfinite(first: Array, total: int) -> None:
    try:
        step = int(first)
    except jax.errors.ConcretizationTypeError:
        return
    if step:
        raise ValueError(
            f"the orbit or one of its tangents is not finite after step {step} of {total}"
            " (burn-in included)"
        )


def _times_graded(R: Array, logs: Array, U: Array) -> tuple[Array, Array]:
    """Write R exp(diag(logs)) U as exp(diag(logs')) U', with U' unit upper triangular again."""
    size = jnp.abs(jnp.diagonal(R))
    scaled = R * _ratio(logs) / jnp.where(size == 0, 1, size)[:, None]
    return logs + jnp.log(size), scaled @ U


def _ratio(logs: Array) -> Array:
    """The upper triangle of exp(logs_j - logs_i), 1 where they are equal."""
    apart = logs[None, :] - logs[:, None]
    apart = jnp.where(logs[None, :] == logs[:, None], 0, apart)
    return jnp.triu(jnp.exp(jnp.triu(apart)))


def _graded_singular_values(logs: Array, rows: Array) -> Array:
    """Log singular values of exp(diag(logs)) rows, descending."""
    n = logs.size
    # A QR step of the transpose, which keeps the values, leaves rows that are orthogonal but for
    # those of like scale: rotations have less to do.
    for _ in range(2):
        order = jnp.argsort(-logs)
        logs, rows = logs[order], rows[order]
        rows = jnp.linalg.qr(rows.T)[1] * _ratio(logs)
    if n % 2:
        # One more row, orthogonal to all others, so that all have a partner.
        rows = jnp.pad(rows, ((0, 1), (0, 1))).at[-1, -1].set(1)
        logs = jnp.pad(logs, (0, 1), constant_values=-jnp.inf)
    half = logs.size // 2
    # A round robin: row i meets row half + i, then all but the first move on by one seat.
    seats = np.arange(2 * half)
    ring = np.concatenate([seats[1:half], seats[half:][::-1]])
    reseat = seats.copy()
    reseat[ring] = np.roll(ring, 1)

    def meet(carry: Any, _: None) -> tuple[Any, Array]:
        logs, rows = carry
        # Within a pair everything is in units of the larger row a.
        swap = logs[half:] > logs[:half]
        (log_a, log_b), (a, b) = _halves(logs, swap), _halves(rows, swap[:, None])
        twice = jnp.where(log_b == -jnp.inf, -jnp.inf, 2 * (log_b - log_a))
        size, gap = jnp.exp(twice), -jnp.expm1(twice)
        cosine = jnp.sum(a * b, axis=1)
        # tan of the angle that makes them orthogonal, over their ratio √size.
        tilt = 2 * cosine / (gap + jnp.sqrt(gap**2 + 4 * size * cosine**2))
        tilt = jnp.where(cosine == 0, 0, tilt)
        turn = -0.5 * jnp.log1p(size * tilt**2)
        logs = jnp.concatenate([log_a + turn, log_b + turn])
        rows = jnp.concatenate([a + (size * tilt)[:, None] * b, b - tilt[:, None] * a])
        logs = jnp.concatenate(_halves(logs, swap))
        rows = jnp.concatenate(_halves(rows, swap[:, None]))
        logs, rows = _unit(logs[reseat], rows[reseat])
        return (logs, rows), jnp.abs(cosine).max()

    def sweep(carry: Any) -> Any:
        logs, rows, _, made = carry
        (logs, rows), cosines = jax.lax.scan(meet, (logs, rows), length=2 * half - 1)
        return logs, rows, cosines.max(), made + 1

    def unfinished(carry: Any) -> Array:
        _, _, cosine, made = carry
        return (cosine > 2 * half * jnp.finfo(logs.dtype).eps) & (made < _MOST_SWEEPS)

    start = (*_unit(logs, rows), jnp.ones((), logs.dtype), 0)
    logs = jax.lax.while_loop(unfinished, sweep, start)[0]
    return jnp.sort(logs, descending=True)[:n]


def _halves(array: Array, swap: Array) -> tuple[Array, Array]:
    """The first and the second half of an array, exchanged where ``swap``."""
    first, second = jnp.split(array, 2)
    return jnp.where(swap, second, first), jnp.where(swap, first, second)


def _unit(logs: Array, rows: Array) -> tuple[Array, Array]:
    """Bring the rows to norm 1 and their lengths into the logs."""
    size = jnp.linalg.norm(rows, axis=1)
    return logs + jnp.log(size), rows / jnp.where(size == 0, 1, size)[:, None]
