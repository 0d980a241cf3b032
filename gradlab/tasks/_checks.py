"""Checks that every input source shares."""

import operator

import jax.numpy as jnp


def positive(**sizes: int) -> None:
    """Raises ValueError unless every size, given by name, is an integer of at least 1."""
    for name, size in sizes.items():
        if operator.index(size) < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def floating(dtype):
    """`dtype`, or JAX's default float where it is None; ValueError if it is not a float."""
    dtype = jnp.result_type(float if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype must be a floating type, got {dtype}")
    return dtype
