"""What a scan is called: the user's own line, whatever is installed where.

Code is compiled under the names of files that a library, a notebook or a prompt would give it.
"""

import sysconfig

import jax
import jax.numpy as jnp
import pytest

import gradlab as gl

W, XS = jnp.eye(2), jnp.ones((3, 2))

RNN = """
import functools
import jax
import jax.numpy as jnp

def rnn(w, xs):
    def step(h, x):
        return jnp.tanh(h @ w + x), None
    return jnp.sum(jax.lax.scan(step, xs[0], xs)[0])

class Model:
    def loss(self, w, xs):
        return rnn(w, xs)
"""


def load(path, source=RNN):
    found = {"__name__": "loaded"}
    exec(compile(source, str(path), "exec"), found)
    return found


def names(loss):
    return [scan.name for scan in gl.trace(loss)(W, XS).scans]


def mine(library):
    return lambda w, xs: library["rnn"](w, xs)


LIBRARIES = {
    "this-environment": sysconfig.get_path("purelib") + "/lib/rnn.py",
    "standard-library": sysconfig.get_path("stdlib") + "/rnn.py",
    "other-environment": "/opt/base/lib/python3.10/site-packages/lib/rnn.py",
    "user": "/home/someone/.local/lib/python3.11/site-packages/lib/rnn.py",
    "user-on-a-mac": "/Users/one/Library/Python/3.11/lib/python/site-packages/lib/rnn.py",
    "debian": "/usr/lib/python3/dist-packages/lib/rnn.py",
    "local-debian": "/usr/local/lib/python3.11/dist-packages/lib/rnn.py",
    "windows": r"C:\Users\one\AppData\Roaming\Python\Python311\site-packages\lib\rnn.py",
    "zip": "/opt/libs/lib-1.0-py3.11.egg/lib/rnn.py",
    "wheel": "/opt/libs/lib-1.0-py3-none-any.whl/lib/rnn.py",
    "zipped-standard-library": "/usr/lib/python311.zip/rnn.py",
    "frozen": "<frozen lib.rnn>",
    "beartype": "<@beartype(lib.rnn) at 0x7f0000000000>",
}


@pytest.mark.parametrize("case", LIBRARIES)
def test_a_scan_of_a_library_is_named_by_the_users_line(case):
    (name,) = names(mine(load(LIBRARIES[case])))
    assert name.startswith("test_site_names.py:") and name.endswith("(<lambda>)")


def test_a_package_in_a_folder_of_its_own_is_a_library(tmp_path):
    """What `pip install --target` does; an editable install has its metadata elsewhere."""
    package = tmp_path / "lib" / "deep"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    own = names(mine(load(package / "rnn.py")))
    assert own == ["rnn.py:9 (rnn)"]
    installed = tmp_path / "target"
    package.parent.rename(tmp_path / "moved")
    installed.mkdir()
    (tmp_path / "moved").rename(installed / "lib")
    (installed / "lib-1.0.dist-info").mkdir()
    (name,) = names(mine(load(installed / "lib" / "deep" / "rnn.py")))
    assert name.startswith("test_site_names.py:")
    # A script beside the packages is the user's.
    assert names(mine(load(installed / "model.py"))) == ["model.py:9 (rnn)"]


CELLS = {
    "ipykernel": ("/folder/ipykernel_123/990764701.py", "/folder/ipykernel_123/103462507.py"),
    "ipykernel-on-windows": (
        r"C:\Temp\ipykernel_5\990764701.py",
        r"C:\Temp\ipykernel_6\1.py",
    ),
    "xeus": ("/folder/xpython_4/990764701.py", "/folder/xpython_4/2.py"),
    "ipython": ("<ipython-input-3-0a1b2c3d4e5f>", "<ipython-input-4-ffffffffffff>"),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_notebook_s_scan_keeps_its_name_when_its_cell_is_edited(case):
    before, after = CELLS[case]
    for path, source in ((before, RNN), (after, "# another line\n" + RNN)):
        assert names(load(path, source)["rnn"]) == ["notebook (rnn)"]
        assert names(load(path, source)["Model"]().loss) == ["notebook (rnn)"]


def test_scans_of_one_cell_are_told_apart():
    source = RNN.replace(
        "(step, xs[0], xs)[0])", "(step, jax.lax.scan(step, xs[0], xs)[0], xs)[0])"
    )
    assert names(load("/folder/ipykernel_1/2.py", source)["rnn"]) == [
        "notebook (rnn)",
        "notebook (rnn) #2",
    ]


PROMPTS = {
    "<stdin>": "<stdin>:9 (rnn)",
    "<string>": "<string>:9 (rnn)",
    "<console>": "<console>:9 (rnn)",
    "<python-input-7>": "prompt (rnn)",
    "/home/one/ipykernel_notes/990.py": "990.py:9 (rnn)",
    "/home/one/site-packages-of-mine/rnn.py": "rnn.py:9 (rnn)",
}


@pytest.mark.parametrize("path", PROMPTS)
def test_code_without_a_file_and_files_with_such_names(path):
    assert names(load(path)["rnn"]) == [PROMPTS[path]]


def test_a_dataclass_of_a_library_is_no_code_of_the_users():
    source = RNN + (
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Layer:\n"
        "    w: object\n"
        "    xs: object\n"
        "    def __post_init__(self):\n"
        "        self.y = rnn(self.w, self.xs)\n"
    )
    library = load(LIBRARIES["debian"], source)
    (name,) = names(lambda w, xs: library["Layer"](w, xs).y)
    assert name.startswith("test_site_names.py:")


def test_a_scan_inside_a_function_of_jax_says_so():
    """It must not pass for the scan around it."""

    def loss(w, xs):
        def step(h, x):
            return jax.scipy.linalg.expm(w) @ h + x, None

        return jnp.sum(jax.lax.scan(step, xs[0], xs)[0])

    outer, inner = names(loss)
    assert outer.startswith("test_site_names.py:") and outer.endswith("(loss)")
    assert inner.startswith("jax.scipy.linalg (")
    (alone,) = names(lambda w, xs: jnp.sum(jax.scipy.linalg.expm(w)))
    assert alone == inner
