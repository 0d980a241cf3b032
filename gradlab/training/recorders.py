"""Functions of the parameters for `gl.train(record={name: f})`, and where what they record can go.

Each function here builds an f(params), a pure function for `jax.jit`; keep what it returns and give
the same object to every training, since another one compiles again. A `matrix` is a function
params -> W, such as `lambda params: cell.matrices(params["cell"])`; a `step` is
(params, state, x) -> state, such as `lambda params, *at: cell.step(params["cell"], *at)`. Numbers
narrower than float32 are taken to float32 first.

`on_record=` sends each row on as it comes, as (update, {name: array}); a leaf of a
pytree is named "name.path". Weights & Biases::

    wandb.init(project="radius", id="first", resume="allow")
    def sink(update, values):
        sizes = {name: abs(v) if np.iscomplexobj(v) else v for name, v in values.items()}
        finite = {name: v[np.isfinite(v)] if v.ndim else v for name, v in sizes.items()}
        wandb.log({name: wandb.Histogram(v) if v.ndim else v.item()
                   for name, v in finite.items() if v.size}, update)
    run = gl.train(..., record=record, on_record=sink)

TensorBoard, with `tensorboardX` or `torch.utils.tensorboard`::

    writer = SummaryWriter("logs")
    def sink(update, values):
        for name, value in values.items():
            size = abs(value) if np.iscomplexobj(value) else value
            if not size.ndim:
                writer.add_scalar(name, size, update)
            elif np.isfinite(size).any():
                writer.add_histogram(name, size[np.isfinite(size)], update)

A histogram of either holds no value that is not finite (a lost exponent is -inf, a norm of NaN
is NaN), and an error in `on_record` ends the training.

Plain CSV, as `gl.frames.records(run).to_csv(path)` at the end, or row by row:

>>> import csv, sys, optax, gradlab as gl
>>> rows = csv.writer(sys.stdout, lineterminator="\\n")
>>> run = gl.train(lambda w, x: ((w - x) ** 2).sum(), jnp.eye(2),
...     lambda key, step: jnp.ones((2, 2)),
...     optax.sgd(0.25), steps=4, key=jax.random.key(0), record_every=2,
...     record={"radius": spectral_radius(lambda w: w)},
...     on_record=lambda update, values: rows.writerow([update, f"{values['radius']:.3f}"]))
0,1.000
2,1.750
4,1.938
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from gradlab import spectrum
from gradlab._norms import log_norm

__all__ = [
    "eigenvalues",
    "fixed_point_eigenvalues",
    "hessian_eigenvalues",
    "jacobian_eigenvalues",
    "log_gradient_norms",
    "log_norms",
    "lyapunov",
    "participation_ratio",
    "singular_values",
    "spectral_radius",
    "states",
    "time_constants",
]


def __dir__() -> list[str]:
    return sorted(__all__)


Function = Callable[[Any], Any]
Step = Callable[[Any, Any, Any], Any]


def eigenvalues(matrix: Function) -> Function:
    """λ_i of W v_i = λ_i v_i, the largest modulus first.

    Args:
        matrix: params -> W, (..., n, n).

    Returns:
        params -> λ, (..., n), complex. Of a conjugate pair the one with the positive imaginary part
        comes first. NaN for a matrix that is not finite.

    >>> f = eigenvalues(lambda params: params["w"])
    >>> f({"w": jnp.array([[0.0, -2.0], [2.0, 0.0]])}).round(3).tolist()
    [2j, -2j]

    Source: LAPACK's geev.
    """

    def function(params: PyTree) -> Array:
        return _eigenvalues(matrix(params))

    return function


def spectral_radius(matrix: Function) -> Function:
    """ρ(W) = max_i |λ_i|.

    Args:
        matrix: params -> W, (..., n, n).

    Returns:
        params -> ρ, (...). NaN for a matrix that is not finite.

    >>> f = spectral_radius(lambda params: params["w"])
    >>> float(f({"w": jnp.array([[0.0, 8.0], [2.0, 0.0]])}))
    4.0

    Source: Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks"
    (2001), for its use with recurrent networks.
    """

    def function(params: PyTree) -> Array:
        return jnp.abs(_eigenvalues(matrix(params))).max(-1)

    return function


def singular_values(matrix: Function) -> Function:
    """s_i, the square roots of the eigenvalues of WᴴW, the largest first.

    Args:
        matrix: params -> W, (..., m, n).

    Returns:
        params -> s, (..., min(m, n)). NaN for a matrix that is not finite.

    >>> f = singular_values(lambda params: params["w"])
    >>> s = f({"w": jnp.array([[0.0, 2.0], [-3.0, 0.0]])})
    >>> [round(float(value), 3) for value in s]
    [3.0, 2.0]

    Source: Saxe, McClelland & Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks" (2014), for how they grow with learning.
    """

    def function(params: PyTree) -> Array:
        return jnp.linalg.svd(_wide(matrix(params)), compute_uv=False)

    return function


def log_norms(of: Function | None = None) -> Function:
    """ln‖θ_l‖₂ of each leaf θ_l of the parameters, in nats.

    Args:
        of: params -> the pytree whose leaves are measured; by default the params themselves.

    Returns:
        params -> a pytree like that one with a scalar for each leaf: -inf where all its entries are
        0, NaN where one is NaN. No square leaves the float's range.

    >>> log_norms()({"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)})["b"].tolist()
    -inf
    """

    def function(params: PyTree) -> PyTree:
        return jax.tree.map(log_norm, params if of is None else of(params))

    return function


def log_gradient_norms(loss: Callable[..., Any], batch: Any, *, has_aux: bool = False) -> Function:
    """ln‖∂L/∂θ_l‖₂ of each leaf θ_l of the parameters, for one batch that stays, in nats.

    Args:
        loss: (params, batch) -> L, as for `train`.
        batch: what every evaluation is of.
        has_aux: whether the loss also reports a dict.

    Returns:
        params -> a pytree like the params with a scalar for each leaf: -inf for an exact zero, NaN
        where an entry of the gradient is NaN.

    >>> f = log_gradient_norms(lambda w, x: (w["a"] * x).sum(), jnp.array([3.0, 4.0]))
    >>> round(float(f({"a": jnp.ones(2)})["a"]), 3)
    1.609

    Source: Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks" (2016), figure 4,
    for norms of gradients over training.
    """
    gradient = jax.grad(loss, has_aux=has_aux)

    def function(params: PyTree) -> PyTree:
        grads = gradient(params, batch)
        return jax.tree.map(log_norm, grads[0] if has_aux else grads)

    return function


def hessian_eigenvalues(
    loss: Callable[..., Any],
    batch: Any,
    *,
    k: int = 1,
    iterations: int | None = None,
    has_aux: bool = False,
) -> Function:
    """The k largest eigenvalues of H = ∂²L/∂θ², for one batch that stays.

    Args:
        loss: (params, batch) -> L, as for `train`.
        batch: what every evaluation is of.
        k: how many eigenvalues.
        iterations: of Lanczos; see `gradlab.spectrum.hessian_eigenvalues`.
        has_aux: whether the loss also reports a dict.

    Returns:
        params -> (k,), the largest first: NaN where a product with H is not finite.

    Raises:
        ValueError: as `gradlab.spectrum.hessian_eigenvalues`, when the function is called.

    >>> f = hessian_eigenvalues(lambda w, x: (x * w**2).sum(), jnp.array([1.0, 4.0]), k=2)
    >>> [round(float(value), 3) for value in f(jnp.ones(2))]
    [8.0, 2.0]

    Source: Cohen, Kaur, Li, Kolter & Talwalkar, "Gradient descent on neural networks typically
    occurs at the edge of stability" (2021), for the largest over training.
    """

    def function(params: PyTree) -> Array:
        def value(params: PyTree) -> Any:
            return loss(params, batch)[0] if has_aux else loss(params, batch)

        return spectrum.hessian_eigenvalues(value, params, k=k, iterations=iterations).values

    return function


def time_constants(cell: Any, of: Function | None = None) -> Function:
    """τ = -1 / ln k, how many steps a unit's memory lasts where nothing but the bias drives a gate.

    With k the factor by which a step multiplies the memory, σ(b_f) in an LSTM.

    Args:
        cell: a `gradlab.cells.Cell` with `log_retention`, which gives ln k.
        of: params -> the cell's own parameters; by default the params themselves.

    Returns:
        params -> τ, (H,), in steps: inf for a unit that forgets nothing, NaN where a bias is.

    Raises:
        ValueError: for a cell without gates or constants that keep its memory.

    >>> import gradlab as gl
    >>> cell = gl.cells.make("lstm", inputs=1, hidden=2, forget_bias=jnp.log(jnp.array([9, 99])))
    >>> [round(t, 2) for t in time_constants(cell)(cell.init(jax.random.key(0))).tolist()]
    [9.49, 99.5]

    Source: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), section 2.
    """
    log_retention = cell.log_retention
    if log_retention is None:
        raise ValueError(
            f"the cell {cell.name or 'that was given'} has no gate and no constant that keeps its "
            "memory (its log_retention is None), so it has no time constants"
        )

    def function(params: PyTree) -> Array:
        # Not -1 / ln k, which would be -inf for a positive zero.
        return 1 / (0.0 - _wide(log_retention(params if of is None else of(params))))

    return function


def states(step: Step, state: Any, xs: Any) -> Function:
    """h_1..h_T of h_t = step(params, h_{t-1}, x_t), each ravelled.

    Args:
        step: (params, state, x) -> the next state.
        state: h_0, a pytree.
        xs: x_1..x_T, a pytree whose leaves have one leading axis of time.

    Returns:
        params -> (T, n), what the other functions can be built on; NaN from where an orbit is.

    >>> f = states(lambda w, h, x: w * h + x, 0.0, jnp.ones(3))
    >>> f(2.0).tolist()
    [[1.0], [3.0], [7.0]]
    """

    def function(params: PyTree) -> Array:
        def body(h: Any, x: Any) -> tuple[Any, Array]:
            h = step(params, h, x)
            return h, ravel_pytree(h)[0]

        return jax.lax.scan(body, _start(state), xs)[1]

    return function


def participation_ratio(states: Function) -> Function:
    """D = (Σ_i μ_i)² / Σ_i μ_i², of how many directions the states make use.

    With μ_i the eigenvalues of the covariance C of the states, computed as tr(C)² / tr(C²).

    Args:
        states: params -> (..., n), real or complex, all leading axes being samples; see `states`.

    Returns:
        params -> D, a scalar between 1 and n. NaN for states that are all equal, but for rounding,
        or not finite.

    >>> float(participation_ratio(lambda h: h)(jnp.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])))
    2.0

    Source: Gao, Trautmann, Yu, Santhanam, Ryu, Shenoy & Ganguli, "A theory of multineuronal
    dimensionality, dynamics and measurement" (2017), equation 2.
    """

    def function(params: PyTree) -> Array:
        h = _wide(states(params))
        h = h.reshape(-1, h.shape[-1])
        rounding = 4 * jnp.finfo(h.dtype).eps * jnp.abs(h).max()
        # Again, since the rounding of a mean is left of states that are all equal.
        for _ in range(2):
            h = h - h.mean(0, keepdims=True)
        # D is that of any multiple of the states: their squares stay in range.
        largest = jnp.abs(h).max()
        h = h / jnp.where(largest > rounding, largest, jnp.nan)
        covariance = h.conj().T @ h
        return jnp.trace(covariance).real ** 2 / (jnp.abs(covariance) ** 2).sum()

    return function


def lyapunov(
    step: Step, state: Any, xs: Any, *, k: int, burn_in: int = 0, qr_every: int = 1
) -> Function:
    """λ_1..λ_k, the first Lyapunov exponents along given inputs, by `gradlab.spectrum.lyapunov`.

    λ_i is the mean of ln|R_ii| over the steps after the burn-in, with J_t Q_{t-1} = Q_t R_t.

    Args:
        step: (params, state, x) -> the next state.
        state: h_0, a pytree.
        xs: x_1..x_T, a pytree whose leaves have one leading axis of time.
        k: how many exponents, the largest first.
        burn_in: how many of the steps no mean sees.
        qr_every: steps between two factorizations.

    Returns:
        params -> λ, (k,), in nats per step: -inf where a tangent is lost exactly, NaN where the
        orbit does not stay finite.

    Raises:
        ValueError: as `gradlab.spectrum.lyapunov`, when the function is called.

    >>> f = lyapunov(lambda w, h, x: w * h + x, jnp.zeros(2), jnp.ones((20, 2)), k=1)
    >>> round(float(f(0.5)[0]), 3)
    -0.693

    Source: Engelken, "Gradient flossing: improving gradient descent through dynamic control of
    Jacobians" (2023), figure 1, for exponents over training.
    """

    def function(params: PyTree) -> Array:
        def move(h: Any, x: Any) -> Any:
            return step(params, h, x)

        def exponents() -> Array:
            estimate = spectrum.lyapunov(move, state, xs, k=k, burn_in=burn_in, qr_every=qr_every)
            return estimate.exponents

        # Compiled, an orbit that is not finite gives NaN and does not raise.
        return jax.jit(exponents)()

    return function


def jacobian_eigenvalues(
    step: Step, state: Any, xs: Any, *, at: tuple[int, ...] | None = None
) -> Function:
    """Eigenvalues of J_t = ∂h_t/∂h_{t-1} along given inputs, the largest modulus first.

    Args:
        step: (params, state, x) -> the next state.
        state: h_0, a pytree; a complex leaf counts as two real coordinates per entry.
        xs: x_1..x_T, a pytree whose leaves have one leading axis of time.
        at: the steps t, 1..T, at which to take J_t; by default the last. For fixed points, which
            move with the parameters, see `fixed_point_eigenvalues`.

    Returns:
        params -> (len(at), n), complex. NaN where J_t is not finite.

    Raises:
        ValueError: for a step outside 1..T.

    >>> f = jacobian_eigenvalues(lambda w, h, x: jnp.tanh(w * h + x), 0.0, jnp.zeros(4), at=(1, 4))
    >>> f(0.5).tolist()
    [[(0.5+0j)], [(0.5+0j)]]

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks"
    (2013), equation 5.
    """
    if not jax.tree.leaves(xs):
        raise ValueError("xs has no leaves, and their length is the number of steps")
    length = len(jax.tree.leaves(xs)[0])
    steps = (length,) if at is None else tuple(at)
    for t in steps:
        if not 1 <= t <= length:
            raise ValueError(f"at must hold steps between 1 and {length}, got {t}")
    rows = jnp.array(steps) - 1

    def function(params: PyTree) -> Array:
        def move(h: Any, x: Any) -> Any:
            return step(params, h, x)

        _, before = jax.lax.scan(lambda h, x: (move(h, x), h), _start(state), xs)
        inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], (before, xs))
        return _eigenvalues(jax.vmap(lambda h, x: spectrum.jacobian(move, h, x))(*inputs))

    return function


def fixed_point_eigenvalues(step: Step, states: Any, x: Any, **options: Any) -> Function:
    """Eigenvalues of ∂h_t/∂h_{t-1} at fixed points h* = step(params, h*, x), searched each time.

    Args:
        step: (params, state, x) -> the next state.
        states: where the searches start, a pytree whose leaves have one leading axis of M: as in
            `gradlab.spectrum.fixed_points`.
        x: the input that stays.
        options: of `gradlab.spectrum.fixed_points`, such as `steps`.

    Returns:
        params -> (M, n), complex, the largest modulus first. NaN where a search ended at no fixed
        point.

    Raises:
        ValueError: as `gradlab.spectrum.fixed_points`, when the function is called.

    >>> f = fixed_point_eigenvalues(lambda w, h, x: jnp.tanh(w * h + x), jnp.array([[0.5]]), 0.0)
    >>> [round(float(f(w)[0, 0].real), 3) for w in (0.5, 1.5)]  # w (1 - h*²)
    [0.5, 0.394]

    Source: Sussillo & Barak, "Opening the black box: low-dimensional dynamics in high-dimensional
    recurrent neural networks" (2013), section 2.
    """

    def function(params: PyTree) -> Array:
        def move(h: Any, x: Any) -> Any:
            return step(params, h, x)

        points = spectrum.fixed_points(move, states, x, **options)
        return jnp.where(points.found[:, None], points.eigenvalues, jnp.nan)

    return function


def _start(state: Any) -> Any:
    """The state as arrays: a plain number would change its type in a scan."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)


def _wide(values: Any) -> Array:
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _eigenvalues(matrix: Any) -> Array:
    values = jnp.linalg.eigvals(_wide(matrix))
    # The two of a conjugate pair have equal moduli: the imaginary parts say which comes first.
    order = jnp.lexsort((-values.imag, -jnp.abs(values)))
    return jnp.take_along_axis(values, order, axis=-1)
