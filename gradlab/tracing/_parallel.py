"""Find the parallel scans of a program: what `jax.lax.associative_scan` leaves behind in it.

`associative_scan(f, elems)` is no primitive of JAX. It combines neighbours by f, scans the half as
many results by calling itself, and fills in the other half:

    scan(x) = interleave([x_1, f(r_1, x_3), f(r_2, x_5), ...], r),
    r       = scan([f(x_1, x_2), f(x_3, x_4), ...]),

so a program holds some ten equations for each of log2(T) levels. The equations carry the calls that
made them, from which a level of the recursion is known, and their operands, which must be linked as
above: both have to agree. At the deepest level f combines single elements. Those equations are the
step out_t = f(out_{t-1}, elem_t) of the recurrence.

The program is read, and JAX is not touched: so it does not matter under which name the function was
imported, whether `jit` traced the model earlier, which library made the call, or whether the
function is a library's copy of JAX's under another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Where each axis of a result comes from in an operand; None for one that is new.
Dims = tuple[int | None, ...]


class Layout(NamedTuple):
    """How the axes of a leaf are arranged; where vmap adds one, it may also move them.

    `elem`, `left`, `right` and `new` take an element, the two operands and the result of the step
    to the arrangement of the stacked states.
    """

    axis: int  # of the time, in the stacked states
    elem: Dims
    left: Dims
    right: Dims
    new: Dims


class Form(NamedTuple):
    """A parallel scan, in terms of the variables of its jaxpr."""

    elems: tuple[Any, ...]
    outs: tuple[Any, ...]
    layouts: tuple[Layout, ...]
    length: int
    reverse: bool
    eqns: tuple[Any, ...]  # of f on single elements: `consts`, `left` and `right` to `new`
    consts: tuple[Any, ...]
    left: tuple[Any, ...]
    right: tuple[Any, ...]
    new: tuple[Any, ...]


class Group(NamedTuple):
    """The equations of one parallel scan; `form` is None where they are not linked as expected."""

    start: int  # the index of the first of its recursion
    end: int  # of the last one
    call: tuple[tuple[str, int, str], ...]  # the frames around it
    form: Form | None


def frames(eqn: Any) -> Iterator[tuple[str, int, str]]:
    """File, line and function of each call that led to an equation, innermost first."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        yield frame.file_name, frame.line_num, frame.function_name


def find(eqns: Sequence[Any]) -> list[Group]:
    """The parallel scans whose equations stand in this list, in program order."""
    groups = []
    i = 0
    while i < len(eqns):
        owner = _owner(eqns[i]) if _is_pair_slice(eqns[i]) else None
        if owner is not None and _level(eqns[i], owner)[0] == 1:
            group = _group(eqns, i, owner)
            if group is not None:
                groups.append(group)
                i = group.end
        i += 1
    return groups


_NAME = "associative_scan"
# The recursion is a function inside the parallel scan's own.
_RECURSION = ".<locals>._scan"


def _owner(eqn: Any) -> str | None:
    """The name of the function whose recursion made an equation; None where there is none."""
    for _, _, function in frames(eqn):
        if function.endswith(_RECURSION):
            return function.removesuffix(_RECURSION)
    return None


def _level(eqn: Any, owner: str) -> tuple[int, int]:
    """How deep in the recursion an equation stands, and how many parallel scans are around it.

    0 is the function itself, before and after the recursion; -1 is no part of its own equations.
    """
    depth, level, calls = 0, -1, 0
    inside = False  # a call of f
    for _, _, function in frames(eqn):
        if function == owner:
            if not calls:
                level = -1 if inside else depth
            calls += 1
        elif not calls and function == f"{owner}.<locals>.combine":
            inside = True
        elif not calls and function == owner + _RECURSION:
            depth += 1
    return level, calls


def _is_pair_slice(eqn: Any) -> bool:
    """Whether an equation takes every other row, from the first on."""
    if eqn.primitive.name != "slice" or not any(s == 2 for s in eqn.params["strides"] or ()):
        return False
    return not any(eqn.params["start_indices"])


class _NoMatch(Exception):
    """The equations are not linked as a parallel scan's are."""


def _group(eqns: Sequence[Any], start: int, owner: str) -> Group | None:
    """The parallel scan that begins here; None for a function of another kind."""
    _, calls = _level(eqns[start], owner)
    reader = _Reader(eqns, start, owner, calls)
    try:
        form, end = reader.form()
        return Group(start, end, _call(eqns[start], owner), form)
    except _NoMatch:
        # Skip what belongs to the same call, so that it is reported once.
        end, deepest = start, 1
        for i in range(start, len(eqns)):
            level, around = _level(eqns[i], owner)
            if around < calls:
                break
            if level >= 0:
                end, deepest = i, max(deepest, level)
        # Anybody's function may hold one of that name; only a parallel scan's calls itself.
        is_parallel = deepest > 1 or owner.rpartition(".")[2] == _NAME
        return Group(start, end, _call(eqns[start], owner), None) if is_parallel else None


