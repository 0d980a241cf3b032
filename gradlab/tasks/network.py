"""A cell with a linear readout, its loss on a task, and the batches that it learns from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from gradlab import initializers
from gradlab.cells import Cell
from gradlab.tasks import _checks
from gradlab.tasks.base import Task, check_minimum

Batch = tuple[Array, Array]


class Network(NamedTuple):
    """A sequence model, as two pure functions.

    Attributes:
        init: `(key, dtype=None) -> params`, with H the cell's width and K the number of outputs:
            `{"cell": the cell's own, "readout": {"weight": (K, H), "bias": (K,)}}`.
        apply: `(params, xs (T, D)) -> outputs`, (K,) or (T, K), unbatched.
    """

    init: Callable[..., PyTree]
    apply: Callable[[PyTree, Array], Array]


def network(
    cell: Cell, outputs: int, every_step: bool = False, window: int | None = None
) -> Network:
    """A cell read out linearly: y = V h + c, after the last step or after every step.

    With h_t = read(s_t), s_t = step(params, s_{t-1}, x_t), s_0 = start()::

        y = V h_T + c,   or   y_t = V h_t + c for t = 1..T

    `init` draws V_ij ~ N(0, 1/H) and c = 0. What needs the parameters alone (the cell's
    `prepare`) is computed once, what does not need the state (its `project`) for all steps in
    one product before the one `lax.scan`, and the readout of every step in one product after it.
    `gradlab.trace` therefore finds one scan; what the loss reads through y_t counts as the direct
    part of h_t's adjoint.

    Args:
        cell: the recurrent map, of width H.
        outputs: K, at least 1.
        every_step: whether to give y_t for all steps, or y after the last.
        window: w, to cut back-propagation through time: the gradient does not pass the boundaries
            before steps T - w + 1, T - 2w + 1, ..., so that each window of w steps, counted from
            the end, learns from its own steps, on the state that the earlier ones left. A loss
            after the last step thus reaches w states, and the adjoints of all earlier ones are
            exactly zero. None for the whole gradient. Values are the same either way.

    Raises:
        ValueError: for a number of outputs or a window below 1.

    >>> from gradlab import cells
    >>> net = network(cells.make("gru", inputs=2, hidden=8), outputs=3, every_step=True)
    >>> params = net.init(jax.random.key(0))
    >>> net.apply(params, jnp.ones((5, 2))).shape
    (5, 3)

    Source: truncation: Williams & Peng, "An efficient gradient-based algorithm for on-line training
    of recurrent network trajectories" (1990), and Mikolov et al., "Recurrent neural network based
    language model" (2010).
    """
    check_minimum("network", 1, outputs=outputs, **({} if window is None else {"window": window}))

    def init(key: PRNGKeyArray, dtype=None) -> PyTree:
        dtype = _checks.floating(dtype)
        cell_key, weight_key = jax.random.split(key)
        weight = initializers.normal()(weight_key, (outputs, cell.hidden), dtype)
        readout = {"weight": weight, "bias": jnp.zeros(outputs, dtype)}
        return {"cell": cell.init(cell_key, dtype), "readout": readout}

    def apply(params: PyTree, xs: Float[Array, "length inputs"]) -> Array:
        start = cell.start(jnp.result_type(*jax.tree.leaves((params, xs))))
        ready = cell.prepare(params["cell"])
        drives = jax.vmap(lambda x: cell.project(ready, x))(xs)
        lags = len(xs) - jnp.arange(len(xs))  # of the states that the steps start from

        def read_out(h: Array) -> Array:
            return h @ params["readout"]["weight"].T + params["readout"]["bias"]

        def body(state: Any, row: tuple[Any, Array | None]) -> tuple[Any, Array | None]:
            drive, cut = row
            if cut is not None:
                constant = jax.lax.stop_gradient(state)
                state = jax.tree.map(lambda a, s: jnp.where(cut, a, s), constant, state)
            state = cell.advance(ready, state, drive)
            return state, cell.read(state) if every_step else None

        cuts = None if window is None else lags % window == 0
        last, hs = jax.lax.scan(body, start, (drives, cuts))
        return read_out(cell.read(last)) if hs is None else jax.vmap(read_out)(hs)

    return Network(init, apply)


def batch_loss(
    network: Network, task: Task
) -> Callable[[PyTree, Batch], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]:
    """The mean of a task's loss over a batch, and of its error, as a function of the parameters.

    The network is mapped over the batch, so that its scan carries states (B, H) and each step is
    one product for the whole batch: `gradlab.trace(loss, has_aux=True, batch_axis=0)` records
    (T, B). The loss is a mean, so each sample's adjoint has the factor 1/B.

    Args:
        network: with `task.outputs` outputs, at every step if `task.every_step`.
        task: whose loss and error.

    Returns:
        A function of params and a batch (xs (B, T, D), targets) to the mean loss and
        `{"error": mean error}`.

    >>> from gradlab import cells, tasks
    >>> task = tasks.make("adding", length=20)
    >>> net = tasks.network(cells.make("elman", inputs=task.inputs, hidden=8), task.outputs)
    >>> batch = tasks.batch_sampler(task, batch_size=4)(jax.random.key(0), 0)
    >>> value, metrics = batch_loss(net, task)(net.init(jax.random.key(1)), batch)
    >>> value.shape, sorted(metrics)
    ((), ['error'])
    """

    def loss(params: PyTree, batch: Batch) -> tuple[Array, dict[str, Array]]:
        xs, targets = batch
        outputs = jax.vmap(network.apply, in_axes=(None, 0))(params, xs)
        values = jax.vmap(task.loss)(outputs, targets)
        errors = jax.vmap(task.error)(outputs, targets)
        return jnp.mean(values), {"error": jnp.mean(errors)}

    return loss


def batch_sampler(
    task: Task, batch_size: int, dtype=None
) -> Callable[[PRNGKeyArray, Array | int], Batch]:
    """What draws a batch for a training step, inside the compiled step.

    Args:
        task: whose sequences.
        batch_size: B, at least 1.
        dtype: a floating type; JAX's default float if None.

    Returns:
        A function of a key and the number of the step, possibly traced, to (xs (B, T, D), targets).
        The same key and step give the same batch. Where the task draws from a data set, the
        function is a `jax.tree_util.Partial` that holds the data, and can be an argument of a
        jitted function.

    Raises:
        ValueError: for a batch size below 1, or a dtype that is not floating.

    >>> from gradlab import tasks
    >>> sample = batch_sampler(tasks.make("parity", length=7), batch_size=3)
    >>> xs, targets = jax.jit(sample)(jax.random.key(0), 0)
    >>> xs.shape, targets.shape
    ((3, 7, 1), (3,))
    """
    check_minimum("batch_sampler", 1, batch_size=batch_size)
    dtype = _checks.floating(dtype)

    def draw(sample: Callable[..., Batch], key: PRNGKeyArray, step: Array | int) -> Batch:
        keys = jax.random.split(jax.random.fold_in(key, step), batch_size)
        return jax.vmap(lambda key: sample(key, dtype))(keys)

    if isinstance(task.sample, jax.tree_util.Partial):
        return jax.tree_util.Partial(draw, task.sample)
    return lambda key, step: draw(task.sample, key, step)
