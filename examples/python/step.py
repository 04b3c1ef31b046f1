#!/usr/bin/env python3
"""Runs a program of wgpu-optim in Python, through wgpu-py. None of this crate's code takes part.

    wgpu-optim explain mgup-adamw --tensors 64x48,4097 --limits webgpu --json --run 3 >program.json
    pip install wgpu
    python3 examples/python/step.py program.json --input input.bin --output output.bin

`input.bin` holds the parameters of all tensors in their order, then their gradients for each step, all as the program stores them. Without it,
everything is a simple pattern. `output.bin` gets the parameters, and then the states. docs/program.md describes the format.
"""

import argparse
import array
import json
import math
import os
from pathlib import Path

import wgpu


def device_for(program):
    """A device with what the kernels need, on the adapter whose name contains WGPU_ADAPTER_NAME."""
    wanted = os.environ.get("WGPU_ADAPTER_NAME", "").lower()
    adapters = wgpu.gpu.enumerate_adapters_sync()
    adapters = [a for a in adapters if wanted in a.info["device"].lower() and a.info["backend_type"] != "OpenGL"]
    if not adapters:
        raise SystemExit(f"no adapter is named `{wanted}`")
    largest = max(bound["size"] for dispatch in program["dispatches"] for bound in dispatch["bindings"])
    size = max(buffer["size"] for buffer in program["buffers"])
    limits = {"max_buffer_size": max(size, 1 << 28), "max_storage_buffer_binding_size": max(largest, 1 << 27)}
    device = adapters[0].request_device_sync(required_limits=limits)
    print(f"on {adapters[0].info['device']}")
    return device


def kind_of(binding):
    """How a layout declares a binding of a kernel."""
    if binding["is_uniform"]:
        return "uniform"
    return "read-only-storage" if binding["is_read_only"] else "storage"


class Program:
    """The buffers and pipelines of a program on a device."""

    def __init__(self, program, device):
        if program["version"] != 1:
            raise SystemExit(f"the program has version {program['version']}, and this script knows version 1")
        if "steps" not in program:
            raise SystemExit("the program lacks what a host needs; print it with --run STEPS")
        self.program, self.device = program, device
        self.buffers = [self.buffer(buffer) for buffer in program["buffers"]]
        labels = [buffer["label"] for buffer in program["buffers"]]
        self.scalars = self.buffers[labels.index("wgpu-optim.scalars")]
        self.modules = [device.create_shader_module(code=kernel["source"]) for kernel in program["kernels"]]
        # Those that run in every step of a program without micro-batches.
        steps = [dispatch for dispatch in program["dispatches"] if dispatch["when"] in ("step", "average", "round")]
        self.dispatches = [(dispatch, *self.pipeline(dispatch)) for dispatch in steps]

    def buffer(self, buffer):
        usage = wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        usage |= wgpu.BufferUsage.STORAGE if "storage" in buffer["usage"] else 0
        usage |= wgpu.BufferUsage.UNIFORM if "uniform" in buffer["usage"] else 0
        made = self.device.create_buffer(label=buffer["label"], size=buffer["size"], usage=usage)
        if buffer.get("contents"):
            self.device.queue.write_buffer(made, 0, array.array("I", buffer["contents"]))
        return made

    def pipeline(self, dispatch):
        """The pipeline of a dispatch, and its bind groups by their numbers."""
        kernel = self.program["kernels"][dispatch["kernel"]]
        compute = {
            "module": self.modules[dispatch["kernel"]],
            "entry_point": dispatch["entry_point"],
            "constants": kernel["constants"],
        }
        kinds = {(b["group"], b["binding"]): kind_of(b) for b in kernel["bindings"]}
        groups = [[] for _ in range(1 + max(bound["group"] for bound in dispatch["bindings"]))]
        for bound in dispatch["bindings"]:
            groups[bound["group"]].append(bound)
        layouts, bind_groups = [], []
        for number, group in enumerate(groups):
            entries = [
                {
                    "binding": b["binding"],
                    "visibility": wgpu.ShaderStage.COMPUTE,
                    "buffer": {"type": kinds[number, b["binding"]]},
                }
                for b in group
            ]
            layouts.append(self.device.create_bind_group_layout(entries=entries))
            resources = [
                {
                    "binding": b["binding"],
                    "resource": {"buffer": self.buffers[b["buffer"]], "offset": b["offset"], "size": b["size"]},
                }
                for b in group
            ]
            bind_groups.append(self.device.create_bind_group(layout=layouts[-1], entries=resources))
        layout = self.device.create_pipeline_layout(bind_group_layouts=layouts)
        return self.device.create_compute_pipeline(layout=layout, compute=compute), bind_groups

    def write(self, place, data):
        self.device.queue.write_buffer(self.buffers[place["buffer"]], place["offset"], data)

    def read(self, place):
        return bytes(self.device.queue.read_buffer(self.buffers[place["buffer"]], place["offset"], place["size"]))

    def step(self, scalars):
        """One step: its scalars, and then all dispatches in their order in one pass."""
        self.device.queue.write_buffer(self.scalars, 0, array.array("I", scalars))
        encoder = self.device.create_command_encoder()
        work = encoder.begin_compute_pass()
        for dispatch, pipeline, groups in self.dispatches:
            work.set_pipeline(pipeline)
            for number, group in enumerate(groups):
                work.set_bind_group(number, group)
            work.dispatch_workgroups(*dispatch["workgroups"])
        work.end()
        self.device.queue.submit([encoder.finish()])


def pattern(size, seed):
    """Some f32 values between -1 and 1."""
    return array.array("f", (math.sin(1.7 * i + seed) for i in range(size // 4))).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--input", type=Path, help="parameters, then the gradients of each step")
    parser.add_argument("--output", type=Path, help="gets parameters, then states")
    arguments = parser.parse_args()
    data = json.loads(arguments.program.read_text())
    program, given = Program(data, device_for(data)), arguments.input and arguments.input.read_bytes()
    at = 0

    def take(place, seed):
        nonlocal at
        at += place["size"]
        return given[at - place["size"] : at] if given else pattern(place["size"], seed)

    tensors = data["tensors"]
    for tensor in tensors:
        program.write(tensor["param"], take(tensor["param"], 0))
    for t, scalars in enumerate(data["steps"], start=1):
        for tensor in tensors:
            program.write(tensor["grad"], take(tensor["grad"], t))
        program.step(scalars)
    params = [program.read(tensor["param"]) for tensor in tensors]
    states = [program.read(place) for tensor in tensors for _, place in tensor["states"]]
    if arguments.output:
        arguments.output.write_bytes(b"".join(params + states))
    print(f"{len(data['steps'])} steps of {data['parameters']} parameters, {len(program.dispatches)} dispatches each")


if __name__ == "__main__":
    main()
