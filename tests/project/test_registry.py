"""The registries of cells, initializers, tasks and input sources, and what users register there."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradlab as gl
from gradlab import _registry, cells, initializers, tasks
from gradlab.cells import base

KEY = jax.random.key(0)
REGISTRIES = {
    "cell": cells.REGISTRY,
    "initializer": initializers.REGISTRY,
    "task": tasks.REGISTRY,
    "input": tasks.INPUTS,
}
REGISTER = {
    "cell": cells.register,
    "initializer": initializers.register,
    "task": tasks.register,
    "input": tasks.register_input,
}
every_kind = pytest.mark.parametrize("kind", REGISTRIES)


@pytest.fixture(autouse=True)
def clean():
    """Forget what a test registers: the laws of other tests go over all registered names."""
    before = {kind: registry.names() for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        for name in set(registry.names()) - set(before[kind]):
            registry.remove(name)


def a_cell(factor=0.5):
    def mine(inputs, hidden, recurrent=None, input=None, bias=None):
        def advance(params, h, drive):
            return factor * jnp.tanh(params["recurrent"] @ h + drive)

        return cells.Cell(
            inputs, hidden, cells.gate_init(inputs, hidden, recurrent, input, bias), advance
        )

    return mine


def an_initializer(factor=0.5):
    def mine(key, shape, dtype):
        return factor * jnp.ones(shape, dtype)

    return mine


def a_task(factor=0.5):
    def mine(length=4):
        def sample(key, dtype=None):
            xs = jax.random.normal(key, (length, 1), dtype or float)
            return xs, factor * xs[-1]

        def loss(outputs, target):
            return jnp.sum((outputs - target) ** 2)

        return tasks.Task("mine", length, 1, 1, False, sample, loss, loss, {}, 0.1)

    return mine


def a_source(factor=0.5):
    def mine(key, length, features, dtype=None):
        return factor * jax.random.normal(key, (length, features), dtype)

    return mine


EXAMPLES = {"cell": a_cell, "initializer": an_initializer, "task": a_task, "input": a_source}


def number(kind):
    """A number that shows the factor of an example, by the registry's own `make`."""
    registry = REGISTRIES[kind]
    if kind == "cell":
        cell = registry.make("mine", inputs=1, hidden=1)
        params = {name: jnp.full((1, 1), 100.0) for name in ("recurrent", "input")}
        return cell.step(params | {"bias": jnp.zeros(1)}, cell.start(), jnp.ones(1))[0]
    if kind == "initializer":
        return registry.make("mine")(KEY, (1, 1))[0, 0]
    if kind == "task":
        xs, target = registry.make("mine").sample(KEY)
        return target[0] / xs[-1, 0]
    return registry.make("mine")(KEY, 1, 1)[0, 0] / jax.random.normal(KEY, (1, 1))[0, 0]


# Laws over every registry


@every_kind
def test_a_user_s_function_is_registered_and_made(kind):
    function = EXAMPLES[kind](0.5)
    assert REGISTER[kind](function) is function
    assert "mine" in REGISTRIES[kind].names()
    assert number(kind) == pytest.approx(0.5)


@every_kind
def test_a_name_that_is_registered_again_stands_for_the_newer_function(kind):
    fingerprints = []
    for factor in (0.5, 0.25):
        REGISTER[kind](EXAMPLES[kind](factor))
        assert number(kind) == pytest.approx(factor)
        fingerprints.append(REGISTRIES[kind].fingerprint("mine"))
    assert fingerprints[0] != fingerprints[1]
    REGISTER[kind](EXAMPLES[kind](0.5))
    assert REGISTRIES[kind].fingerprint("mine") == fingerprints[0]


@every_kind
def test_a_version_is_part_of_the_fingerprint(kind):
    function = EXAMPLES[kind]()
    found = []
    for version in (None, "1", "2"):
        assert REGISTER[kind](version=version)(function) is function
        found.append(REGISTRIES[kind].fingerprint("mine"))
    assert len(set(found)) == 3


@every_kind
def test_names_of_gradlab_s_own_are_refused(kind):
    registry = REGISTRIES[kind]
    for name in registry.names():
        mine = EXAMPLES[kind]()
        mine.__name__ = name
        with pytest.raises(ValueError, match=f"^{name} is an? {kind} of gradlab's own; give yours"):
            REGISTER[kind](mine)
        assert not registry.is_foreign(name)
        assert registry.fingerprint(name) == ""
        with pytest.raises(ValueError, match="gradlab's own"):
            registry.remove(name)


