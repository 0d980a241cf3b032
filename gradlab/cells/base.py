"""The Cell bundle, what its families share, and the registry."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab import initializers
from gradlab._names import choose
from gradlab._norms import widen
from gradlab.initializers import Initializer

Params = dict[str, Array]
State = Any
Drive = Any
Builder = Callable[..., "Cell"]

# What each family starts from: W orthogonal per gate, U_ij ~ N(0, 1/inputs), b = 0. One start for
# all, so that what two families measure differs by their recurrences; where the authors' own code
# starts elsewhere, the family's docstring says where.
RECURRENT = initializers.orthogonal()
INPUT = initializers.normal()
BIAS = jax.nn.initializers.zeros

_BUILDERS: dict[str, Builder] = {}


def _as_they_are(params: Params) -> Params:
    return params


class Cell(NamedTuple):
    """A recurrent map h_t = step(params, h_{t-1}, x_t), as a bundle of pure functions.

    Everything is unbatched; the caller applies `jax.vmap`. With H = `hidden`, D = `inputs`
    and G = `len(gates)`, parameters are a dict of stacked gate blocks, in the order of
    `gates`, used as `weight @ vector`: `"recurrent"` (G·H, H), `"input"` (G·H, D),
    `"bias"` (G·H,), and whatever else the family needs. A family whose recurrence is no matrix
    per gate says in its builder what these leaves are.

    Attributes:
        name: the family's name in the registry.
        gates: the names of the gate blocks, in their order in the parameters.
        hidden: H, the width of h.
        inputs: D, the width of x.
        init: `(key, dtype=None) -> params`. Every gate block is drawn on its own.
        start: `(dtype=None) -> state`, all zeros.
        project: `(params, x) -> drive`, all that does not need the state; x is (D,). A caller maps
            it over time in one product before the scan.
        advance: `(params, state, drive) -> state`, the recurrent part.
        read: `state -> h`, of shape (H,).
        matrices: `params -> W`, the square matrices through which the step reads the last state,
            (G, H, H), one for each gate (or fewer, where gates share one): what an audit measures.
        log_retention: `params -> ln k`, (H,), in nats per step: by what factor k a step multiplies
            each unit of the memory where nothing but the bias drives the gate that keeps it, ln
            σ(b_f) in an LSTM. The gate time constants are τ = -1 / ln k, in steps. `None` where no
            gate and no constant keeps the memory.
        prepare: `params -> params`, with what the steps need of the parameters alone (an orthogonal
            matrix from its generator) as one more leaf. The other functions take parameters
            prepared or not; a caller prepares them once, before a scan, since in its body the same
            would be computed, and differentiated, at every step. Most families have nothing to
            prepare.

    `dtype=None` is JAX's default float.
    """

    name: str
    gates: tuple[str, ...]
    hidden: int
    inputs: int
    init: Callable[..., Params]
    start: Callable[..., State]
    project: Callable[[Params, Array], Drive]
    advance: Callable[[Params, State, Drive], State]
    read: Callable[[State], Array]
    matrices: Callable[[Params], Array]
    log_retention: Callable[[Params], Array] | None = None
    prepare: Callable[[Params], Params] = _as_they_are

    def step(self, params: Params, state: State, x: Array) -> State:
        """One step, `advance(params, state, project(params, x))`."""
        return self.advance(params, state, self.project(params, x))


def register(builder: Builder) -> Builder:
    """Enter a builder into the registry under its own function name (a decorator)."""
    _BUILDERS[builder.__name__] = builder
    return builder


def names() -> tuple[str, ...]:
    """Return the name of every registered cell, sorted."""
    return tuple(sorted(_BUILDERS))


def options(name: str) -> tuple[str, ...]:
    """Return the arguments that the builder of a cell takes.

    >>> options("lstm")
    ('inputs', 'hidden', 'recurrent', 'input', 'bias', 'forget_bias')
    """
    choose("cell", name, _BUILDERS)
    return tuple(inspect.signature(_BUILDERS[name]).parameters)


def make(name: str, **options: Any) -> Cell:
    """Build a cell by name.

    Args:
        name: one of `names()`.
        options: the builder's own arguments; every family takes `inputs` and `hidden`.

    Raises:
        ValueError: for an unknown name or option, or a width below 1.

    >>> from gradlab import cells
    >>> cell = cells.make("lstm", inputs=3, hidden=5)
    >>> params = cell.init(jax.random.key(0))
    >>> state = cell.step(params, cell.start(), jnp.ones(3))
    >>> cell.read(state).shape
    (5,)
    """
    choose("cell", name, _BUILDERS)
    for option in options:
        choose(f"{name} option", option, inspect.signature(_BUILDERS[name]).parameters)
    return _BUILDERS[name](**options)


def stacked(gates: int, hidden: int) -> Callable[[Params], Array]:
    """The `matrices` of a cell whose recurrent weight is a stack of square gate blocks.

    >>> stacked(2, 3)({"recurrent": jnp.ones((6, 3))}).shape
    (2, 3, 3)
    """

    def matrices(params: Params) -> Array:
        return params["recurrent"].reshape(gates, hidden, hidden)

    return matrices


def biased(
    init: Callable[..., Params], gate: int, hidden: int, shift: ArrayLike
) -> Callable[..., Params]:
    """`init` with `shift`, a scalar or (H,), added to one gate's block of the bias.

    >>> biased(lambda key, dtype: {"bias": jnp.zeros(4)}, 1, 2, shift=5.0)(None)["bias"].tolist()
    [0.0, 0.0, 5.0, 5.0]
    """
    rows = slice(gate * hidden, (gate + 1) * hidden)

    def shifted(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = init(key, dtype)
        b = params["bias"]
        return params | {"bias": b.at[rows].add(jnp.asarray(shift, b.dtype))}

    return shifted


def kept(gate: int, hidden: int, sign: int = 1) -> Callable[[Params], Array]:
    """The `log_retention` of a memory kept by σ(sign·b), with b one gate's block of the bias.

    In float32 at least: float16 would call everything past e^17 steps for ever.

    >>> log_retention = kept(0, 2)({"bias": jnp.array([0.0, 5.0, 1.0, 1.0])})
    >>> [round(-1 / float(k), 1) for k in log_retention]
    [1.4, 148.9]
    """
    rows = slice(gate * hidden, (gate + 1) * hidden)

    def log_retention(params: Params) -> Array:
        return jax.nn.log_sigmoid(sign * widen(params["bias"][rows]))

    return log_retention


def preparing(leaf: str, compute: Callable[[Params], Array]) -> Callable[[Params], Params]:
    """The `prepare` that adds `leaf`, computed from the parameters, unless it is there.

    >>> prepare = preparing("double", lambda params: 2 * params["bias"])
    >>> prepare(prepare({"bias": 1.0}))
    {'bias': 1.0, 'double': 2.0}
    """

    def prepare(params: Params) -> Params:
        return params if leaf in params else params | {leaf: compute(params)}

    return prepare


def check_numbers(
    name: str, wanted: str, holds: Callable[[float], bool], **values: ArrayLike
) -> None:
    """Raise `ValueError` for a plain number that is not as wanted; arrays may be traced.

    >>> check_numbers("lem", "above 0", lambda v: v > 0, dt=-1.0)
    Traceback (most recent call last):
    ValueError: lem needs dt above 0, got -1.0
    """
    for what, value in values.items():
        if isinstance(value, int | float) and not holds(value):
            raise ValueError(f"{name} needs {what} {wanted}, got {value}")


def check_widths(name: str, *, inputs: int, hidden: int) -> None:
    """Raise `ValueError` for a width below 1."""
    for what, width in (("inputs", inputs), ("hidden", hidden)):
        if width < 1:
            raise ValueError(f"{name} needs {what} of at least 1, got {width}")


def gate_init(
    gates: int,
    inputs: int,
    hidden: int,
    recurrent: Initializer,
    input: Initializer,
    bias: Initializer,
) -> Callable[..., Params]:
    """The `init(key, dtype=None)` of what every family has, each gate from a key of its own."""
    draws = {
        "recurrent": (recurrent, (hidden, hidden)),
        "input": (input, (hidden, inputs)),
        "bias": (bias, (hidden,)),
    }

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        dtype = jnp.result_type(float) if dtype is None else dtype
        params = {}
        leaf_keys = jax.random.split(key, len(draws))
        for (name, (draw, shape)), leaf_key in zip(draws.items(), leaf_keys, strict=True):
            # One call for all gates: several batched QR factorizations in one program wait for
            # each other for ever in JAX's CPU thread pool when it has fewer threads than them.
            gate_keys = jax.random.split(leaf_key, gates)
            blocks = jax.vmap(functools.partial(draw, shape=shape, dtype=dtype))(gate_keys)
            params[name] = blocks.reshape(gates * shape[0], *shape[1:])
        return params

    return init


def zeros(hidden: int, dtype: DTypeLike | None = None) -> Array:
    """Return a zero vector (hidden,) in `dtype`, or in JAX's default float."""
    return jnp.zeros(hidden, jnp.result_type(float) if dtype is None else dtype)


def affine(params: Params, x: Array) -> Array:
    """U x + b, the drive of every family here."""
    return x @ params["input"].T + params["bias"]
