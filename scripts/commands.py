#!/usr/bin/env python3
"""Runs every command of the README and the pages in docs/, the long ones at a small size, with the programs that the tests built.

Fails if a command fails, leaves out a file, or is not known here: add new commands to RUNS.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
PORT = 8123

# Each command with what runs in its place, and the files that it must write. `{bin}` is the folder of the programs, `{out}` an empty one.
RUNS = {
    "./scripts/try.sh": (
        "env WGPU_OPTIM={bin}/wgpu-optim ./scripts/try.sh --steps 40 --size 64 --gaussians 100 --out {out}/demo",
        ["demo/report.html", "demo/mgup-adamw.png", "demo/loss.svg"],
    ),
    "./scripts/train.sh": (
        "env WGPU_OPTIM_TRAIN={bin}/wgpu-optim-train ./scripts/train.sh --steps 20 --out {out}/digits",
        ["digits/loss.svg"],
    ),
    "./scripts/lab.sh": (
        "env WGPU_OPTIM_LAB={bin}/wgpu-optim-lab ./scripts/lab.sh run quick --budget 0s --out {out}/lab",
        ["lab/report.html", "lab/results.json"],
    ),
    "./scripts/demo.sh": (f"./scripts/demo.sh {PORT}", []),
    "cargo run --profile try -p wgpu-optim-cli -- verify": ("{bin}/wgpu-optim verify --report {out}/report.md", ["report.md"]),
    "cargo run --release -p wgpu-optim-cli -- bench": ("{bin}/wgpu-optim bench --params 65536 --samples 1", []),
    "cargo run --release --example counterexample": (
        "{bin}/examples/counterexample --seeds 5 --steps 900 --out {out}",
        ["counterexample.svg"],
    ),
    "cargo run --release --example own_buffers": ("{bin}/examples/own_buffers", []),
    "cargo run --profile try -p wgpu-optim-cli -- check examples/adabelief.wgsl": (
        "{bin}/wgpu-optim check examples/adabelief.wgsl --params 20000 --steps 5",
        [],
    ),
    "cargo run --release -p wgpu-optim-cli -- new my_optimizer": ("{bin}/wgpu-optim new {out}/my_optimizer", ["my_optimizer.wgsl"]),
    "cargo run --release -p wgpu-optim-cli -- check examples/adabelief.wgsl": (
        "{bin}/wgpu-optim check examples/ademamix.wgsl --no-run --json",
        [],
    ),
    "cargo run --release -p wgpu-optim-cli -- demo --lr 0.02 --optimizers adamw,mgup-adamw,examples/adabelief.wgsl": (
        "{bin}/wgpu-optim demo --lr 0.02 --optimizers adamw,mgup-adamw,examples/adabelief.wgsl --steps 20 --size 64 --gaussians 100 --out {out}/own",
        ["own/report.html", "own/adabelief.png"],
    ),
    "cargo run --release --example custom_base": (
        "{bin}/examples/custom_base --steps 40 --seeds 1 --out {out}",
        ["custom_base.svg"],
    ),
    "cargo run --release --example checkpoint": (
        "bash -c 'for _ in first second; do {bin}/examples/checkpoint --file {out}/linear.safetensors --steps 30; done'",
        ["linear.safetensors"],
    ),
    "cargo run --release -p wgpu-optim-burn --example train": ("{bin}/examples/train", []),
    "cargo run --release -p wgpu-optim-burn --example learner": ("{bin}/examples/learner", []),
    "cargo run --release -p wgpu-optim-cli -- explain mgup-adamw --tensors 64x48,4097 --json --run 3 >program.json": (
        "bash -c '{bin}/wgpu-optim explain mgup-adamw --tensors 64x48,4097 --json --run 3 >{out}/program.json'",
        ["program.json"],
    ),
    "python3 examples/python/step.py program.json": (
        # `scripts/test.sh` has put wgpu-py there.
        "env PYTHONPATH={bin}/../python python3 examples/python/step.py {out}/program.json --output {out}/output.bin",
        ["output.bin"],
    ),
}

# Commands that do not run here, and why.
LEFT_OUT = {
    "./scripts/test.sh": "continuous integration runs it before this script",
    "./scripts/bench-gpu.sh": "it takes an hour on a software adapter",
    "./scripts/amd-stats.sh": "it fetches another Mesa",
    "python3 -m pip install wgpu": "scripts/test.sh installs it",
}


def commands(page):
    """The commands of a page: lines of its shell blocks, and code that begins with one of the known commands."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            command = line.split("  #")[0].split("    #")[0].strip()
            if command and not command.startswith("#"):
                yield command
    for code in re.findall(r"^\| `((?:\./scripts/|cargo run )[^`]*)`", text, re.M):
        yield code


def serve(command):
    """Starts a server, and looks at its page."""
    with subprocess.Popen(shlex.split(command), cwd=ROOT) as server:
        try:
            for _ in range(1800):
                if server.poll() is not None:
                    return server.returncode or 1
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/") as page:
                        return 0 if b"<html" in page.read() else 1
                except OSError:
                    time.sleep(1)
            return 1
        finally:
            server.terminate()


def run(command, out):
    replacement, files = RUNS[command]
    replacement = replacement.format(bin=BIN, out=out)
    print(f"\n$ {command}\n  as: {replacement}", flush=True)
    status = serve(replacement) if command == "./scripts/demo.sh" else subprocess.run(shlex.split(replacement), cwd=ROOT).returncode
    missing = [name for name in files if not (out / name).is_file() or not (out / name).stat().st_size]
    if status or missing:
        print(f"error: `{command}` ended with {status}, missing files: {missing}", file=sys.stderr)
    return bool(status or missing)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = list(dict.fromkeys(command for page in pages for command in commands(page)))
    unknown = [command for command in found if command not in RUNS and command not in LEFT_OUT]
    unused = [command for command in [*RUNS, *LEFT_OUT] if command not in found]
    if unknown or unused:
        sys.exit(f"unknown commands in pages: {unknown}; commands here that no page has: {unused}")
    with tempfile.TemporaryDirectory() as folder:
        failed = [command for command in found if command in RUNS and run(command, Path(folder))]
    print(f"\n{len(found)} commands, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