def test_a_copy_of_gradlab_s_name_and_module_is_still_the_user_s():
    @functools.wraps(cells.lstm)
    def mine(*args, **options):
        return cells.lstm(*args, **options)

    assert mine.__module__ == "gradlab.cells.lstm"
    with pytest.raises(ValueError, match="lstm is a cell of gradlab's own"):
        cells.register(mine)


def test_an_initializer_cannot_take_the_name_of_one_for_biases():
    def chrono(key, shape, dtype):
        return jnp.zeros(shape, dtype)

    with pytest.raises(ValueError, match="chrono is an initializer of gradlab's own"):
        initializers.register(chrono)


@every_kind
@pytest.mark.parametrize(
    "thing", [3, lambda key: key, functools.partial(a_cell)], ids=["number", "lambda", "partial"]
)
def test_what_has_no_name_is_refused(kind, thing):
    with pytest.raises(ValueError, match=f"an? {kind} is registered"):
        REGISTER[kind](thing)


@every_kind
def test_unknown_names_and_options_list_the_valid_ones(kind):
    registry = REGISTRIES[kind]
    REGISTER[kind](EXAMPLES[kind]())
    for call in (registry.make, registry.options, registry.fingerprint, registry.remove):
        with pytest.raises(ValueError, match=f"unknown {kind} 'mime'; did you mean 'mine'"):
            call("mime")
    with pytest.raises(ValueError, match="unknown mine option 'nothing'"):
        registry.make("mine", nothing=1)


@every_kind
def test_a_builder_with_options_takes_every_option(kind):
    given = {}

    def mine(inputs=1, hidden=1, **options):
        given.update(options)
        return {
            "cell": lambda: a_cell()(inputs, hidden),
            "initializer": an_initializer,
            "task": a_task(),
            "input": a_source,
        }[kind]()

    REGISTER[kind](mine)
    registry = REGISTRIES[kind]
    assert registry.options("mine") == ("inputs", "hidden")
    assert registry.takes("mine", "whatever") and not registry.takes(registry.names()[0], "what")
    registry.make("mine", whatever=3)
    assert given == {"whatever": 3}


@every_kind
def test_docstrings_of_the_register_functions_have_an_example(kind):
    assert ">>> @" in inspect.getdoc(REGISTER[kind])


def test_the_decorators_are_public():
    assert gl.cells.register is cells.register
    assert {"register", "REGISTRY", "BIASES"} <= set(initializers.__all__)
    assert {"register", "register_input", "REGISTRY", "INPUTS"} <= set(tasks.__all__)


# What each kind asks of a user's function


def test_the_options_of_gradlab_s_own_are_those_of_their_signatures():
    assert cells.options("elman") == (
        "inputs", "hidden", "activation", "recurrent", "input", "bias"
    )  # fmt: skip
    assert cells.REGISTRY.takes("lstm", "forget_bias")
    assert not cells.REGISTRY.takes("elman", "forget_bias")
    for name in initializers.names():
        assert initializers.REGISTRY.takes(name, "gain")
    assert tasks.INPUTS.options("gaussian") == ()


def test_a_cell_gets_its_name_where_it_has_none():
    cells.register(a_cell())
    assert cells.make("mine", inputs=2, hidden=3).name == "mine"


def test_a_cell_that_is_another_cell_stays_that_one():
    def mine(inputs, hidden):
        return cells.lstm(inputs, hidden, forget_bias=3.0)

    cells.register(mine)
    # Remedies know the gates of an lstm by its name.
    assert cells.make("mine", inputs=2, hidden=3).name == "lstm"


def test_a_cell_needs_inputs_and_hidden():
    def mine(width):
        return width

    with pytest.raises(ValueError, match="the cell mine needs the arguments inputs and hidden"):
        cells.register(mine)


def replaced(**fields):
    def mine(inputs, hidden):
        return a_cell()(inputs, hidden)._replace(**fields)

    return mine


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda inputs, hidden: None, "must return a gradlab.cells.Cell, got NoneType"),
        (replaced(hidden=7), "must have hidden=3, got hidden=7"),
        (
            replaced(advance=lambda params, h, drive: h[:2]),
            r"turns float32\[3\] into float32\[2\]",
        ),
        (
            replaced(advance=lambda params, h, drive: h.astype("float16")),
            r"turns float32\[3\] into float16\[3\]",
        ),
        (replaced(advance=lambda params, h, drive: (h, h)), r"into \(float32\[3\], float32\[3\]\)"),
        (replaced(read=lambda h: h[0]), r"must read float32\[3\], got float32\[\]"),
    ],
)
def test_a_builder_that_returns_no_cell_is_refused(function, message):
    function.__name__ = "mine"
    cells.register(function)
    with pytest.raises(ValueError, match=message) as raised:
        cells.make("mine", inputs=2, hidden=3)
    assert "cell mine" in str(raised.value)


