"""What `trace` costs: its time against `jax.value_and_grad` on the same model, in pairs.

Batch 32, width 128, input 32, T = 512, float32; the two run in turn and the median of the ratios
of 9 pairs is printed. Compilation is apart.
"""

import statistics
import time

import jax
import jax.numpy as jnp

import gradlab as gl

BATCH, WIDTH, INPUTS, LENGTH, PAIRS = 32, 128, 32, 512, 9


def model(name):
    """A batched cell over a sequence, its parameters and an input."""
    cell = gl.cells.make(name, inputs=INPUTS, hidden=WIDTH)

    def loss(params, xs):
        drives = jax.vmap(jax.vmap(lambda x: cell.project(params, x)))(xs)
        advance = jax.vmap(lambda state, drive: cell.advance(params, state, drive))
        start = jax.tree.map(lambda h: jnp.broadcast_to(h, (BATCH, *h.shape)), cell.start())
        last, _ = jax.lax.scan(lambda state, drive: (advance(state, drive), None), start, drives)
        return jax.vmap(cell.read)(last).sum()

    xs = jax.random.normal(jax.random.key(1), (LENGTH, BATCH, INPUTS))
    return loss, cell.init(jax.random.key(0)), xs


def seconds(function, *args):
    """The time of one call, results waited for."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main():
    """Print one line per cell and way of tracing."""
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    print("cell   traced                 plain ms  traced ms  ratio  compile plain s, traced s")
    for name in gl.cells.names():
        loss, params, xs = model(name)
        ways = {
            "with grads": gl.trace(loss),
            "argnums=()": gl.trace(loss, argnums=()),
            "argnums=(), per sample": gl.trace(loss, argnums=(), batch_axis=0),
        }
        for way, traced in ways.items():
            functions = jax.jit(jax.value_and_grad(loss)), jax.jit(traced)
            first = [seconds(function, params, xs) for function in functions]
            times = [[seconds(f, params, xs) for f in functions] for _ in range(PAIRS)]
            plain, mine = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(b / a for a, b in times)
            print(
                f"{name:6} {way:22} {plain:8.1f} {mine:10.1f} {ratio:6.2f}"
                f"  {first[0]:.2f}, {first[1]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
