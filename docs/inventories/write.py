"""Write the small inventories that the site links other projects' pages by.

`python docs/inventories/write.py` after a change of NAMES: Sphinx reads files, and no network.
"""

import zlib
from pathlib import Path

JAX = "_autosummary/$.html#$"
PYTHON = {
    "pathlib.Path": "library/pathlib.html#pathlib.Path",
    "collections.abc.Callable": "library/collections.abc.html#collections.abc.Callable",
    "collections.abc.Mapping": "library/collections.abc.html#collections.abc.Mapping",
    "collections.abc.Sequence": "library/collections.abc.html#collections.abc.Sequence",
    "collections.abc.Iterable": "library/collections.abc.html#collections.abc.Iterable",
    "typing.NamedTuple": "library/typing.html#typing.NamedTuple",
    "ValueError": "library/exceptions.html#ValueError",
    "TypeError": "library/exceptions.html#TypeError",
    "OSError": "library/exceptions.html#OSError",
    **{name: f"library/stdtypes.html#{name}" for name in ("dict", "list", "str", "tuple", "int")},
    **{name: f"library/functions.html#{name}" for name in ("float", "bool")},
}
NAMES = {
    "python": ("Python", "3", PYTHON),
    "jax": (
        "JAX",
        "",
        {
            name: JAX
            for name in ("jax.Array", "jax.jit", "jax.vmap", "jax.grad", "jax.value_and_grad",
                         "jax.lax.scan", "jax.lax.associative_scan", "jax.eval_shape")
        },
    ),
    "numpy": ("NumPy", "", {"numpy.ndarray": "reference/generated/$.html#$"}),
    "pandas": (
        "pandas",
        "",
        {name: "reference/api/$.html#$" for name in ("pandas.DataFrame", "pandas.Series")},
    ),
    "matplotlib": (
        "Matplotlib",
        "",
        {"matplotlib.figure.Figure": "api/figure_api.html#$"},
    ),
    "optax": (
        "optax",
        "",
        {"optax.GradientTransformation": "api/transformations.html#$"},
    ),
}  # fmt: skip

for project, (title, version, names) in NAMES.items():
    head = (
        f"# Sphinx inventory version 2\n# Project: {title}\n# Version: {version}\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [
        f"{name} py:{'class' if name.rpartition('.')[2][:1].isupper() else 'function'} 1 "
        f"{place.replace('$', name) if place.count('$') > 1 else place} -\n"
        for name, place in sorted(names.items())
    ]
    path = Path(__file__).parent / f"{project}.inv"
    path.write_bytes(head.encode() + zlib.compress("".join(lines).encode(), 9))
