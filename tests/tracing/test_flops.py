"""Operations in matrix products against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradlab import tracing


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def scanned(w, h, xs):
    return jax.lax.scan(lambda h, x: (jnp.tanh(w @ h + x), w @ x), h, xs)


def sharded(a):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("runs",))
    spec = jax.sharding.PartitionSpec("runs")
    return jax.shard_map(lambda a: a @ a, mesh=mesh, in_specs=spec, out_specs=spec)(a)


@jax.custom_vjp
def squared(a):
    return a @ a


squared.defvjp(lambda a: (a @ a, a), lambda a, b: (b @ a + a @ b,))


def repeated(a):
    return jax.lax.while_loop(lambda a: a[0, 0] > 0, lambda a: a @ a, a)


@pytest.mark.parametrize(
    "function, args, flops",
    [
        (lambda a, b: a @ b, (array(2, 3), array(3, 5)), 60),
        (jax.vmap(lambda a, b: a @ b), (array(7, 2, 3), array(7, 3, 5)), 420),
        (scanned, (array(4, 4), array(4), array(9, 4)), 9 * 64),
        (lambda *a: scanned(*a)[0], (array(4, 4), array(4), array(9, 4)), 9 * 32),
        (jax.grad(lambda w, x: ((w @ x) ** 2).sum()), (array(4, 4), array(4)), 2 * 32),
        (lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a, a), (array(4, 4),), 128),
        (lambda a: jax.lax.map(jax.checkpoint(lambda a: a @ a), a), (array(5, 4, 4),), 640),
        (jax.grad(lambda a: squared(a).sum()), (array(4, 4),), 256),
        (repeated, (array(4, 4),), 128),
        (sharded, (array(4 * jax.device_count(), 4),), 128 * jax.device_count()),
        (lambda a: (a @ a, a @ a @ a)[1], (array(4, 4),), 256),
        (lambda a: [a @ a, a + 1][1], (array(4, 4),), 0),
        (jax.jit(lambda a: a @ a), (array(4, 4),), 128),
    ],
    ids=["product", "vmap", "scan", "unread rows", "grad", "cond", "map", "custom_vjp", "while",
         "shard_map", "twice", "unread", "jit"],
)  # fmt: skip
def test_flops_are_those_of_the_products_that_a_result_needs(function, args, flops):
    assert tracing.flops(function, *args) == flops
