"""The Cell bundle, what its families share, and the registry."""

import functools
import inspect
import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradlab import _show, initializers
from gradlab._names import choose
from gradlab._norms import widen
from gradlab._registry import Registry, is_own, takes
from gradlab.initializers import Initializer

Params = dict[str, Array]
State = Any
Drive = Any
Init = Callable[..., Params]
Gates = dict[str, Array]
Builder = Callable[..., "Cell"]

# What each family starts from: W orthogonal per gate, U_ij ~ N(0, 1/inputs), b = 0. One start for
# all, so that what two families measure differs by their recurrences; where the authors' own code
# starts elsewhere, the family's docstring says where.
RECURRENT = initializers.orthogonal()
INPUT = initializers.normal()
BIAS = jax.nn.initializers.zeros

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "erf": jax.scipy.special.erf,
    "linear": lambda a: a,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
}

# What the arguments mean that many families share: the text, and the error that it brings.
ARGUMENTS = {
    "inputs": ("D, the width of x_t, at least 1.", "a width below 1"),
    "hidden": ("H, the width of h_t and of every other part of the state, at least 1.", ""),
    "activation": ("φ, one of erf, linear, relu, tanh.", "an unknown activation"),
    "recurrent": (
        'initializer of W, (H, H) for each gate, `params["recurrent"]`; by default orthogonal.',
        "",
    ),
    "input": (
        'initializer of U, (H, D) for each gate, `params["input"]`; by default N(0, 1/D).',
        "",
    ),
    "bias": ('initializer of b, (H,) for each gate, `params["bias"]`; by default 0.', ""),
    "forget_bias": (
        "added by `init` to the f block of b; a scalar or (H,), possibly traced.",
        "",
    ),
}


class _Fields(NamedTuple):
    inputs: int
    hidden: int
    init: Init
    advance: Callable[[Params, State, Drive], State]
    name: str
    gates: tuple[str, ...]
    start: Callable[..., State]
    project: Callable[[Params, Array], Drive]
    read: Callable[[State], Array]
    matrices: Callable[[Params], Array]
    log_retention: Callable[[Params], Array] | None
    prepare: Callable[[Params], Params]
    gate_values: Callable[[Params, State, Array], Gates]


