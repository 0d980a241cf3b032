"""A sweep on a Slurm cluster: `python experiments/slurm.py SPEC --out DIR --jobs 20`.

dask-jobqueue (`pip install 'gradlab[dask]' dask-jobqueue`) hands jobs to Slurm; each becomes a
worker that measures chunks and sends them back to this process, which alone writes into DIR. Run
it where it may stay for as long as the sweep takes: a login node, or a small job of its own.
Jobs may start late, die or reach their limit of time: what they were measuring goes to another, and
where this process ends, the same command goes on from what DIR holds.

    python experiments/slurm.py experiments/vanishing.toml --out results/vanishing \\
        --jobs 20 --queue cpu --cores 8 --memory 16GB --walltime 02:00:00

`--show` prints the job script and starts nothing. The same in a few lines of a notebook:

    from dask_jobqueue import SLURMCluster
    import gradlab as gl

    cluster = SLURMCluster(queue="cpu", cores=8, processes=1, memory="16GB", walltime="02:00:00")
    cluster.scale(jobs=20)
    gl.sweep("experiments/vanishing.toml", "results/vanishing", scheduler=cluster.scheduler_address)
"""

from __future__ import annotations

import argparse
import sys

import gradlab as gl


def seconds(walltime: str) -> int:
    """A time as Slurm writes it, in seconds: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = walltime.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    # Without days the last of two is seconds, with days minutes.
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(a * b for a, b in zip(parts, units, strict=False))


def main() -> None:
    """Start the jobs, and run the sweep on them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("spec")
    parser.add_argument("--out", required=True)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--queue")
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--memory", default="16GB", help="of a job")
    parser.add_argument("--walltime", default="01:00:00")
    parser.add_argument("--gpus", type=int, default=0, help="of a job")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        sys.exit("this needs dask-jobqueue: pip install 'gradlab[dask]' dask-jobqueue")
    cluster = SLURMCluster(
        queue=args.queue,
        cores=args.cores,
        # One worker a job: JAX takes all the cores, and all the devices, of its process.
        processes=1,
        memory=args.memory,
        walltime=args.walltime,
        job_extra_directives=[f"--gres=gpu:{args.gpus}"] if args.gpus else [],
        # A worker leaves before Slurm kills it, so that what it measures goes to another.
        worker_extra_args=["--lifetime", f"{0.9 * seconds(args.walltime):.0f}s"],
    )
    if args.show:
        print(cluster.job_script())
        return
    cluster.scale(jobs=args.jobs)
    say = lambda done, total, what: print(f"{done}/{total} runs: {what}", file=sys.stderr)  # noqa: E731
    report = gl.sweep(args.spec, args.out, scheduler=cluster.scheduler_address, progress=say)
    print(f"{report.computed} of {report.total} runs measured, {len(report.failed)} failed")


if __name__ == "__main__":
    main()
