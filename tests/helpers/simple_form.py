"""The adjoints of a recurrence in the log domain, in the simplest form there is.

JAX transposes the scan itself. One more leaf e travels in the carry beside the state: its value is
0 always, and its cotangent k says that the cotangents of the state are in units of 2^k. At each
step `boundary` brings what comes from the later step and what the loss reads into one unit, and
hands the logarithm of their sum out as the cotangent of a zero. Gradients by anything else are in
changing units, so this gives the record alone.
"""

import functools
import operator

import jax
import jax.numpy as jnp


@jax.custom_vjp
def boundary(h, e, zeros):
    """The new state for the next step and for the loss."""
    return h, h, e


def _exponent(tree):
    """The k with max|x| < 2^k, and far below any other for zeros."""
    top = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)])
    return jnp.where(top > 0, jnp.frexp(top)[1], -(2**30)).astype(float)


def _scale(tree, k):
    # Two factors, since 2^k may lie outside the range that the product is inside of.
    half = jnp.trunc(jnp.clip(k, -2000, 2000) / 2)
    return jax.tree.map(lambda x: x * 2.0**half * 2.0 ** (jnp.clip(k, -2000, 2000) - half), tree)


def _log_norm(tree, k):
    """ln of 2^k times the norm, which is taken in a unit of its own."""
    top = _exponent(tree)
    total = sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(_scale(tree, -top)))
    log = jnp.log(jnp.where(total > 0, total, 1)) / 2 + (k + top) * jnp.log(2.0)
    return jnp.where(total > 0, log, -jnp.inf)


def _backward(_, cotangents):
    later, direct, k = cotangents
    unit = jnp.maximum(_exponent(later) + k, _exponent(direct))
    unit = jnp.where(unit > -(2**29), unit, 0)
    terms = _scale(later, k - unit), _scale(direct, -unit)
    total = jax.tree.map(operator.add, *terms)
    logs = {
        "total": _log_norm(total, unit),
        "direct": _log_norm(direct, 0),
        "transported": _log_norm(later, k),
    }
    return total, unit, logs


boundary.defvjp(lambda h, e, zeros: ((h, h, e), None), _backward)


def record(step, h0, xs, loss):
    """ln norms of the total, direct and transported adjoints of h_t = step(h_{t-1}, x_t).

    `loss` reads the stacked states.
    """

    def run(zeros):
        def body(carry, row):
            x, zeros = row
            h, e = carry
            h, out, e = boundary(step(h, x), e, zeros)
            return (h, e), out

        return loss(jax.lax.scan(body, (h0, jnp.zeros(())), (xs, zeros))[1])

    length = len(jax.tree.leaves(xs)[0])
    names = ("total", "direct", "transported")
    return jax.grad(run)({name: jnp.zeros(length) for name in names})
