"""The chunks of a sweep on the workers of a dask scheduler.

Workers measure and encode; the process that runs the sweep alone writes into the store. A worker
that dies loses what it was measuring, and the scheduler gives that to another.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import logging
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from typing import Any

from gradlab.grid import _compiled
from gradlab.grid.measurement import Measurement, Run
from gradlab.grid.sizes import Fit
from gradlab.grid.work import Chunk, Part, compute, failed_part, try_fit

# Seconds to wait for a scheduler that does not answer, and between two looks at one that did.
PATIENCE, LOOK = 10, 1.0
# Seconds without a sign of life after which a worker is named; dask's own limit, the scheduler's
# worker-ttl, is 5 minutes unless it is set otherwise.
SILENCE = 60.0
_DIED = "KilledWorker: each worker that measured it died, as they do where memory runs out"
_DEPENDS_ON = ("gradlab", "jax", "jaxlib", "numpy")


@contextlib.contextmanager
def connect(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Connect to the scheduler at an address, or start so many workers on this machine.

    Raises:
        ValueError: where dask is not installed, or there is no scheduler at the address.
    """
    try:
        import dask.config
        import distributed
    except ImportError:
        raise ValueError(
            "a scheduler and workers need dask; install it with: pip install 'gradlab[dask]'"
        ) from None
    if scheduler is None:
        # dask opens a port for its dashboard in any case; not 8787, which another may hold.
        options: Any = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        # Where a worker has been away for that long, the cluster ends the process that restarts it,
        # though it may be away for another death than the first.
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "52 weeks"}):
            cluster = distributed.LocalCluster(n_workers=workers, **options)
            with _quiet(), cluster, distributed.Client(cluster) as client:
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
    with _quiet(), client:
        yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep dask from printing tracebacks of what `measure` says in one line."""
    names = ("client", "scheduler", "nanny")
    loggers = [logging.getLogger(f"distributed.{name}") for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _deaf() -> Any:
    """A plugin that keeps a terminal's Ctrl-C from workers: it goes to the sweep, which waits."""
    import distributed

    class Deaf(distributed.WorkerPlugin):
        name = "gradlab-deaf"

        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


class _Workers:
    """Counts a client's workers, and says which are gone or silent, or that there are none."""

    def __init__(self, client: Any) -> None:
        self.client, self.idle, self.warned = client, 0.0, False
        self.addresses: set[str] = set()
        # By address, the scheduler's time of the last sign of life and ours when we first saw it.
        self.signs: dict[str, tuple[float, float]] = {}
        self.silent: set[str] = set()
        self.last_look = time.monotonic()

    def count(self) -> int:
        if time.monotonic() - self.last_look > SILENCE / 6:
            self._name_silent()
        addresses = set(self.client.nthreads())
        number = len(addresses)
        for address in sorted(self.addresses - addresses):
            print(f"the worker {address} is gone; what it measured runs again", file=sys.stderr)
        self.addresses = addresses
        self.idle = 0.0 if number else self.idle + LOOK
        if self.idle > PATIENCE and not self.warned:
            self.warned = True
            print("no workers at the scheduler; waiting for some", file=sys.stderr)
        return number

    def _name_silent(self) -> None:
        self.last_look = now = time.monotonic()
        for address, worker in self.client.scheduler_info()["workers"].items():
            sign = worker["last_seen"]
            if self.signs.get(address, (None, now))[0] != sign:
                self.signs[address] = sign, now
                self.silent.discard(address)
            elif now - self.signs[address][1] > SILENCE and address not in self.silent:
                self.silent.add(address)
                print(
                    f"the worker {address} has given no sign of life for {SILENCE:.0f} s; what it "
                    "measures waits until it goes on, or until the scheduler's worker-ttl is over",
                    file=sys.stderr,
                )


