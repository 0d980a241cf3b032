"""Rebuilds gradlab/tasks/data/movie_review_snippets.tsv.bz2 from vaderSentiment's sdist.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python experiments/vendor_snippets.py vaderSentiment-3.3.2.tar.gz

A line per snippet, "rating<TAB>text", in the order of the source; ratings of exactly 0 are dropped.
Both the source and the result are checked against their SHA-256; see data/NOTICE.md.
"""

import argparse
import bz2
import hashlib
import io
import tarfile
from pathlib import Path

import gradlab.tasks
from gradlab.tasks import reviews

SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
OUTER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
INNER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def extract(sdist: bytes) -> bytes:
    """The ground-truth file, out of the archive inside the sdist."""
    packed = sdist
    for member in (OUTER, INNER):
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            packed = archive.extractfile(member).read()
    return packed


def compact(source: bytes) -> bytes:
    """Lines of id, mean rating and text, as compressed lines of rating and text, zeros dropped."""
    rows = (line.split("\t") for line in source.decode("utf-8").rstrip("\r\n").split("\r\n"))
    lines = [f"{rating}\t{text}\n" for _, rating, text in rows if float(rating) != 0]
    return bz2.compress("".join(lines).encode("utf-8"), 9)


def main() -> None:
    """Reads the sdist, checks it, writes the data file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path, help="path of vaderSentiment-3.3.2.tar.gz")
    default = Path(gradlab.tasks.__file__).parent / "data" / reviews.FILE
    parser.add_argument("--out", type=Path, default=default, help="default: %(default)s")
    options = parser.parse_args()

    sdist = options.sdist.read_bytes()
    check("source", hashlib.sha256(sdist).hexdigest(), SDIST_SHA256)
    packed = compact(extract(sdist))
    check("result", hashlib.sha256(packed).hexdigest(), reviews.SHA256)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(packed)
    print(f"{options.out}: {len(packed)} bytes, sha256 {reviews.SHA256}")


def check(what: str, actual: str, expected: str) -> None:
    """Leaves with a message unless the two digests agree."""
    if actual != expected:
        raise SystemExit(f"sha256 of the {what} is {actual}, expected {expected}")


if __name__ == "__main__":
    main()
