"""A user's own cell, initializer, input, task, remedy and measurement, for sweeps to name."""

import jax
import jax.numpy as jnp
import optax

import gradlab as gl

# The share of the state that each step of `faded` keeps.
KEEP = 0.9


@gl.cells.register
def faded(inputs, hidden, **options):
    """An Elman network whose state is scaled by KEEP at each step."""
    cell = gl.cells.make("elman", inputs=inputs, hidden=hidden, **options)

    def advance(params, state, drive):
        return KEEP * cell.advance(params, state, drive)

    return cell._replace(name="faded", advance=advance)


@gl.initializers.register
def signs(key, shape, dtype=jnp.float32):
    """Entries of ±1/√n; a sweep's gain multiplies them."""
    return jax.random.rademacher(key, shape, dtype) / shape[1] ** 0.5


@gl.tasks.register_input
def coins(key, length, features, dtype=None):
    """Independent ±1."""
    return jnp.sign(jax.random.normal(key, (length, features), dtype))


@gl.tasks.register
def last(length=10):
    """Say the last input of all."""
    return gl.tasks.Task(
        name="last",
        length=length,
        inputs=1,
        outputs=1,
        every_step=False,
        sample=lambda key, dtype=None: _coins_and_last(key, length, dtype),
        loss=lambda outputs, target: jnp.mean((outputs - target) ** 2),
        error=lambda outputs, target: jnp.mean((outputs - target) ** 2),
        baselines={"mean": 1.0},
        solved=0.01,
    )


def _coins_and_last(key, length, dtype):
    xs = coins(key, length, 1, dtype)
    return xs, xs[-1]


@gl.remedies.register
def decay(strength):
    """Weight decay."""
    return optax.add_decayed_weights(strength)


@gl.sweeps.measurement
def state_norm(cell, init, input, gain, length=50, hidden=16, seed=0):
    """The norm of the state, step by step, and at the end."""
    key = jax.random.key(seed)
    model = gl.cells.make(
        cell, inputs=3, hidden=hidden, recurrent=gl.initializers.make(init, gain=gain)
    )
    params = model.init(key)
    xs = gl.tasks.make_input(input)(key, length, 3)

    def step(state, x):
        state = model.step(params, state, x)
        return state, jnp.linalg.norm(model.read(state))

    norms = jax.lax.scan(step, model.start(), xs)[1]
    return {"final": norms[-1], "steps": {"step": jnp.arange(1, length + 1), "norm": norms}}
