#!/usr/bin/env python3
"""Compares two builds of the program `wgpu-optim` bit for bit:

    ./scripts/same_bits.py OLD NEW

Both replay the recorded runs of tests/golden, and every pair of a base and a policy over tensors of many sizes and shapes, for
three steps, on the adapter that WGPU_BACKEND and WGPU_ADAPTER_NAME choose. The parameters must be equal. States show in them:
each step is computed from the states that the step before left.

Ends with 1 if a run differs or fails.
"""

import argparse
import json
import random
import struct
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
STEPS = 3
SIZES = [1, 2, 3, 255, 256, 257, 4096, 4097, 65537, 1000003]
SHAPES = [(24, 20), (72, 120), (300, 200), (1, 5), (128, 512), (70, 70), (120, 72), (9,)]

ELEMENTWISE = {
    "adamw": {"type": "adamw", "lr": 0.01, "weight_decay": 0.01},
    "adamw like PyTorch's": {
        "type": "adamw",
        "lr": 0.01,
        "weight_decay": 0.01,
        "eps_placement": "after_bias_correction",
        "decay_rate": "base",
    },
    "adamw by row": {"type": "adamw", "lr": 0.01, "second_moment": "row"},
    "lion": {"type": "lion", "lr": 0.01, "weight_decay": 0.01},
}
OF_MATRICES = {
    "muon": {"type": "muon", "lr": 0.1, "weight_decay": 0.01},
    "adago": {"type": "adago", "lr": 0.1, "weight_decay": 0.01},
}
POLICIES = {
    "plain": {"type": "plain"},
    "cautious": {"type": "cautious"},
    "cautious by count": {"type": "cautious", "normalizer": "count"},
    "mgup": {"type": "mgup"},
    "mgup at 0.3": {"type": "mgup", "ratio": 0.3},
    "mgup, approximate": {"type": "mgup", "selection": "approximate"},
    "cautious_mgup": {"type": "cautious_mgup"},
    "grams": {"type": "grams"},
}


def recording(path, shapes):
    """A recording with gradients of very different sizes. A third of those of the second step are zero."""
    rng = random.Random(5)
    header, data = {}, bytearray()

    def add(name, shape, scale, zeros):
        count = 1
        for length in shape:
            count *= length
        values = array("f", (0.0 if rng.random() < zeros else rng.gauss(0.0, scale) for _ in range(count)))
        end = len(data) + 4 * count
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), end]}
        data.extend(values.tobytes())

    for i, shape in enumerate(shapes):
        add(f"param.{i}", shape, 1.0, 0.0)
        for step in range(STEPS):
            add(f"grad.{step}.{i}", shape, 10.0 ** rng.uniform(-3.0, 1.0), 0.3 if step == 1 else 0.0)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def runs(folder):
    """What is replayed: a name, a recipe and a recording."""
    for recipe in sorted(GOLDEN.glob("*.json")):
        yield recipe.stem, recipe, recipe.with_suffix(".safetensors")
    flat = recording(folder / "flat.safetensors", [(size,) for size in SIZES])
    matrices = recording(folder / "matrices.safetensors", SHAPES)
    for bases, input in [(ELEMENTWISE, flat), (OF_MATRICES, matrices)]:
        for base in bases:
            for policy in POLICIES:
                if bases is OF_MATRICES and policy == "grams":
                    continue
                recipe = folder / "recipe.json"
                recipe.write_text(json.dumps({"base": bases[base], "policy": POLICIES[policy]}))
                yield f"{base} × {policy}", recipe, input


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs=2, type=Path, metavar=("OLD", "NEW"), help="builds of wgpu-optim")
    programs = parser.parse_args().programs
    same = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe, input in runs(Path(folder)):
            results = []
            for program in programs:
                output = Path(folder) / "output.safetensors"
                output.unlink(missing_ok=True)
                command = [program.resolve(), "replay", "--recipe", recipe, "--input", input, "--output", output]
                run = subprocess.run(command, capture_output=True, text=True)
                results.append(output.read_bytes() if run.returncode == 0 else f"{program} fails: {run.stderr.strip()}")
            failures = [result for result in results if isinstance(result, str)]
            if not failures and results[0] == results[1]:
                same += 1
                continue
            wrong += 1
            print(f"{name}: {'; '.join(failures) or 'different bits'}")
    print(f"{same} runs are the same to the bit, {wrong} are not")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
