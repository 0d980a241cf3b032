"""
Width: a coordinate check
=========================

The sizes of states, of their updates and of adjoints as a network grows, in a sweep over `hidden`.
With Adam at one rate for all widths, the updates of the states grow with the width: what is tuned
on a small network is too fast for a large one.
"""

import tempfile

import jax
import jax.numpy as jnp
import optax

import gradlab as gl


@gl.sweeps.measurement
def coordinates(hidden, seed=0):
    """Sizes per coordinate before training and after each of four updates."""
    task = gl.tasks.make("adding", length=12)
    cell = gl.cells.make("elman", inputs=task.inputs, hidden=hidden)
    net = gl.tasks.network(cell, task.outputs)

    def states(params, batch):
        def step(h, x):
            return (cell.step(params["cell"], h, x),) * 2

        start = cell.start()
        return jax.vmap(lambda xs: jax.lax.scan(step, start, xs)[1], out_axes=1)(batch[0])

    found = gl.training.coordinate_check(
        gl.tasks.batch_loss(net, task),
        states,
        net.init(jax.random.key(seed)),
        gl.tasks.batch_sampler(task, 16),
        optax.adam(0.02),
        updates=4,
        key=jax.random.key(100 + seed),
        has_aux=True,
    )
    columns = {"state": found.log_state, "update": found.log_update}
    columns |= {"adjoint": found.log_adjoint[:, 0], "training_step": jnp.arange(5)}
    return {"steps": columns}


spec = {"measurement": "coordinates", "hidden": [16, 48, 144]}
with tempfile.TemporaryDirectory() as folder:
    results = gl.sweep(spec, folder, set={"seeds": 1}).results
table = results.steps.merge(results.runs[["run_id", "hidden"]], on="run_id")
table = table[table["training_step"].isin([0, 1, 4])]
sizes = ["state", "update", "adjoint"]
table = table.melt(["hidden", "training_step"], sizes, "quantity", "log_size")
fig = gl.figures.width(table)