class Cell(_Fields):
    """A recurrent map h_t = step(params, h_{t-1}, x_t), as a bundle of pure functions.

    Everything is unbatched; the caller applies `jax.vmap`. With H = `hidden`, D = `inputs` and
    G = `len(gates)`, parameters are a dict of stacked gate blocks, in the order of `gates`, used
    as `weight @ vector`: `"recurrent"` (G·H, H), `"input"` (G·H, D), `"bias"` (G·H,), and whatever
    else the family needs. A family whose recurrence is no matrix per gate says in its builder what
    these leaves are.

    Only the first four have no default: with those alone the state is h itself, and the step is
    `advance(params, h, U x + b)`.

    Attributes:
        inputs: D, the width of x.
        hidden: H, the width of h.
        init: `(key, dtype=None) -> params`. Every gate block has its own draw. `gate_init` gives
            this function.
        advance: `(params, state, drive) -> state`, the recurrent part.
        name: the family's name in the registry, which `make` enters where a user's cell has none.
        gates: the names of the gate blocks, in their order in the parameters; by default ("h",).
        start: `(dtype=None) -> state`, all zeros; by default h = 0, (H,).
        project: `(params, x) -> drive`, all that does not need the state; x is (D,). A caller maps
            it over time in one product before the scan. By default U x + b.
        read: `state -> h`, of shape (H,); by default the state itself.
        matrices: `params -> W`, the square matrices through which the step reads the last state,
            (G, H, H), one for each gate (or fewer, where gates share one): what an audit measures.
            By default the blocks of `params["recurrent"]`.
        log_retention: `params -> ln k`, (H,), in nats per step: by what factor k a step multiplies
            each unit of the memory where nothing but the bias drives the gate that keeps it,
            ln σ(b_f) in an LSTM. The gate time constants are τ = -1 / ln k, in steps. None where
            no gate and no constant keeps the memory.
        prepare: `params -> params`, with what the steps need of the parameters alone (an orthogonal
            matrix from its generator) as one more leaf. The other functions take parameters
            prepared or not; a caller prepares them once, before a scan, since in its body the same
            would be computed, and differentiated, at every step. By default nothing is added.
        gate_values: `(params, state, x) -> {name: value}`, the gates that the step from the state
            h_{t-1} with the input x_t uses, after their nonlinearity; x is (D,), each value (H,)
            ((M,) in `lstm_projected`). A gate has the name of its block in `gates`, and its value
            is the factor that the step multiplies with, in [0, 1]; the families that rescale a gate
            first (`min_lstm`, `slstm`, `lem`) say so. A candidate, such as an LSTM's g, is no gate.
            Where a preactivation is NaN its gate is too. By default {}, for a cell without gates.

    `dtype=None` is JAX's default float.

    Raises:
        ValueError: for a width that is not an integer of at least 1.

    >>> def advance(params, h, drive):
    ...     return jnp.tanh(params["recurrent"] @ h + drive)
    >>> cell = Cell(2, 3, gate_init(2, 3), advance)
    >>> cell.step(cell.init(jax.random.key(0)), cell.start(), jnp.ones(2)).shape
    (3,)
    >>> cell.gate_values(cell.init(jax.random.key(0)), cell.start(), jnp.ones(2))
    {}

    The gates of a GRU along a sequence, each of shape (T, H), from the states before each step:

    >>> from gradlab import cells
    >>> gru, xs = cells.make("gru", inputs=2, hidden=3), jnp.ones((5, 2))
    >>> params = gru.init(jax.random.key(0))
    >>> _, before = jax.lax.scan(lambda h, x: (gru.step(params, h, x), h), gru.start(), xs)
    >>> gates = jax.vmap(gru.gate_values, (None, 0, 0))(params, before, xs)
    >>> {name: value.shape for name, value in gates.items()}
    {'r': (5, 3), 'z': (5, 3)}
    """

    __slots__ = ()

    def __new__(
        cls,
        inputs: int,
        hidden: int,
        init: Init,
        advance: Callable[[Params, State, Drive], State],
        name: str = "",
        gates: tuple[str, ...] = ("h",),
        start: Callable[..., State] | None = None,
        project: Callable[[Params, Array], Drive] | None = None,
        read: Callable[[State], Array] | None = None,
        matrices: Callable[[Params], Array] | None = None,
        log_retention: Callable[[Params], Array] | None = None,
        prepare: Callable[[Params], Params] | None = None,
        gate_values: Callable[[Params, State, Array], Gates] | None = None,
    ) -> "Cell":
        """Fill the defaults."""
        for what, width in (("inputs", inputs), ("hidden", hidden)):
            _check_width(name or "a cell", what, width)
        return super().__new__(
            cls,
            inputs,
            hidden,
            init,
            advance,
            name,
            gates,
            start or zero_state(hidden),
            project or affine,
            read or _identity,
            matrices or _blocks(name or "a cell", hidden),
            log_retention,
            prepare or _identity,
            gate_values or _no_gates,
        )

    def step(self, params: Params, state: State, x: Array) -> State:
        """One step, `advance(params, state, project(params, x))`."""
        return self.advance(params, state, self.project(params, x))

    def __repr__(self) -> str:
        gates = f", gates={self.gates}" if self.gates != ("h",) else ""
        name = f"{self.name!r}, " if self.name else ""
        return f"Cell({name}inputs={self.inputs}, hidden={self.hidden}{gates})"

    def _repr_html_(self) -> str:
        title = f"cell {self.name}" if self.name else "cell"
        try:
            params = jax.eval_shape(self.init, jax.random.key(0))
            rows = [(name, _show.shape(leaf)) for name, leaf in params.items()]
            state = _form(jax.eval_shape(self.start))
        except Exception:  # a user's cell may need what a picture of it does not have
            return _show.table(title, [("inputs", self.inputs), ("hidden", self.hidden)])
        facts = [("inputs", self.inputs), ("hidden", self.hidden), ("gates", ", ".join(self.gates))]
        rows = [(f'params["{name}"]', text) for name, text in rows]
        return _show.table(title, [*facts, ("state", state), *rows])