def test_a_cell_without_a_stack_of_matrices_says_what_it_needs():
    def mine(inputs, hidden):
        cell = a_cell()(inputs, hidden)
        return cell._replace(init=lambda key, dtype=None: {"W": 0}, advance=lambda p, h, drive: h)

    cell = mine(2, 3)
    with pytest.raises(ValueError, match='has no params."recurrent".*give its Cell the function'):
        cell.matrices({"W": jnp.zeros((3, 3))})


@pytest.mark.parametrize("widths", [(0, 3), (2, -1), (2.5, 3), ("2", 3)])
def test_widths_are_integers_of_at_least_one(widths):
    with pytest.raises(ValueError, match="a cell needs (inputs|hidden)"):
        a_cell()(*widths)


def test_the_short_form_of_a_cell_is_elman_s_network():
    def advance(params, h, drive):
        return jnp.tanh(h @ params["recurrent"].T + drive)

    short, elman = cells.Cell(2, 3, cells.gate_init(2, 3), advance), cells.elman(2, 3)
    params, x = elman.init(KEY), jnp.arange(2.0)
    for ours, theirs in ((short, elman), (elman, short)):
        jax.tree.map(np.testing.assert_array_equal, ours.init(KEY), theirs.init(KEY))
        np.testing.assert_array_equal(ours.matrices(params), theirs.matrices(params))
        np.testing.assert_array_equal(ours.start(), theirs.start())
        np.testing.assert_array_equal(
            ours.step(params, ours.start(), x), theirs.step(params, theirs.start(), x)
        )
    assert short.gates == elman.gates == ("h",)
    assert short.prepare(params) is params
    assert short.log_retention is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_gain_multiplies_what_a_user_s_initializer_draws(dtype):
    def direct(key, shape, dtype):
        return jax.random.normal(key, shape, dtype)

    def builder():
        return direct

    drawn = direct(KEY, (2, 3), dtype)
    for function in (direct, builder):
        initializers.register(function)
        name = function.__name__
        assert initializers.REGISTRY.options(name) == ("gain",)
        W = initializers.make(name, gain=3.0)(KEY, (2, 3), dtype)
        np.testing.assert_array_equal(W, jnp.asarray(3.0, dtype) * drawn)
        assert W.dtype == dtype
        # A float64 gain under a float32 draw, as sweeps trace it.
        traced = jax.jit(lambda g: initializers.make(name, gain=g)(KEY, (2, 3), dtype))  # noqa: B023
        assert traced(np.float64(3)).dtype == dtype


def test_an_initializer_s_own_gain_is_its_own():
    def builder(gain=2.0):
        return lambda key, shape, dtype: jnp.full(shape, gain**2, dtype)

    def direct(key, shape, dtype, gain=2.0, *, power=2):
        return jnp.full(shape, gain**power, dtype)

    for function in (builder, direct):
        initializers.register(function)
        assert initializers.make(function.__name__)(KEY, (1, 1)) == 4
        assert initializers.make(function.__name__, gain=3.0)(KEY, (1, 1)) == 9
    assert initializers.REGISTRY.options("direct") == ("gain", "power")
    assert initializers.make("direct", gain=3.0, power=3)(KEY, (1, 1)) == 27


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda key, shape, dtype: jnp.zeros(shape[:1], dtype), r"draw float64\[2, 3\], got flo"),
        (lambda key, shape, dtype: jnp.zeros(shape, "float32"), r"got float32\[2, 3\]"),
        (lambda key, shape, dtype: jnp.zeros(shape, complex), r"got complex128\[2, 3\]"),
        (lambda key, shape, dtype: None, "got a NoneType"),
        (lambda: jnp.zeros((2, 3)), r"must return a function \(key, shape, dtype\)"),
    ],
)
def test_what_an_initializer_draws_is_checked(draw, message):
    draw.__name__ = "mine"
    initializers.register(draw)
    with pytest.raises(ValueError, match=f"the initializer mine.*{message}"):
        initializers.make("mine")(KEY, (2, 3), jnp.float64)


