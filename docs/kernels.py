"""Kernels of the pages, forked from one process that has imported what pages share.

To import them takes longer than to run most pages. Jupyter starts this file as the kernel, as
`write_spec` tells it to; it hands its arguments to the process of `serve`, which forks.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# The environment variable with the address of the process that forks.
ADDRESS = "GRADLAB_DOCS_KERNELS"
# What is imported before the fork. A fork has none of its parent's threads: none of these may
# start one that it needs.
SHARED = ("gradlab.sweeps", "gradlab.figures._sweep", "seaborn", "optax")
# Kernels talk over TCP on this machine only; each would warn that it is not encrypted.
QUIET = "--log-level=ERROR"
DONE = b"."


def write_spec(folder: Path) -> None:
    """Write the specification of the kernel `python3` below a folder of JUPYTER_PATH."""
    argv = [sys.executable, __file__, "-f", "{connection_file}", QUIET]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    place = folder / "kernels" / "python3" / "kernel.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(spec), encoding="utf-8")


@contextlib.contextmanager
def serving(
    environment: Mapping[str, str], modules: Sequence[str] = (*SHARED, "ipykernel.kernelapp")
) -> Iterator[dict[str, str]]:
    """Run `serve` in a process; gives the environment in which kernels reach it."""
    if sys.platform != "linux":  # elsewhere libraries do not outlive a fork
        yield {**environment}
        return
    # A short path: that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/kernels"
        listener.bind(address)
        listener.listen(100)  # kernels wait here while the process imports
        command = [sys.executable, __file__, "serve", str(listener.fileno()), *modules]
        server = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()])
        try:
            yield {**environment, ADDRESS: address}
        finally:
            server.terminate()
            server.wait()


def load(modules: Iterable[str]) -> None:
    """Import the modules for forks of this process."""
    for name in modules:
        importlib.import_module(name)
    # None of that is garbage, and JAX makes hundreds of thousands of objects for a program: to look
    # for cycles after each 700 of them, as Python does, takes a tenth of the pages' time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def serve(listener: socket.socket, modules: Iterable[str]) -> None:
    """Import the modules, then fork a kernel for each connection, while the parent lives."""
    parent = os.getppid()
    # As a kernel has it before it imports pyplot, which looks once.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    load(modules)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    listener.settimeout(1)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            if os.fork() == 0:
                listener.close()
                become(connection)
                return


def become(connection: socket.socket) -> None:
    """Be the kernel that was asked for, in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, outputs, *_ = socket.recv_fds(connection, 1 << 20, 2)
    order = json.loads(message)
    for target, output in enumerate(outputs, 1):
        os.dup2(output, target)
        os.close(output)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    # The kernel ends where its parent does, which is not the process that Jupyter knows.
    sys.argv[1:] = [*order["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    sys.path.remove(str(Path(__file__).parent))
    if "pandas" in sys.modules:
        # What pandas shows outside of terminals: it has looked for a kernel before there was one.
        sys.modules["pandas"].set_option("display.max_columns", 20)
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    connection.sendall(DONE)


def ask(address: str) -> int:
    """Have a kernel forked, and stay until it ends, since Jupyter watches this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = {"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": {**os.environ}}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(order).encode()], [1, 2])
        return 0 if connection.recv(1) == DONE else 1  # it ends with an error, or is killed


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3:])
    elif address := os.environ.get(ADDRESS):
        sys.exit(ask(address))
    else:
        from ipykernel import kernelapp

        kernelapp.launch_new_instance()