def _check_width(name: str, what: str, width: int) -> None:
    try:
        wide = operator.index(width) >= 1
    except TypeError:
        raise ValueError(f"{name} needs {what} to be an integer, got {width!r}") from None
    if not wide:
        raise ValueError(f"{name} needs {what} of at least 1, got {width}")


def _identity(value: Any) -> Any:
    return value


def _no_gates(params: Params, state: State, x: Array) -> Gates:
    return {}


def _blocks(name: str, hidden: int) -> Callable[[Params], Array]:
    """The `matrices` of a cell whose recurrent weight is a stack of square blocks."""

    def matrices(params: Params) -> Array:
        W = params.get("recurrent")
        if W is None or W.ndim != 2 or W.shape[1] != hidden or W.shape[0] % hidden:
            raise ValueError(
                f'{name} has no params["recurrent"] of shape (G·H, H) with H = {hidden}: '
                "give its Cell the function matrices"
            )
        return W.reshape(-1, hidden, hidden)

    return matrices


def _adapt(function: Builder) -> Builder:
    """A user's builder that checks the cell that it returns, and names it."""
    if is_own(function):
        return function
    name = function.__name__
    if not (takes(function, "inputs") and takes(function, "hidden")):
        raise ValueError(f"the cell {name} needs the arguments inputs and hidden")

    @functools.wraps(function)
    def build(**options: Any) -> Cell:
        cell = function(**options)
        if not isinstance(cell, Cell):
            raise ValueError(
                f"the cell {name} must return a gradlab.cells.Cell, got {type(cell).__name__}"
            )
        for what in ("inputs", "hidden"):
            if what in options and getattr(cell, what) != options[what]:
                raise ValueError(
                    f"the cell {name} must have {what}={options[what]}, "
                    f"got {what}={getattr(cell, what)}"
                )
        _check_step(name, cell)
        return cell if cell.name else cell._replace(name=name)

    return build


def _check_step(name: str, cell: Cell) -> None:
    """Raise `ValueError` for a cell whose step changes the form of its state, or whose gates are
    no dict of vectors. Runs no step."""

    def run(key: Array, x: Array) -> tuple[State, State, Array, Gates]:
        start, params = cell.start(jnp.float32), cell.init(key, jnp.float32)
        state = cell.step(params, start, x)
        return start, state, cell.read(state), cell.gate_values(params, start, x)

    x = jax.ShapeDtypeStruct((cell.inputs,), jnp.float32)
    start, state, h, gates = jax.eval_shape(run, jax.random.key(0), x)
    if not isinstance(gates, dict) or any(
        len(getattr(g, "shape", ())) != 1 for g in gates.values()
    ):
        raise ValueError(
            f"the gate_values of the cell {name} must be a dict of name -> (H,), got {_form(gates)}"
        )
    if _form(start) != _form(state):
        raise ValueError(f"the step of the cell {name} turns {_form(start)} into {_form(state)}")
    if _form(h) != _form(jax.ShapeDtypeStruct((cell.hidden,), jnp.float32)):
        raise ValueError(f"the cell {name} must read float32[{cell.hidden}], got {_form(h)}")


def _form(state: State) -> str:
    def form(leaf: Any) -> str:
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"

    return str(jax.tree.map(form, state)).replace("'", "")


REGISTRY: Registry[Builder] = Registry("cell", _adapt)


