"""A checkpoint belongs to one program: whatever that holds, wherever it stands, is part of it."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback
from jax.sharding import PartitionSpec

import gradlab as gl
from gradlab._identity import Identity, Unknown

ONE = jax.ShapeDtypeStruct((), np.float32)
DATA = np.arange(5000, dtype=np.float32)
OTHER = np.where(np.arange(5000) == 2500, np.float32(7), DATA)  # where printing leaves out
TABLE = DATA


def in_jit(data):
    return jax.jit(lambda i: jnp.asarray(data)[i])


def in_jit_in_jit(data):
    return jax.jit(lambda i: in_jit(data)(i) * 2)


def in_scan(data):
    return lambda i: jax.lax.scan(lambda c, _: (c + in_jit(data)(i), None), 0.0, length=2)[0]


def in_cond(data):
    return lambda i: jax.lax.cond(i > 0, in_jit(data), lambda i: jnp.float32(0), i)


def in_while(data):
    return lambda i: jax.lax.while_loop(lambda c: c < 1, lambda c: c + 1 + in_jit(data)(i), 0.0)


def in_custom_jvp(data):
    function = jax.custom_jvp(lambda i: in_jit(data)(i))
    function.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))
    return function


def in_custom_vjp(data):
    function = jax.custom_vjp(lambda i: in_jit(data)(i))
    function.defvjp(lambda i: (function(i), None), lambda _, ct: (ct,))
    return function


def in_remat(data):
    return jax.checkpoint(in_jit(data), policy=jax.checkpoint_policies.dots_saveable)


def in_shard_map(data):
    mesh = jax.make_mesh((1,), ("x",), devices=jax.devices()[:1])
    spec = PartitionSpec()
    return jax.shard_map(in_jit(data), mesh=mesh, in_specs=spec, out_specs=spec)


def in_literal(data):
    return lambda i: i * np.float32(data[2500] + 1e-7)


def callback(function, call=jax.pure_callback):
    return lambda i: call(function, ONE, i)


def in_closure(data):
    return callback(lambda i: data[i])


def in_inner_function(data):
    def look(i):
        return data[i]

    return callback(lambda i: look(i))


def in_default(data):
    return callback(lambda i, data=data: data[i])


def in_partial(data):
    return callback(functools.partial(np.take, data))


def in_global(data):
    names = {"TABLE": data}
    exec("def look(i): return TABLE[i]", names)
    return callback(names["look"])


def in_dictionary(data):
    held = {"deep": [(data, 1)]}
    return callback(lambda i: held["deep"][0][0][i])


class Look:
    def __init__(self, data):
        self.data = data

    def __call__(self, i):
        return self.data[i]

    def __repr__(self):
        return "Look()"


def in_object(data):
    return callback(Look(data))


def in_method(data):
    return callback(Look(data).__call__)


def in_bound_built_in(data):
    return callback(data.take)


def in_jitted_callback(data):
    return callback(jax.jit(lambda i: jnp.asarray(data)[i]))


def in_io_callback(data):
    return callback(lambda i: data[i], io_callback)


PLACES = [value for name, value in list(globals().items()) if name.startswith("in_")]


def program(place, data):
    return jax.make_jaxpr(lambda i: jnp.float32(place(data)(i)))(jnp.int32(1))


def digest(place, data, version=None):
    return Identity(version)(program(place, data)).hex()


def everything():
    """One digest of all places, for two processes to agree on."""
    return Identity()([digest(place, DATA) for place in PLACES]).hex()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_data_are_seen_wherever_they_stand(place):
    if place is in_literal:
        assert digest(place, DATA) != digest(place, DATA + 1e-3)
        return
    first = digest(place, DATA)
    assert first != digest(place, OTHER)
    # Neither the object nor what JAX remembers of it matters.
    jax.clear_caches()
    assert digest(place, DATA.copy()) == first


def test_processes_agree():
    """This one, and one with another order of sets."""
    command = [sys.executable, "-c", "import test_identity; print(test_identity.everything())"]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    options = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    options |= {"JAX_ENABLE_X64": "1", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=os.environ | options, capture_output=True, text=True
    )
    assert done.stdout.strip() == everything() and len(everything()) == 64, done.stderr


def test_constants_are_not_rounded():
    def of(value):
        return Identity()(jax.make_jaxpr(lambda x: x * value)(np.float32(1)))

    assert of(np.float32(0.1)) != of(np.nextafter(np.float32(0.1), np.float32(1)))
    assert of(np.float32(0.0)) != of(np.float32(-0.0))


def test_which_of_two_arrays_stands_where_is_seen():
    def of(a, b):
        return Identity()(jax.make_jaxpr(lambda i: in_jit(a)(i) - in_jit(b)(i))(1))

    assert of(DATA, OTHER) != of(OTHER, DATA)


def test_code_of_a_callback_is_seen():
    assert digest(lambda _: callback(lambda i: i + 1), None) != digest(
        lambda _: callback(lambda i: i + 2), None
    )
    assert digest(lambda _: callback(lambda i: np.sin(i)), None) != digest(
        lambda _: callback(lambda i: np.cos(i)), None
    )


def test_what_prints_is_no_content():
    def of(rows):
        def printed(i):
            jax.debug.callback(lambda i: next(rows), i)
            jax.debug.print("{}", i)
            return i

        return lambda _: printed

    assert digest(of(iter("a")), None) == digest(of(iter("b")), None)


def unreadable():
    yield 1.0


def test_a_callback_that_cannot_be_read_needs_a_version():
    rows = unreadable()
    with pytest.raises(Unknown, match="generator") as error:
        digest(lambda _: callback(lambda i: next(rows)), None)
    assert error.value.where == "the callback of pure_callback"
    a, b = (digest(lambda _: callback(lambda i: next(rows)), None, v) for v in "ab")
    assert a == b  # gl.train takes the version itself as one more part


# What follows goes through gl.train, two updates and then four.
KEY = jax.random.key(0)


def loss(w, x):
    return jnp.mean((w["a"].sum() - x) ** 2)


def fetch(data):
    return jax.jit(lambda key, step: jnp.asarray(data)[jax.random.randint(key, (8,), 0, 5000)])


SMALL = np.random.default_rng(0).normal(size=5000).astype(np.float32)
ELSE = np.concatenate([SMALL[:100], SMALL[100:4900] + 7, SMALL[4900:]])


def train(path=None, steps=4, params=None, sample=None, optimizer=None, loss=loss, **options):
    given = {"key": KEY, "block": 2} | options
    params = {"a": jnp.zeros(1, jnp.float32)} if params is None else params
    optimizer = optimizer or optax.adam(0.1)
    return gl.train(
        loss, params, sample or fetch(SMALL), optimizer, steps=steps, checkpoint=path, **given
    )


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A checkpoint after two updates."""
    path = tmp_path_factory.mktemp("run") / "run.npz"
    train(path, steps=2)
    return path.read_bytes()


