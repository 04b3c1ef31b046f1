#!/usr/bin/env python3
"""Checkpoints of wgpu-optim in PyTorch, and back. Needs torch and safetensors.

    from pytorch_checkpoint import load, save
    load("linear.safetensors", model, optimizer)          # parameters and AdamW's state
    save("linear.safetensors", "back.safetensors", model, optimizer)

Names of tensors are those of model.named_parameters(). Run as a program, it records tests/pytorch: it goes on from a file of
the example `checkpoint` (the first argument), writes what PyTorch would save, and takes five more steps.
"""

import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def load(path, model, optimizer):
    """Fills a model and its torch.optim.AdamW from a checkpoint."""
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(file.get_tensor(f"params.{name}"))
            state = {key: state_of(file, f"state.{name}.{key}", param.shape) for key in ("exp_avg", "exp_avg_sq")}
            step = file.get_tensor(f"state.{name}.step").to(torch.float32)
            optimizer.state[param] = {"step": step, **state}


def state_of(file, key, shape):
    """A state in f32. In a file with 8-bit states, four numbers share a word, as docs/training.md describes."""
    if key in file.keys():
        return file.get_tensor(key)
    words = file.get_tensor(f"{key}.8bit").view(torch.int32).to(torch.int64)[:, None]
    fields = words >> torch.tensor([0, 6, 12, 18]) & 63
    squares = key.endswith("_sq")
    codes, span, nan = (fields, 15, 63) if squares else (fields & 31, 7, 32)
    bits = (((words >> 24 & 255) - span << 23) + (codes << 21)).to(torch.int32)
    values = torch.where(codes == 0, 0.0, bits.view(torch.float32))
    values = torch.where((fields > 31) & (not squares), -values, values)
    return torch.where(fields == nan, torch.nan, values).flatten()[: shape.numel()].reshape(shape)


def save(template, path, model, optimizer):
    """Writes a checkpoint: settings are those of the one at `template`, parameters and state come from PyTorch."""
    with safe_open(template, framework="pt") as file:
        metadata = file.metadata()
    tensors = {}
    for name, param in model.named_parameters():
        state = optimizer.state[param]
        tensors[f"params.{name}"] = param.detach()
        tensors[f"state.{name}.step"] = state["step"].to(torch.int64)
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"state.{name}.{key}"] = state[key]
    save_file(tensors, path, metadata)


def main():
    template = sys.argv[1]
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03, weight_decay=1e-2)
    load(template, model, optimizer)
    generator = torch.Generator().manual_seed(0)
    recorded = {}
    for step in range(-3, 5):
        for name, param in model.named_parameters():
            param.grad = 0.1 * torch.randn(param.shape, generator=generator)
            if step >= 0:
                recorded[f"grad.{step}.{name}"] = param.grad.clone()
        if step == 0:
            save(template, "tests/pytorch/checkpoint.safetensors", model, optimizer)
        optimizer.step()
        if step >= 0:
            for name, param in model.named_parameters():
                recorded[f"expected.{step}.{name}"] = param.detach().clone()
    save_file(recorded, "tests/pytorch/continued.safetensors", {"torch": torch.__version__})


if __name__ == "__main__":
    main()