def register(builder: Any = None, *, version: str | None = None) -> Any:
    """Enter a builder of cells under its own name, `@register` or `@register(version="2")`.

    The builder takes `inputs` and `hidden`, returns a `Cell`, and may take what sweeps vary:
    `recurrent`, `input`, `bias`, `forget_bias`, `activation`, `dt`. An argument `**options` takes
    every option that a sweep names.

    Args:
        builder: the function.
        version: a text that changes whenever something changes that the code does not show, such
            as a data file that it reads.

    Returns:
        The builder, unchanged. A name that a user has registered before stands for the new one.

    Raises:
        ValueError: for a name of gradlab's own, or a builder that does not take `inputs` and
            `hidden`. `make` raises it where the builder returns no `Cell`, or one whose step
            changes the shape or dtype of its state.

    A whole cell, h_t = 0.9 tanh(W h_{t-1} + U x_t + b):

    >>> from gradlab import cells
    >>> @cells.register
    ... def damped(inputs, hidden, recurrent=None, input=None, bias=None):
    ...     def advance(params, h, drive):
    ...         return 0.9 * jnp.tanh(params["recurrent"] @ h + drive)
    ...     init = cells.gate_init(inputs, hidden, recurrent, input, bias)
    ...     return cells.Cell(inputs, hidden, init, advance)
    >>> cell = cells.make("damped", inputs=3, hidden=5)
    >>> cell.name, cell.step(cell.init(jax.random.key(0)), cell.start(), jnp.ones(3)).shape
    ('damped', (5,))
    >>> cells.REGISTRY.remove("damped")
    """
    return REGISTRY.register(builder, version=version)


def names() -> tuple[str, ...]:
    """The name of every registered cell, sorted."""
    return REGISTRY.names()


def options(name: str) -> tuple[str, ...]:
    """The named arguments that the builder of a cell takes.

    >>> options("lstm")
    ('inputs', 'hidden', 'recurrent', 'input', 'bias', 'forget_bias')
    """
    return REGISTRY.options(name)


def make(name: str, **options: Any) -> Cell:
    """Build a cell by name.

    Args:
        name: one of `names()`.
        options: the builder's own arguments; every family takes `inputs` and `hidden`.

    Raises:
        ValueError: for an unknown name or option, a width below 1, or a user's builder that
            returns no `Cell`.

    >>> from gradlab import cells
    >>> cell = cells.make("lstm", inputs=3, hidden=5)
    >>> params = cell.init(jax.random.key(0))
    >>> state = cell.step(params, cell.start(), jnp.ones(3))
    >>> cell.read(state).shape
    (5,)
    """
    return REGISTRY.make(name, **options)


def register_family(builder: Builder) -> Builder:
    """Enter one of gradlab's own builders, and explain in its docstring what families share.

    An argument of `ARGUMENTS` that the docstring does not explain gets the text there, and the
    errors that come with the arguments get their lines under "Raises".
    """
    if builder.__doc__:  # None under python -OO
        builder.__doc__ = _explain(inspect.cleandoc(builder.__doc__), _parameters(builder))
    return REGISTRY.register(builder)


def _parameters(builder: Builder) -> tuple[str, ...]:
    return tuple(inspect.signature(builder).parameters)


def _explain(doc: str, parameters: tuple[str, ...]) -> str:
    head, args, rest = _split_section(doc, "Args:")
    entries = {match[1]: match[0] for match in re.finditer(r"    (\w+): .*(\n {5,}.*)*", args)}
    for name in parameters:
        if name not in entries:
            entries[name] = f"    {name}: {ARGUMENTS[name][0]}"
    args = "\n".join(["Args:", *(entries[name] for name in parameters)])

    before, raises, after = _split_section(rest, "Raises:")
    errors = [ARGUMENTS[name][1] for name in parameters if name in ARGUMENTS]
    lines = [f"    ValueError: for {error}." for error in errors if error]
    raises = "\n".join([raises or "Raises:", *lines])
    return "\n\n".join(part for part in (head, args, before, raises, after) if part)


def _split_section(doc: str, title: str) -> tuple[str, str, str]:
    """What stands before a section of a docstring, the section, and what follows it.

    A docstring without the section is cut where the example begins.
    """
    paragraphs = doc.split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        if paragraph.startswith(title):
            return "\n\n".join(paragraphs[:i]), paragraph, "\n\n".join(paragraphs[i + 1 :])
    first = ("Raises:", ">>>") if title == "Args:" else (">>>",)
    i = next((i for i, p in enumerate(paragraphs) if p.startswith(first)), len(paragraphs))
    return "\n\n".join(paragraphs[:i]), "", "\n\n".join(paragraphs[i:])