def with_aux(w, x):
    return loss(w, x), {"more": w["a"][0]}


def scheduled(peak):
    return optax.adam(lambda count: peak / (1 + count))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"sample": fetch(ELSE)}, "code or data"),
        ({"sample": jax.tree_util.Partial(lambda d, k, s: d[:8], ELSE)}, "arguments of sample"),
        ({"key": jax.random.key(1)}, "key"),
        ({"key": jax.random.key(0, impl="rbg")}, "key"),
        ({"optimizer": optax.sgd(0.1)}, "state of the optimizer"),
        ({"optimizer": optax.adam(0.1 + 1e-8)}, "code or data"),
        ({"optimizer": optax.adam(0.1, b2=0.99)}, "code or data"),
        ({"optimizer": scheduled(0.1)}, "state of the optimizer"),
        ({"optimizer": optax.inject_hyperparams(optax.adam)(0.1)}, "state of the optimizer"),
        ({"params": {"a": jnp.full(1, 1e-9, jnp.float32)}}, "parameters"),
        ({"params": {"a": -jnp.zeros(1, jnp.float32)}}, "parameters"),
        ({"params": {"a": jnp.zeros(1, jnp.bfloat16)}}, "parameters"),
        ({"params": {"a": jnp.zeros(2, jnp.float32)}}, "parameters"),
        ({"params": {"a": jnp.zeros(1, jnp.float32), "b": jnp.ones(1)}}, "parameters"),
        ({"loss": with_aux, "has_aux": True}, "has_aux="),
        ({"trace_every": 2}, "trace_every="),
        ({"batch_axis": 0}, "batch_axis="),
        ({"block": 3}, "block="),
        ({"version": "2"}, "version="),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_a_checkpoint_of_another_program_is_refused(stopped, tmp_path, options, part):
    path = tmp_path / "run.npz"
    path.write_bytes(stopped)
    if options.get("trace_every"):  # which would need a scan: the identity comes first

        def traced(w, x):
            return loss({"a": jax.lax.scan(lambda c, _: (c * 1, None), w["a"], length=2)[0]}, x)

        options = options | {"loss": traced}
    with pytest.raises(ValueError, match="checkpoint of another program") as error:
        train(path, **options)
    assert part in str(error.value) and path.read_bytes() == stopped