def fit_remotely(
    client: Any,
    stopping: Callable[[], bool],
    measurement: Measurement,
    run: Run,
    number: int,
    memory: int | None,
    share: int,
) -> Fit:
    """Call `work.try_fit` on a client's worker; fall back to single runs where `stopping()`.

    It falls back to single runs as well where the worker dies of it.
    """
    import distributed

    workers = _Workers(client)
    content = _pack(try_fit, measurement, tuple(run), number, memory, share)
    future = client.submit(_remote, content, _versions(), pure=False, priority=1)
    while not future.done():
        with contextlib.suppress(TimeoutError):
            distributed.wait([future], timeout=LOOK)
        worker_count = workers.count()
        if stopping() and not worker_count:
            future.cancel()
            return Fit(1, 1)
    try:
        return _result(future)
    except distributed.KilledWorker:
        return Fit(1, 1)


def measure(
    client: Any, stopping: Callable[[], bool], chunks: Iterator[Chunk]
) -> Generator[tuple[Chunk, list[Part]], None, None]:
    """Measure the chunks on a client's workers, one at a time each, in the order they end.

    Where there are no workers it waits for some, and says so, unless `stopping()`.

    A chunk whose workers die again and again, as they do where memory runs out, is tried again
    in calls of half the size, down to single runs, and then as two chunks of half the runs: the
    run that kills its workers fails alone.

    Raises:
        OSError: where the scheduler goes away.
        ValueError: where a worker has other versions than this process, or no gradlab.
    """
    import distributed

    running: dict[Any, Chunk] = {}
    workers = _Workers(client)
    try:
        while True:
            worker_count = workers.count()
            if stopping() and not worker_count:
                return
            idle = max(1, worker_count) - len(running)
            for chunk in itertools.islice(chunks, max(0, idle)):
                future = client.submit(_remote, _pack(compute, chunk), _versions(), pure=False)
                running[future] = chunk
            if not running:
                return
            with contextlib.suppress(TimeoutError):
                distributed.wait(list(running), timeout=LOOK, return_when="FIRST_COMPLETED")
            for future in [future for future in running if future.done()]:
                chunk = running.pop(future)
                try:
                    parts = _result(future)
                except distributed.KilledWorker:
                    if chunk.size > 1:
                        chunks = itertools.chain([chunk.halve()], chunks)
                        continue
                    if len(chunk.coordinates) > 1:
                        chunks = itertools.chain(chunk.split(), chunks)
                        continue
                    parts = [failed_part(chunk, _DIED)]
                yield chunk, parts
    except (CancelledError, OSError, TimeoutError) as error:
        raise OSError(
            "the scheduler went away; what was finished is kept, and the same command goes on from "
            "there"
        ) from error
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(running), force=True)


def _result(future: Any) -> Any:
    try:
        return future.result()
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"a worker cannot run this sweep: {error}; code of your own has to be in a file that "
            'workers can read: imports = ["my_cells.py"] in the spec, or --import'
        ) from None


def _version(name: str) -> str:
    # Not the installed metadata: those of an editable install may be of an older checkout.
    return importlib.import_module(name).__version__


@functools.cache
def _versions() -> dict[str, str]:
    return {name: _version(name) for name in _DEPENDS_ON}


def _pack(function: Callable[..., Any], *args: Any) -> bytes:
    """A call as bytes: the scheduler, which has not the user's code, must not look inside."""
    from distributed.protocol.pickle import dumps

    return dumps((function, args))


def _remote(content: bytes, versions: dict[str, str]) -> Any:
    from distributed.protocol.pickle import loads

    other = {name: _version(name) for name in versions if _version(name) != versions[name]}
    if other:
        ours = ", ".join(f"{name} {versions[name]}" for name in other)
        theirs = ", ".join(f"{name} {version}" for name, version in other.items())
        raise ValueError(f"a worker has {theirs}, where the sweep has {ours}: numbers could differ")
    function, args = loads(content)
    with _compiled.use_cache():
        return function(*args)