def activation_function(name: str) -> Callable[[Array], Array]:
    """φ by its name; `ValueError` for another.

    >>> float(activation_function("relu")(-1.0))
    0.0
    """
    choose("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def gate_init(
    inputs: int,
    hidden: int,
    recurrent: Initializer | None = None,
    input: Initializer | None = None,
    bias: Initializer | None = None,
    gates: int = 1,
) -> Init:
    """The `init` of a cell's weights: W and U and b, each gate's block from its own key.

    Args:
        inputs: D, the width of x.
        hidden: H, the width of h.
        recurrent: initializer of W, (H, H) for each gate, `params["recurrent"]`; None: orthogonal.
        input: initializer of U, (H, D) for each gate, `params["input"]`; None: N(0, 1/D).
        bias: initializer of b, (H,) for each gate, `params["bias"]`; None: 0.
        gates: G, the number of blocks in each stack.

    Returns:
        `(key, dtype=None) -> params`; `dtype=None` is JAX's default float.

    >>> params = gate_init(3, 2, gates=4)(jax.random.key(0))
    >>> {name: leaf.shape for name, leaf in params.items()}
    {'recurrent': (8, 2), 'input': (8, 3), 'bias': (8,)}
    """
    draws = {
        "recurrent": (recurrent or RECURRENT, (hidden, hidden)),
        "input": (input or INPUT, (hidden, inputs)),
        "bias": (bias or BIAS, (hidden,)),
    }

    def init(key: Array, dtype: DTypeLike | None = None) -> Params:
        dtype = jnp.result_type(float) if dtype is None else dtype
        params = {}
        leaf_keys = jax.random.split(key, len(draws))
        for (name, (draw, shape)), leaf_key in zip(draws.items(), leaf_keys, strict=True):
            # One call for all gates: several batched QR factorizations in one program deadlock
            # when JAX's CPU thread pool has fewer threads than QR calls.
            gate_keys = jax.random.split(leaf_key, gates)
            blocks = jax.vmap(functools.partial(draw, shape=shape, dtype=dtype))(gate_keys)
            params[name] = blocks.reshape(gates * shape[0], *shape[1:])
        return params

    return init


def add_leaves(init: Init, **draws: tuple[Initializer, tuple[int, ...]]) -> Init:
    """`init` with more leaves, each from its own key: name=(initializer, shape).

    >>> zeros = jax.nn.initializers.zeros
    >>> init = add_leaves(lambda key, dtype: {"bias": jnp.zeros(2, dtype)}, scale=(zeros, (3,)))
    >>> init(jax.random.key(0), jnp.float32)["scale"].shape
    (3,)
    """

    def init_all(key: Array, dtype: DTypeLike | None = None) -> Params:
        first_key, *keys = jax.random.split(key, 1 + len(draws))
        params = init(first_key, dtype)
        dtype = params["bias"].dtype
        leaves = zip(draws.items(), keys, strict=True)
        return params | {name: draw(key, shape, dtype) for (name, (draw, shape)), key in leaves}

    return init_all


