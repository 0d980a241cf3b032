"""The chunks of a sweep on the workers of a dask scheduler.

Workers measure and encode; the process that runs the sweep alone writes into the store. A worker
that dies loses what it was measuring, and the scheduler gives that to another.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from importlib.metadata import version
from typing import Any

from gradlab.sweeps import _compiled
from gradlab.sweeps.work import Chunk, Part, compute, failed_part, halved

# Seconds to wait for a scheduler that does not answer, and between two looks at one that did.
PATIENCE, LOOK = 10, 1.0
_DEPENDS_ON = ("gradlab", "jax", "jaxlib", "numpy")


@contextlib.contextmanager
def connected(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the scheduler at an address, or of as many workers of this machine's own.

    Raises:
        ValueError: where dask is not installed, or there is no scheduler at the address.
    """
    try:
        import distributed
    except ImportError:
        raise ValueError(
            "a scheduler and workers need dask; install it with: pip install 'gradlab[dask]'"
        ) from None
    if scheduler is None:
        # No dashboard: a port less to collide on.
        options: Any = {"threads_per_worker": 1, "dashboard_address": None}
        cluster = distributed.LocalCluster(n_workers=workers, **options)
        with cluster, distributed.Client(cluster) as client:
            client.register_plugin(_deaf())
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(
            f"no scheduler at {scheduler}: {error}; `dask scheduler` starts one and says its "
            "address, tcp://HOST:PORT"
        ) from None
    with client:
        yield client


def _deaf() -> Any:
    """A plugin that keeps a terminal's Ctrl-C from workers: it goes to the sweep, which waits."""
    import distributed

    class Deaf(distributed.WorkerPlugin):
        name = "gradlab-deaf"

        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


def measured(
    client: Any, stopping: Callable[[], bool], chunks: Iterator[Chunk]
) -> Generator[tuple[Chunk, list[Part]], None, None]:
    """Measure the chunks on a client's workers, one at a time each, in the order they end.

    Where there are no workers it waits for some, and says so, unless `stopping()`.

    A chunk whose workers die again and again, as they do where memory runs out, is tried again
    in calls of half the size, down to single runs.

    Raises:
        OSError: where the scheduler goes away.
        ValueError: where a worker has other versions than this process, or no gradlab.
    """
    import distributed

    here = {name: version(name) for name in _DEPENDS_ON}
    running: dict[Any, Chunk] = {}
    alone = told = 0.0
    try:
        while True:
            workers = len(client.nthreads())
            alone = alone + LOOK if not workers else 0.0
            if not workers and stopping():
                return
            if alone > PATIENCE and not told:
                told = alone
                print("no workers at the scheduler; waiting for some", file=sys.stderr)
            stopping()
            idle = max(1, workers) - len(running)
            for chunk in itertools.islice(chunks, max(0, idle)):
                running[client.submit(_remote, chunk, here, pure=False)] = chunk
            if not running:
                return
            with contextlib.suppress(TimeoutError):
                distributed.wait(list(running), timeout=LOOK, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                chunk = running.pop(future)
                try:
                    parts = future.result()
                except distributed.KilledWorker as error:
                    if chunk.size > 1:
                        chunks = itertools.chain([halved(chunk)], chunks)
                        continue
                    parts = [failed_part(chunk, error)]
                except ImportError as error:
                    raise ValueError(f"a worker cannot run gradlab: {error}") from None
                yield chunk, parts
    except (CancelledError, OSError, TimeoutError) as error:
        raise OSError(
            f"the scheduler went away ({error}); what was finished is kept, and the same command "
            "goes on from there"
        ) from error
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(running), force=True)


def _remote(chunk: Chunk, versions: dict[str, str]) -> list[Part]:
    other = {name: version(name) for name in versions if version(name) != versions[name]}
    if other:
        wanted = ", ".join(f"{name} {versions[name]}" for name in other)
        has = ", ".join(f"{name} {found}" for name, found in other.items())
        raise ValueError(f"a worker has {has}, where the sweep has {wanted}: numbers could differ")
    with _compiled.kept():
        return compute(chunk)
