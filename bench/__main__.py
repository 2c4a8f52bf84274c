"""What speed costs and gains, side by side in one run: `make bench`, or `python -m bench [PART ...]`.

Parts: neuron, step, memory, search, cheaper, pipeline; all of them without a name. Each writes
results/bench/PART.csv, so one can run again alone; then goals.csv, about.json (hardware and versions) and
figures/speed.png are made from all that is there. One thread; medians of interleaved rounds with quartiles.
Numbers of one machine: read the ratios. Exit status 1 where a goal is missed.
"""

import argparse
import json
import os
import sys
import time

from sltlib.base.machine import ENVIRONMENT

# What this process computes with must be there when it starts; every contestant has it alike.
if any(name not in os.environ for name in ENVIRONMENT):
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    os.execv(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]])

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from sltlib.base import files, paths  # noqa: E402
from sltlib.engine.work import provenance  # noqa: E402

from . import cheaper, measure, packed_report, pipeline, report, rivals, steps  # noqa: E402

PARTS = ("neuron", "step", "memory", "search", "cheaper", "pipeline")


def memory():
    """Peak MiB of a step, each in a fresh process with glibc's default allocator (huge pages round up)."""
    plain = {name: "" if name == "GLIBC_TUNABLES" else "0" for name in ENVIRONMENT} | {"OMP_NUM_THREADS": "1"}
    plain |= {"TORCHINDUCTOR_COMPILE_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    who = ("ours", "snnTorch", *(("spikingjelly",) if rivals.HAS_SPIKINGJELLY else ()))
    rows = []
    for network, timesteps in steps.MEMORY:
        for contestant in who:
            mib = float(measure.fresh(("--peak", network, timesteps, contestant), os.environ | plain))
            rows.append({"network": network, "T": timesteps, "contestant": contestant, "MiB": mib})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--report", action="store_true", help="train nothing: goals, figure and README from what has run")
    parser.add_argument("--seconds", type=float, default=4, help="for the rounds of one cell (default: 4)")
    parser.add_argument("--peak", nargs=3, metavar=("NETWORK", "T", "CONTESTANT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        network, timesteps, contestant = given.peak
        print(steps.peak(network, int(timesteps), contestant))
        return 0
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if not rivals.HAS_SPIKINGJELLY:
        print("spikingjelly is not installed, its rows are left out: `make bench` installs it")
    place = paths.results() / "bench"
    about_path = place / "about.json"
    about = json.loads(about_path.read_text()) if about_path.is_file() else {}
    make = {
        "neuron": lambda: steps.neuron_table(given.seconds / 8),
        "step": lambda: steps.step_table(given.seconds),
        "memory": memory,
        "search": steps.search_rows,
        "cheaper": lambda: cheaper.main(place),
        "pipeline": pipeline.table,
    }
    for part in () if given.report else given.parts or PARTS:
        print(f"--- {part}", flush=True)
        begin = time.monotonic()
        found = make[part]()
        files.write(place / f"{part}.csv", found.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
        about[part] = {k: v for k, v in provenance().items() if k not in ("finished", "numerics")} | {"cores": os.cpu_count()}
        about[part]["minutes"] = round((time.monotonic() - begin) / 60, 1)
        files.write(about_path, files.json_text(about))
    missed = report.write(place)
    if place == paths.ROOT / "results" / "bench" and all((place / f"{part}.csv").is_file() for part in PARTS):
        report.fill_readme(place)
        if packed_report.there(place):
            packed_report.write(place)
            packed_report.fill(place)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
