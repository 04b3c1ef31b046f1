#!/usr/bin/env python3
"""Forecasts the time of a step on GPUs that nobody has measured: a model of latency and bandwidth, fed by `wgpu-optim explain --json`.

    cargo build -p wgpu-optim-cli && python3 scripts/forecast.py
    python3 scripts/forecast.py --recipes lion,mgup-lion --params 1000000

A dispatch takes the time between dependent dispatches, plus the larger of two times: its bytes at the bandwidth of the memory, and the rounds
of memory accesses that one lane makes in sequence. If parameters, gradients and state fit into 80 % of the last cache, the cache's bandwidth
and latency count. The model leaves out barriers, occupancy and shared bandwidth: take its numbers as ±40 %.
"""

import argparse
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "wgpu-optim"


@dataclass
class Gpu:
    name: str
    gap: float  # µs between dependent dispatches
    latency: tuple[float, float]  # µs, of the cache and of the memory
    bandwidth: tuple[float, float]  # GB/s, the same
    cache: float  # MB


GPUS = [
    Gpu("H100", 2.5, (0.27, 0.65), (5500, 3350), 50),
    Gpu("RTX 4060", 3.0, (0.25, 0.55), (1500, 272), 24),
    Gpu("RX 7600", 3.5, (0.35, 0.70), (1500, 288), 32),
    Gpu("M2", 4.0, (0.40, 0.80), (400, 100), 8),
]


def explain(recipe: str, params: int) -> dict:
    command = [TOOL, "explain", recipe, "--params", str(params), "--shape", "gpu", "--limits", "large", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def microseconds(gpu: Gpu, program: dict, dispatch: dict) -> float:
    held = sum(buffer["size"] for buffer in program["buffers"] if "arena" in buffer["label"] or "state" in buffer["label"])
    is_far = held > 0.8e6 * gpu.cache
    bytes_time = dispatch["bytes"] / gpu.bandwidth[is_far] / 1e3
    rounds = 1 if dispatch["after_miss"] else dispatch["serial_rounds"]
    return gpu.gap + max(bytes_time, rounds * gpu.latency[is_far])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="adamw,mgup-adamw,mgup-adamw-approximate", help="presets, separated by commas")
    parser.add_argument("--params", default="100000,1000000,10000000,100000000", help="parameters of the one tensor, separated by commas")
    parser.add_argument("--dispatches", action="store_true", help="also the time of each dispatch of the last recipe, in µs")
    arguments = parser.parse_args()
    recipes, sizes = arguments.recipes.split(","), [int(size) for size in arguments.params.split(",")]
    programs = {(recipe, size): explain(recipe, size) for recipe in recipes for size in sizes}
    steps = {key: [d for d in program["dispatches"] if d["when"] in ("step", "round")] for key, program in programs.items()}
    print("A forecast, not a measurement: ns per parameter, and relative to the first recipe.\n")
    print("| GPU | recipe | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    print("|---" * (len(sizes) + 2) + "|")
    for gpu in GPUS:
        first = None
        for recipe in recipes:
            of = [sum(microseconds(gpu, programs[recipe, size], d) for d in steps[recipe, size]) for size in sizes]
            first = first or of
            cells = [f"{1e3 * time / size:.4f} ({time / base:.2f})" for time, size, base in zip(of, sizes, first)]
            print(f"| {gpu.name} | `{recipe}` | " + " | ".join(cells) + " |")
    if arguments.dispatches:
        key = (recipes[-1], sizes[-1])
        for dispatch in steps[key]:
            times = ", ".join(f"{gpu.name} {microseconds(gpu, programs[key], dispatch):.1f}" for gpu in GPUS)
            print(f"{dispatch['purpose']}: {times}")


if __name__ == "__main__":
    main()