@pytest.mark.parametrize(
    "kind, function",
    [
        ("initializer", lambda key, shape: 0),
        ("initializer", lambda key, dtype, shape: 0),
        ("input", lambda key, length, features: 0),
        ("input", lambda key: 0),
    ],
)
def test_arguments_that_are_missing_are_named(kind, function):
    function.__name__ = "mine"
    with pytest.raises(ValueError, match=f"the {kind} mine needs the arguments .key, "):
        REGISTER[kind](function)


def test_a_source_may_have_options_or_a_builder():
    def direct(key, length, features, dtype=None, *, scale=1.0):
        return scale * jnp.ones((length, features), dtype)

    def builder(scale=1.0):
        return lambda key, length, features, dtype=None: scale * jnp.ones((length, features), dtype)

    for function in (direct, builder):
        tasks.register_input(function)
        assert tasks.INPUTS.options(function.__name__) == ("scale",)
        assert tasks.make_input(function.__name__, scale=3.0)(KEY, 1, 1) == 3
        assert tasks.make_input(function.__name__)(KEY, 4, 2).dtype == jnp.float64
        assert tasks.make_input(function.__name__)(KEY, 4, 2, jnp.float32).dtype == jnp.float32


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda key, length, features, dtype: jnp.zeros((features, length), dtype), "got float64"),
        (lambda key, length, features, dtype: jnp.zeros((length, features), int), "got int64"),
        (lambda: 3, "must return a function"),
    ],
)
def test_what_a_source_draws_is_checked(draw, message):
    draw.__name__ = "mine"
    tasks.register_input(draw)
    with pytest.raises(ValueError, match=f"the input mine.*{message}"):
        tasks.make_input("mine")(KEY, 4, 2, jnp.float64)


@pytest.mark.parametrize(
    "fields, message",
    [
        (None, "must return a gradlab.tasks.Task, got NoneType"),
        ({"inputs": 2}, r"the sample of the task mine must have the shape \(4, 2\), got \(4, 1\)"),
        ({"loss": lambda outputs, target: outputs}, r"the loss of .* shape \(\), got \(1,\)"),
        ({"error": lambda outputs, target: target}, r"the error of .* shape \(\), got \(1,\)"),
    ],
)
def test_what_a_task_builder_returns_is_checked(fields, message):
    def mine():
        return None if fields is None else a_task()()._replace(**fields)

    tasks.register(mine)
    with pytest.raises(ValueError, match=message):
        tasks.make("mine")


# The docstrings that register_family completes


@pytest.mark.parametrize("name", cells.names())
def test_help_explains_every_argument_of_a_cell_once(name):
    doc = inspect.getdoc(getattr(cells, name))
    args = re.search(r"\n\nArgs:\n((?: {4}.*\n)+)\n", doc)
    assert args is not None, doc
    assert tuple(re.findall(r"^    (\w+): ", args[1], re.M)) == cells.options(name)
    assert doc.count("\nArgs:") == doc.count("\nRaises:") == 1
    assert "ValueError: for a width below 1." in doc
    assert doc.index("Args:") < doc.index("Raises:") < doc.index(">>>") < doc.index("Source:")
    assert max(map(len, doc.splitlines())) <= 100


@pytest.mark.parametrize("name", cells.names())
def test_the_shared_text_names_the_right_default(name):
    """The text that says orthogonal, N(0, 1/D) or 0 stands only where that is the default."""
    doc = inspect.getdoc(getattr(cells, name))
    defaults = {"recurrent": base.RECURRENT, "input": base.INPUT, "bias": base.BIAS}
    for option, parameter in inspect.signature(getattr(cells, name)).parameters.items():
        shared = f"    {option}: {base.ARGUMENTS.get(option, ('?',))[0]}" in doc
        if shared and option in defaults:
            assert parameter.default is defaults[option]
        if shared and option == "forget_bias":
            assert "f" in getattr(cells, name)(1, 1).gates


def test_activations_are_those_of_the_text():
    assert f"one of {', '.join(sorted(base.ACTIVATIONS))}." in base.ARGUMENTS["activation"][0]


def test_the_registry_s_own_helpers_stay_small():
    assert _registry.takes(lambda **rest: rest, "anything")
    assert not _registry.takes(lambda *anything: anything, "anything")