def _call(eqn: Any, owner: str) -> tuple[tuple[str, int, str], ...]:
    """The frames around the parallel scan of an equation, from its call outwards."""
    around = list(frames(eqn))
    first = next(i for i, (_, _, function) in enumerate(around) if function == owner)
    return tuple(around[first + 1 :])


class _Reader:
    """Reads the equations of one parallel scan in their order, and checks how they are linked."""

    def __init__(self, eqns: Sequence[Any], start: int, owner: str, calls: int) -> None:
        self.eqns = eqns
        self.start = self.i = start
        self.owner = owner
        self.calls = calls
        self.step: tuple[Any, ...] = ()
        self.left: list[Any] = []
        self.right: list[Any] = []
        self.new: list[Any] = []
        self.elem_dims: list[Dims] = []  # of the elements of the whole, ...
        self.left_dims: list[Dims] = []  # ... and of the step at the deepest level
        self.right_dims: list[Dims] = []
        self.new_dims: list[Dims] = []

    def form(self) -> tuple[Form, int]:
        elems = []
        while _is_pair_slice(self.eqns[self.start + len(elems)]):
            elems.append(self.eqns[self.start + len(elems)].invars[0])
        axes = self._axes(len(elems))
        (length,) = {atom.aval.shape[axis] for atom, axis in zip(elems, axes, strict=True)}
        outs = self._scan(elems, length, 1)
        # The function turns the elements around before the recursion, and the states after it.
        sources = [self._source(self.start - len(elems) + j, atom) for j, atom in enumerate(elems)]
        reverse = any(atom is not None for atom in sources)
        if reverse:
            check(all(atom is not None for atom in sources))
            elems, outs = sources, [self._take("rev", atom).outvars[0] for atom in outs]
        layouts = tuple(
            Layout(elem.index(axis), elem, left, right, new)
            for axis, elem, left, right, new in zip(
                axes, self.elem_dims, self.left_dims, self.right_dims, self.new_dims, strict=True
            )
        )
        for leaf in zip(layouts, elems, outs, self.left, self.right, self.new, strict=True):
            _check_leaf(*leaf)
        own = {*self.left, *self.right, *(var for eqn in self.step for var in eqn.outvars)}
        consts = dict.fromkeys(
            atom
            for eqn in self.step
            for atom in eqn.invars
            if not hasattr(atom, "val") and atom not in own
        )
        form = Form(
            tuple(elems), tuple(outs), layouts, length, reverse, self.step,
            tuple(consts), tuple(self.left), tuple(self.right), tuple(self.new),
        )  # fmt: skip
        return form, self.i - 1

    def _axes(self, count: int) -> list[int]:
        """The axes along which the next equations take every other row."""
        pairs = self.eqns[self.i : self.i + count]
        check(len(pairs) == count and all(map(_is_pair_slice, pairs)))
        return [eqn.params["strides"].index(2) for eqn in pairs]

    def _scan(self, elems: list[Any], length: int, depth: int) -> list[Any]:
        """Read the equations of one level; returns the states that it makes."""
        pairs = list(zip(elems, self._axes(len(elems)), strict=True))
        left = [self._slice(atom, axis, 0, 2, depth) for atom, axis in pairs]
        right = [self._slice(atom, axis, 1, 2, depth) for atom, axis in pairs]
        half = length // 2
        between = self._skip(depth + 1 if half > 1 else depth)
        reduced_elems = [eqn.invars[0] for eqn in self.eqns[self.i : self.i + len(elems)]]
        odd: list[Any] = [None] * len(elems)
        if half > 1:
            odd = self._scan(reduced_elems, half, depth + 1)
        else:
            self.step, self.left, self.right = between, left, right
        if length % 2 == 0:
            # At the deepest level these are the first equations that read what f gave.
            for atom in odd if half > 1 else reduced_elems:
                self._slice(atom, None, 0, 1, depth)
        later = [self._slice(atom, axis, 2, 2, depth) for atom, axis in pairs]
        again = self._skip(depth)
        even, row_dims, third = [], [], []
        for atom, axis in pairs:
            row = self._slice(atom, axis, 0, 1, depth)
            concat, (first, dims), second = self._join()
            check(first is row)
            even.append(concat)
            row_dims.append(dims)
            third.append(second)  # f(out_2, elem_3), where that is all
        outs, new, new_dims = [], [], []
        for early, late in zip(even, odd, strict=True):
            early_pad, late_pad = self._pad(early), self._pad(late)
            first, first_dims = self._arrange(early_pad.outvars[0])
            second, dims = self._arrange(late_pad.outvars[0])
            check(_is_identity(first_dims) and (half == 1 or _is_identity(dims)))
            both = self._take(None, first)
            check(both.primitive.name in ("add", "or") and both.invars[1] is second)
            new.append(late_pad.invars[0])
            new_dims.append(dims)
            outs.append(both.outvars[0])
        self.elem_dims = row_dims
        if half == 1:
            self.new, self.new_dims = new, new_dims
            self.left_dims = self.right_dims = row_dims
            if length == 3 and any(None in dims for dims in row_dims):
                # Where vmap does not run over an element, out_1 has one axis less than out_2.
                # So is the step read where f takes out_2 to out_3.
                check(len(set(new)) == len(new))
                self.step, self.left, self.right = again, new, later
                self.left_dims = new_dims
                self.new, self.new_dims = map(list, zip(*third, strict=True))
        return outs

    def _is_at(self, eqn: Any, depth: int) -> bool:
        return _level(eqn, self.owner) == (depth, self.calls)

    def _next(self) -> str:
        check(self.i < len(self.eqns))
        return self.eqns[self.i].primitive.name

    def _take(self, kind: str | None, operand: Any) -> Any:
        """The next equation, which must be of this kind and read this operand first."""
        check(kind in (None, self._next()))
        eqn = self.eqns[self.i]
        check(operand is None or operand is eqn.invars[0])
        self.i += 1
        return eqn

    def _pad(self, atom: Any) -> Any:
        """The next equation, which pads a value; in shard_map the zero is made a device's own."""
        while self._next() in _VARY:
            self.i += 1
        return self._take("pad", atom)

    def _slice(self, atom: Any, axis: int | None, start: int, stride: int, depth: int) -> Any:
        eqn = self._take("slice", atom)
        starts, strides = eqn.params["start_indices"], eqn.params["strides"] or ()
        check(sum(starts) == start and set(strides) <= {1, stride})
        if axis is not None:
            check(starts[axis] == start and (not strides or strides[axis] == stride))
        check(self._is_at(eqn, depth))
        return eqn.outvars[0]

    def _skip(self, depth: int) -> tuple[Any, ...]:
        """Pass over the equations of f, up to the next of this level."""
        start = self.i
        while self._next() != "slice" or not self._is_at(self.eqns[self.i], depth):
            self.i += 1
        return tuple(self.eqns[start : self.i])

    def _arrange(self, atom: Any) -> tuple[Any, Dims]:
        """Follow a value through equations that arrange its axes."""
        start, source = self.i, atom
        while self._next() in _ARRANGE and self.eqns[self.i].invars[0] is atom:
            atom = self.eqns[self.i].outvars[0]
            self.i += 1
        origin, dims = _trace_back(atom, self.eqns[start : self.i])
        check(origin is source)
        return atom, dims

    def _join(self) -> tuple[Any, tuple[Any, Dims], tuple[Any, Dims]]:
        """Follow two values to where they are concatenated; their axes are arranged before."""
        start = self.i
        while self._next() in _ARRANGE:
            self.i += 1
        moves = self.eqns[start : self.i]
        concat = self._take("concatenate", None)
        first, second = (_trace_back(atom, moves) for atom in concat.invars)
        return concat.outvars[0], first, second

    def _source(self, i: int, atom: Any) -> Any:
        """What an element is the reverse of, where equation i turned it around for the scan."""
        if i < 0 or self.eqns[i].primitive.name != "rev" or self.eqns[i].outvars[0] is not atom:
            return None
        return self.eqns[i].invars[0] if self._is_at(self.eqns[i], 0) else None


