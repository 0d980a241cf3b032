"""What the engine is given: how a run is measured, and what it costs."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gradlab.frames import KINDS, Schema

# A grid: every combination of the values of its axes, in the order of a run's coordinates.
Axes = dict[str, tuple[Any, ...]]
Tell = Callable[[str], None]
# The axes of a run as a named tuple, and at the end the digest of the user's code that it uses.
Run = Any


class Cost(NamedTuple):
    """What runs cost, as far as it is known before they are measured.

    Attributes:
        flops: a run -> its floating-point operations. An answer may take a while, so an estimate of
            many programs asks about some.
        work: a run -> a name for runs whose operations are in proportion, and the number that they
            are proportional to, at once.
        needed: a run -> bytes that it needs at the very least, told without a compiler, which may
            end the process at numbers that no machine has.
        peak: (run, size) -> bytes that `size` runs at once need on every device.
        written: (run, count) -> bytes that so many runs like this one leave on the disk.
        most: (run, number) -> the most of so many runs that are of use at once on every device.
        per_chunk: (run, size) -> how many runs make one chunk; None where measured times decide.
        compiled: a run -> what decides its compiled program, for counting them.
        family: a run -> two names, the first for runs that take about the same time per operation,
            the second for runs that take the same time.
    """

    flops: Callable[[Run], float] = lambda run: 0.0
    work: Callable[[Run], tuple[Any, float]] = lambda run: ((), 1.0)
    needed: Callable[[Run], int] = lambda run: 0
    peak: Callable[[Run, int], int] = lambda run, size: 0
    written: Callable[[Run, int], int] = lambda run, count: 1000 * count
    most: Callable[[Run, int], int] = lambda run, number: 1
    per_chunk: Callable[[Run, int], int] | None = None
    compiled: Callable[[Run], Any] = lambda run: ()
    family: Callable[[Run], tuple[str, str]] | None = None


def _one_part(axes: Axes) -> list[Axes]:
    return [axes]


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """The function that turns runs into rows, and what a sweep has to know of it.

    Attributes:
        schema: what its frames hold; the axes are the coordinates of a run.
        measure: (runs, size, tell) -> a row per run, a mapping of the columns of runs. The columns
            of another frame stand under its name, as a mapping of equally long lists. The runs
            agree on `program`, and `size` of them go at once on every device.
        source: a function and its arguments that give this measurement in another process.
        parts: axes -> the axes of disjoint grids with the same runs: without values that make no
            difference, and with the digest of the user's code under "code".
        choices: the valid names of the axes, by `Axis.choices`.
        check: (plan) raises ValueError where a run cannot be built.
        label: a run -> what a progress bar says of it.
        idle: (axes of all runs) -> axes whose values change no number of a run, and why.
        uses: axes that decide a program for some runs only, by a value that stands on another axis.
        cost: what runs cost.
        code: (values of all runs) -> the user's code that they use, by its name, with a digest.
        imports: files and modules that another process has to import first.
        named: the axes that the spec names.
        options: what else a spec may name: it becomes an axis then. For messages.
    """

    schema: Schema
    measure: Callable[[Sequence[Run], int, Tell], list[dict[str, Any]]]
    source: tuple[Callable[..., Any], tuple[Any, ...]]
    parts: Callable[[Axes], list[Axes]] = _one_part
    choices: Mapping[str, Callable[[], Iterable[str]]] = dataclasses.field(default_factory=dict)
    check: Callable[[Any], None] = lambda plan: None
    label: Callable[[Run], str] = lambda run: ""
    idle: Callable[[dict[str, set[Any]]], Iterator[tuple[str, str]]] = lambda values: iter(())
    uses: Mapping[tuple[str, Any], tuple[str, ...]] = dataclasses.field(default_factory=dict)
    cost: Cost = Cost()
    code: Callable[[dict[str, set[Any]]], dict[str, str]] = lambda values: {}
    imports: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __reduce__(self) -> Any:
        make, args = self.source
        return make, args

    @property
    def kind(self) -> str:
        """Its name in a manifest."""
        return self.schema.kind

    @functools.cached_property
    def run(self) -> Any:
        """The type of a run."""
        return run_type(self)

    @functools.cached_property
    def model(self) -> Any:
        """The type of a spec."""
        from gradlab.grid.spec import model_of

        return model_of(self)

    def arguments(self, axes: Axes) -> tuple[str, ...]:
        """The axes of a grid whose values make no other program."""
        extra = {n for (a, v), names in self.uses.items() if v in axes[a] for n in names}
        return tuple(a.name for a in self.schema.axes if not a.program and a.name not in extra)


def run_type(measurement: Measurement) -> Any:
    """A named tuple of the axes and "code", with a name and the program of each run."""
    schema = measurement.schema
    names = [axis.name for axis in schema.axes]
    # Hash the columns into the run_id: a run that measures another column is another run.
    columns = [*schema.measured, *itertools.chain.from_iterable(schema.others.values())]
    identity = repr((schema.kind, schema.version, *(columns if schema.version else ())))
    version = hashlib.sha256(identity.encode()).hexdigest()[:8]
    off = {axis.name: axis.default for axis in schema.axes if axis.switch}
    # Options of builders, which only some sweeps have: their names tell them apart. So do those of
    # axes that a run may do without: runs from before there was such an axis keep their names.
    kind = KINDS.get(schema.kind)
    own = {axis.name for axis in kind.axes if axis.default is not None} if kind else {*names}
    more = sorted({*names} - own)
    plain = [a.name for a in schema.axes if a.program and not a.switch]

    class Run(collections.namedtuple("Run", [*names, "code"], defaults=("",))):
        """The coordinates of one run; None where it has no such option."""

        __slots__ = ()
        # The axes that are on or off, and their values when off.
        switches = off
        # The builders that an axis is an option of, by the axes that name them.
        owners = {axis.name: tuple(axis.needs) for axis in schema.axes}
        schema_kind = schema.kind

        def __eq__(self, other: object) -> bool:
            # In a cache, a run is not another one whose option of another name has that value.
            return getattr(other, "_fields", None) == self._fields and tuple.__eq__(self, other)

        def __hash__(self) -> int:
            return hash((self._fields, tuple(self)))

        @property
        def run_id(self) -> str:
            """A name that follows from the coordinates; behind a dash, from the user's code."""
            values = self[:-1]
            if more:
                values = tuple(v for n, v in zip(names, values, strict=True) if n in own)
            pairs = ((name, getattr(self, name)) for name in more)
            options = (pair for pair in pairs if pair[1] is not None)
            text = repr((version, values, *options))
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            return f"{digest}-{self.code}" if self.code else digest

        @property
        def program(self) -> tuple[Any, ...]:
            """Runs that agree on this differ in arguments only, so they share compiled programs."""
            uses = measurement.uses.items()
            extra = [name for (a, v), names in uses if getattr(self, a) == v for name in names]
            return (
                *(getattr(self, name) for name in (*plain, *extra)),
                *(getattr(self, name) not in (value, None) for name, value in off.items()),
                self.code,
            )

    return Run


_ID = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})")


def code_in(run_id: str) -> str:
    """The digest of the user's code in a run's name, "" where it has none.

    >>> code_in("0123456789abcdef"), code_in("0123456789abcdef-fedcba9876543210")
    ('', 'fedcba9876543210')
    """
    match = _ID.fullmatch(run_id)
    return match[1] if match else ""