def test_schedules_are_told_apart_by_what_they_close_over(tmp_path):
    path = tmp_path / "run.npz"
    train(path, steps=2, optimizer=scheduled(0.1))
    with pytest.raises(ValueError, match="other code or data"):
        train(path, optimizer=scheduled(0.2))
    train(path, optimizer=scheduled(0.1))


def test_what_a_loss_reports_is_part_of_the_program(tmp_path):
    path = tmp_path / "run.npz"
    train(path, steps=2, loss=with_aux, has_aux=True)
    with pytest.raises(ValueError, match="other code or data"):
        train(path, loss=lambda w, x: (loss(w, x), {"more": -w["a"][0]}), has_aux=True)
    with pytest.raises(ValueError, match="other code or data"):
        train(path, loss=lambda w, x: (loss(w, x), {"less": w["a"][0]}), has_aux=True)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.enable_x64(False),
        lambda: jax.default_matmul_precision("highest"),
        lambda: jax.threefry_partitionable(not jax.config.jax_threefry_partitionable),
    ],
    ids=["x64", "matmul", "threefry"],
)
def test_settings_that_change_numbers_are_part_of_the_program(stopped, tmp_path, setting):
    path = tmp_path / "run.npz"
    path.write_bytes(stopped)
    with setting(), pytest.raises(ValueError, match="settings of JAX"):
        train(path)


@pytest.mark.parametrize("block", [None, 2])
def test_more_steps_resume_and_equal_the_run_that_was_not_stopped(tmp_path, block):
    path, seen = tmp_path / "run.npz", []
    train(path, steps=10, block=block)
    longer = train(path, steps=20, block=block, progress=lambda done, *_: seen.append(done))
    whole = train(steps=20, block=block)
    assert seen[0] == (11 if block is None else 12)  # it went on after step 10
    np.testing.assert_array_equal(longer.params["a"], whole.params["a"])
    for name in ("loss", "log_grad_norm"):
        np.testing.assert_array_equal(longer.metrics[name], whole.metrics[name])


def called_back(data):
    shape = jax.ShapeDtypeStruct((8,), np.float32)
    return lambda key, step: jax.pure_callback(lambda s: data[int(s) : int(s) + 8], shape, step)


def test_a_callback_resumes_with_its_own_data_alone(tmp_path):
    path = tmp_path / "run.npz"
    train(path, steps=2, sample=called_back(SMALL))
    with pytest.raises(ValueError, match="other code or data"):
        train(path, sample=called_back(ELSE + 1))
    again, whole = train(path, sample=called_back(SMALL)), train(sample=called_back(SMALL))
    np.testing.assert_array_equal(again.metrics["loss"], whole.metrics["loss"])


def test_a_callback_that_cannot_be_read_is_refused_or_named(tmp_path):
    path, shape = tmp_path / "run.npz", jax.ShapeDtypeStruct((8,), np.float32)
    rows = (SMALL[i : i + 8] for i in range(100))

    def sample(key, step):
        return io_callback(lambda: next(rows), shape, ordered=True)

    with pytest.raises(ValueError, match=r"cannot be read.*the callback of io_callback.*version="):
        train(path, sample=sample)
    assert not path.exists()
    train(path, steps=2, sample=sample, version=1)
    assert len(train(path, sample=sample, version=1).metrics["loss"]) == 4
    with pytest.raises(ValueError, match="other version="):
        train(path, sample=sample, version=2)


def test_a_callback_that_changes_as_it_runs_leaves_no_checkpoint(tmp_path):
    path, shape = tmp_path / "run.npz", jax.ShapeDtypeStruct((8,), np.float32)
    count = [0]

    def following(_):
        count[0] += 1
        return SMALL[count[0] : count[0] + 8]

    def sample(key, step):
        return io_callback(following, shape, step, ordered=True)

    with pytest.raises(ValueError, match="changes its own state"):
        train(path, sample=sample)
    assert not path.exists()
    assert train(path, sample=sample, version="mine").failure is None
