"""The report of a sweep: one self-contained HTML page, which loads nothing from a network.

`write` reads a folder of results and writes the page; `page` makes it of frames. Whatever comes
from a spec, a frame or a manifest is escaped, and the page's own policy lets no other script run.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe
import pandas as pd
import tomli_w

from gradlab import _files, frames
from gradlab._format import format_duration
from gradlab.report._captions import CAPTIONS, Caption
from gradlab.report._tables import axes, failures, points, training_points, verdicts

# The columns of runs that the page needs: a million runs with all columns do not fit in memory.
COLUMNS: dict[str, tuple[str, ...]] = {
    "gradients": (*frames.AXES, "seed", "status", "verdict", "rate"),
    "training": (
        *frames.TRAINED_AXES,
        *("run_id", "seed", "status", "solved_step", "loss", "error", "best_loss", "baseline"),
        *("rate_before", "rate_after"),
    ),
}


class Figure(NamedTuple):
    """A figure of the page: its place, what it is about, the picture, and its size in pixels."""

    number: int
    subject: str
    title: str
    text: str
    source: str
    width: int
    height: int


def write(dir: str | Path, out: str | Path | None = None) -> str:
    """Write the report of a finished sweep, one HTML file, and return its path.

    Args:
        dir: a folder that a sweep wrote, or an fsspec address of one.
        out: the file to write; report.html in the folder by default.

    Raises:
        ValueError: where there are no results, the sweep has not finished, or a file is damaged.

    The steps are not read, and of the runs only `COLUMNS`: a million runs take about 10 s and
    0.8 GB.
    """
    folder = _files.Folder(dir)
    manifest = _manifest(folder)
    schema = frames.schema_of(manifest)
    extra = [name for name in schema.point if name not in COLUMNS.get(schema.kind, ())]
    columns = (*COLUMNS[schema.kind], *extra) if schema.kind in COLUMNS else schema.runs
    runs = frames.read_frame(folder, schema, "runs", columns)
    if runs.empty:
        raise ValueError(f"no runs to report in {str(folder)!r}")
    columns = ("run_id", *schema.point, "seed", "status", "reason")
    failed = frames.read_frame(folder, schema, "runs", columns, {"status": "failed"})
    pictures = {
        name.removeprefix("figures/"): _picture(folder, name)
        for name in folder.names("figures")
        if name.endswith(".png")
    }
    text = page(runs, manifest, pictures, failed=failed).encode()
    if out is None:
        folder.put("report.html", text)
        return f"{str(dir).rstrip('/')}/report.html"
    if _files.expand(out).is_dir():
        raise ValueError(f"{out} is a folder; --out needs the name of a file")
    place, _, name = str(out).rpartition("/")
    target = _files.Folder(place if "://" in str(out) else Path(out).parent)
    target.put(name, text)
    return str(out)


def page(
    runs: pd.DataFrame,
    manifest: Mapping[str, Any],
    figures: Mapping[str, bytes] | None = None,
    *,
    failed: pd.DataFrame | None = None,
) -> str:
    """The report as HTML.

    Args:
        runs: a row per run, with the columns that `COLUMNS` names for the manifest's kind.
        manifest: what manifest.json says; a key that is not known is shown as it is.
        figures: the content of PNG files by their names, as `gradlab.figures.draw` names them.
        failed: the rows of the failed runs, with their reason; by default those of `runs`.

    >>> record = dict(run_id="a", cell="gru", init="normal", gain=1, input="gaussian", length=10,
    ...               hidden=4, inputs=2, seed=0, status="ok", verdict="stable", rate=-0.01)
    >>> text = page(frames.runs_frame([record]), {"spec": {"cell": ["<b>"]}})
    >>> "&lt;b&gt;" in text, "<b>" in text
    (True, False)
    """
    schema = frames.schema_of(manifest)
    if failed is None:
        failed = runs[runs["status"] == "failed"]
    complete = runs[runs["status"] != "failed"]
    names = schema.point
    subject = {"gradients": "input"}.get(schema.kind, "task" if "task" in runs else None)
    subjects = {str(value): None for value in runs[subject].dropna()} if subject else {}
    script = _source("sort.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=_title(runs, schema.kind),
        lede=_lede(runs, manifest),
        counts={"status": _count(runs["status"])}
        | ({"verdict": _count(complete["verdict"])} if "verdict" in complete else {}),
        kind=schema.kind,
        axes=axes(runs, names, schema.runs),
        spec=_spec(manifest.get("spec")),
        figures=_figures(figures or {}, subjects),
        table=_TABLES.get(schema.kind, points)(complete, schema),
        failed=failures(failed, schema),
        facts=_facts(manifest),
        files=manifest.get("files") or {},
        commit=_part(manifest, "git").get("commit"),
        version=_part(manifest, "versions").get("gradlab"),
        style=markupsafe.Markup(_source("page.css")),
        script=markupsafe.Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _source(name: str) -> str:
    return (importlib.resources.files(__name__) / name).read_text(encoding="utf-8")


def _manifest(folder: _files.Folder) -> dict[str, Any]:
    manifest = frames.read_manifest(folder)
    if manifest.get("status") == "running":
        raise ValueError(
            f"the sweep in {str(folder)!r} has not finished; the same command resumes it"
        )
    return manifest


def _picture(folder: _files.Folder, name: str) -> bytes:
    content = folder.read(name)
    if not _is_png(content):
        raise ValueError(f"'{folder}/{name}' is damaged; `gradlab figures DIR` draws it again")
    return content


def _is_png(content: bytes) -> bool:
    """Whether a PNG is whole: every chunk has its own CRC-32, and the last one is IEND."""
    place, kind = 8, b""
    while place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        end = place + 12 + size
        kind = content[place + 4 : place + 8]
        if content[end - 4 : end] != zlib.crc32(content[place + 4 : end - 4]).to_bytes(4, "big"):
            return False
        place = end
    return content[:8] == b"\x89PNG\r\n\x1a\n" and kind == b"IEND" and place == len(content)


_TABLES = {"training": training_points, "gradients": verdicts}


def _title(runs: pd.DataFrame, kind: str) -> str:
    if kind not in _TABLES:
        return kind
    cells = [str(cell) for cell in runs["cell"].unique()]
    title = _enumerate(cells) if len(cells) <= 4 else f"{len(cells)} cells"
    if kind == "gradients":
        return f"Gradients of {title}"
    return f"Training {title} on {_enumerate([str(task) for task in runs['task'].unique()])}"


def _enumerate(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _lede(runs: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    parts = [f"{len(runs):,} runs"]
    seeds = runs["seed"].nunique()
    if seeds > 1:
        parts[0] += f" with {seeds} seeds"
    if manifest.get("device"):
        parts.append(f"on {_device(manifest['device'])}")
    if manifest.get("written"):
        parts.append(f"finished {_time(manifest['written'])}")
    return ", ".join(parts) + "."


def _device(device: Any) -> str:
    """The devices without their platforms: "NVIDIA H100" for "gpu: NVIDIA H100"."""
    names = device if isinstance(device, list) else [device]
    return _enumerate([str(name).rpartition(": ")[2] for name in names])


def _count(values: pd.Series) -> dict[str, int]:
    counts = values.value_counts()
    return {str(name): int(count) for name, count in counts.items() if count}


def _figures(figures: Mapping[str, bytes], subjects: Iterable[str]) -> list[Figure]:
    """The figures, those about one input or task together, in the order of `CAPTIONS`."""
    kinds, places = list(CAPTIONS), list(subjects)

    def place(name: str) -> tuple[int, int, str]:
        kind, _, subject = name.removesuffix(".png").partition("-")
        return (
            places.index(subject) if subject in places else len(places),
            kinds.index(kind) if kind in kinds else len(kinds),
            name,
        )

    entries = []
    for number, name in enumerate(sorted(figures, key=place), 1):
        stem = name.removesuffix(".png")
        kind, _, subject = stem.partition("-")
        caption = CAPTIONS.get(kind, Caption(stem, ""))
        width, height = struct.unpack(">II", figures[name][16:24])
        entries.append(
            Figure(
                number,
                subject if kind in CAPTIONS else "",
                caption.title.format(subject=subject),
                caption.text.format(subject=subject),
                "data:image/png;base64," + base64.b64encode(figures[name]).decode(),
                width,
                height,
            )
        )
    return entries


def _spec(spec: Any) -> str:
    """The spec as a file that `gradlab sweep` reads; as JSON where TOML has no word for it."""
    if not isinstance(spec, Mapping):
        return "" if spec is None else str(spec)
    # TOML has no null: an axis that is not set is left out, and one value that sets nothing is "".
    rest = {
        key: ["" if each is None else each for each in value] if isinstance(value, list) else value
        for key, value in spec.items()
        if key not in ("zip", "blocks", "when") and value != [None]
    }
    tables = {
        "axes": {key: value for key, value in rest.items() if isinstance(value, list)},
        "fixed": {key: value for key, value in rest.items() if not isinstance(value, list)},
        **{name: spec.get(name) for name in ("when", "zip", "blocks")},
    }
    try:
        return tomli_w.dumps({name: table for name, table in tables.items() if table})
    except (TypeError, ValueError):
        return json.dumps(spec, indent=2, ensure_ascii=False)


def _part(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = manifest.get(name)
    return part if isinstance(part, Mapping) else {}


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the manifest says beside the spec and the files, known facts first: (name, text)."""
    formats = {
        "kind": _text,
        "status": _text,
        "runs": _text,
        "failed": _text,
        "written": _time,
        "seconds": _duration,
        "device": _text,
        "hosts": _text,
        "precision": _text,
        "settings": _text,
        "git": _tree,
        "versions": _text,
        "chunks": _chunks,
        "format": _text,
    }
    names = {"kind": "measured", "written": "finished", "seconds": "took", "git": "commit"}
    others = [key for key in manifest if key not in (*formats, "spec", "files", "blocks", "sum")]
    facts = []
    for key in (*formats, *others):
        value = manifest.get(key)
        if value is not None and value != [] and value != {}:
            facts.append((names.get(key, key.replace("_", " ")), formats.get(key, _text)(value)))
    return facts