def keep_leaves(init: Init, rows: int | None, *names: str) -> Init:
    """`init` with only the first `rows` rows of the named leaves; None drops the other leaves.

    >>> init = keep_leaves(lambda key, dtype: {"bias": jnp.zeros(4), "input": 0}, 2, "bias")
    >>> init(None)["bias"].shape
    (2,)
    """

    def init_some(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = init(key, dtype)
        if rows is None:
            return {name: params[name] for name in names}
        return params | {name: params[name][:rows] for name in names}

    return init_some


def shift_bias(init: Init, gate: int, hidden: int, shift: ArrayLike) -> Init:
    """`init` with `shift`, a scalar or (H,), added to one gate's block of the bias.

    >>> shift_bias(lambda key, dtype: {"bias": jnp.zeros(4)}, 1, 2, 5.0)(None)["bias"].tolist()
    [0.0, 0.0, 5.0, 5.0]
    """
    rows = slice(gate * hidden, (gate + 1) * hidden)

    def init_with_shift(key: Array, dtype: DTypeLike | None = None) -> Params:
        params = init(key, dtype)
        b = params["bias"]
        return params | {"bias": b.at[rows].add(jnp.asarray(shift, b.dtype))}

    return init_with_shift


def gate_retention(gate: int, hidden: int, sign: int = 1) -> Callable[[Params], Array]:
    """The `log_retention` of a memory that σ(sign·b) keeps, with b one gate's bias.

    >>> log_retention = gate_retention(0, 2)({"bias": jnp.array([0.0, 5.0, 1.0, 1.0])})
    >>> [round(-1 / float(k), 1) for k in log_retention]
    [1.4, 148.9]
    """
    rows = slice(gate * hidden, (gate + 1) * hidden)

    def log_retention(params: Params) -> Array:
        # In float16, σ(b) rounds to 1 for every time constant past e^17 steps.
        return jax.nn.log_sigmoid(sign * widen(params["bias"][rows]))

    return log_retention


def gates_at(
    open_gates: Callable[[Params, State, Drive], tuple[Gates, Any]],
    project: Callable[[Params, Array], Drive] | None = None,
) -> Callable[[Params, State, Array], Gates]:
    """The `gate_values` of a family whose `advance` computes its gates by `open_gates`.

    Args:
        open_gates: `(params, state, drive) -> (gates, rest)`, with whatever else `advance` needs of
            the same preactivations as the rest. Since `advance` calls it too, what is shown is what
            the step uses.
        project: the family's own, by default U x + b.

    >>> def open_gates(params, h, drive):
    ...     return {"z": jax.nn.sigmoid(drive)}, None
    >>> gate_values = gates_at(open_gates, lambda params, x: params["scale"] * x)
    >>> gate_values({"scale": 0.0}, None, jnp.ones(2))["z"].tolist()
    [0.5, 0.5]
    """
    project = project or affine

    def gate_values(params: Params, state: State, x: Array) -> Gates:
        gates, _ = open_gates(params, state, project(params, x))
        return gates

    return gate_values


def add_leaf(leaf: str, compute: Callable[[Params], Array]) -> Callable[[Params], Params]:
    """The `prepare` that adds `leaf`, computed from the parameters, unless it is there.

    >>> prepare = add_leaf("double", lambda params: 2 * params["bias"])
    >>> prepare(prepare({"bias": 1.0}))
    {'bias': 1.0, 'double': 2.0}
    """

    def prepare(params: Params) -> Params:
        return params if leaf in params else params | {leaf: compute(params)}

    return prepare


def check_numbers(
    name: str, condition: str, holds: Callable[[float], bool], **values: ArrayLike
) -> None:
    """Raise `ValueError` for a plain number that breaks a condition; arrays may be traced.

    NaN breaks every condition, since no comparison holds for it.

    >>> check_numbers("lem", "above 0", lambda v: v > 0, dt=-1.0)
    Traceback (most recent call last):
    ValueError: lem needs dt above 0, got -1.0
    """
    for what, value in values.items():
        if isinstance(value, int | float) and not holds(value):
            raise ValueError(f"{name} needs {what} {condition}, got {value}")


def zero_state(hidden: int, kind: Callable[..., State] | None = None) -> Callable[..., State]:
    """The `start` of a cell: zeros (H,), one for each field of the state's `kind`.

    Args:
        hidden: H.
        kind: a NamedTuple of vectors; None where the state is h alone.

    >>> zero_state(2)().tolist()
    [0.0, 0.0]
    """
    leaves = len(getattr(kind, "_fields", ()))

    def start(dtype: DTypeLike | None = None) -> State:
        zeros = jnp.zeros(hidden, jnp.result_type(float) if dtype is None else dtype)
        return zeros if kind is None else kind(*[zeros] * leaves)

    return start


def read_field(name: str) -> Callable[[State], Array]:
    """The `read` of a cell whose state is a NamedTuple with h under that name."""

    # Not operator.attrgetter, which jax.jit refuses: it takes no weak references.
    def read(state: State) -> Array:
        return getattr(state, name)

    return read


def affine(params: Params, x: Array) -> Array:
    """U x + b, the drive of most families."""
    return linear(params, x) + params["bias"]


def linear(params: Params, x: Array) -> Array:
    """U x, the drive of the families whose bias enters elsewhere."""
    return x @ params["input"].T