def check(condition: bool) -> None:
    if not condition:
        raise _NoMatch


_ARRANGE = ("transpose", "broadcast_in_dim")
# One operation, by the names that it has in older and in newer JAX.
_VARY = ("pvary", "pcast")


def _trace_back(atom: Any, moves: Sequence[Any]) -> tuple[Any, Dims]:
    """What a value was before these equations arranged its axes, and where each comes from."""
    dims: Dims = tuple(range(len(atom.aval.shape)))
    for eqn in reversed(moves):
        if eqn.outvars[0] is atom:
            if eqn.primitive.name == "transpose":
                order = eqn.params["permutation"]
            else:
                places = eqn.params["broadcast_dimensions"]
                order = [
                    places.index(i) if i in places else None
                    for i in range(len(eqn.params["shape"]))
                ]
            dims = tuple(None if i is None else order[i] for i in dims)
            atom = eqn.invars[0]
    return atom, dims


def _is_identity(dims: Dims) -> bool:
    return dims == tuple(range(len(dims)))


def _check_leaf(layout: Layout, elem: Any, out: Any, left: Any, right: Any, new: Any) -> None:
    """A leaf that the step changes in shape or type is no state."""
    check(None not in (*layout.left, *layout.new))
    state = list(out.aval.shape)
    row = [*state[: layout.axis], 1, *state[layout.axis + 1 :]]
    for atom, dims, sizes in (
        (left, layout.left, row),
        (right, layout.right, row),
        (new, layout.new, row),
        (elem, layout.elem, state),
    ):
        shape = [n if i is None else atom.aval.shape[i] for i, n in zip(dims, sizes, strict=True)]
        check(shape == sizes and atom.aval.dtype == out.aval.dtype)