def _text(value: Any) -> str:
    """A value of the manifest in words, whatever it is."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_text(one)}" for key, one in value.items())
    return str(value)


def _time(value: Any) -> str:
    try:
        when = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return _text(value)
    zone = " UTC" if when.utcoffset() == datetime.timedelta() else f" {when:%z}".rstrip()
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def _duration(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return format_duration(value) if number else _text(value)


def _tree(git: Any) -> str:
    if not isinstance(git, Mapping) or "commit" not in git:
        return _text(git)
    if "clean" not in git:
        return str(git["commit"])
    state = "nothing uncommitted" if git["clean"] else "with changes that are not committed"
    return f"{git['commit']}, {state}"


def _chunks(chunks: Any) -> str:
    """How many chunks there are, when they ran, for how long and where."""
    if not isinstance(chunks, list) or not all(isinstance(chunk, Mapping) for chunk in chunks):
        return _text(chunks)
    seconds = [c["seconds"] for c in chunks if isinstance(c.get("seconds"), int | float)]
    starts = sorted(str(c["started"]) for c in chunks if c.get("started"))
    hosts = Counter(str(c["host"]) for c in chunks if c.get("host"))
    lines = [f"{len(chunks):,}"]
    if seconds:
        lines[0] += (
            f", {format_duration(sum(seconds))} in all, the longest {format_duration(max(seconds))}"
        )
    if starts:
        lines.append(f"first started {_time(starts[0])}, last {_time(starts[-1])}")
    lines += [f"on {host}: {count:,}" for host, count in hosts.most_common()]
    return "\n".join(lines)


__all__ = ["COLUMNS", "page", "write"]


def __dir__() -> list[str]:
    return sorted(__all__)
