#!/usr/bin/env python3
"""Records runs of PyTorch and of Python packages in f64, as tests/steps/golden.rs replays them.

    pip install numpy safetensors torch==2.15.0 schedulefree==1.4.1 pytorch_optimizer==4.1.0
    tests/golden/record.py [NAME...]

Each case is a recipe and the optimizer that it must equal. Parameters and gradients are f32; the run is in f64, and each result is rounded
once.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytorch_optimizer
import schedulefree
import torch
from pytorch_optimizer.optimizer.muon import normuon
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent
STEPS = 8  # RAdam divides by its second moment from the sixth on
SHAPES = {"bias": [37], "one": [1], "tall": [40, 24], "w": [17, 9]}


def orthogonalize(matrix, num_steps, **_):
    """Newton–Schulz as wgpu-optim has it, in f64: the package computes it in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


normuon.zero_power_via_newton_schulz_5 = orthogonalize


def make_normuon(params):
    """NorMuon for matrices, and the AdamW of its recipe's fallback for others."""
    params = list(params)
    groups = [
        {"params": [p for p in params if p.ndim == 2], "use_muon": True, "lr": 0.02, "momentum": 0.9, "beta2": 0.8, "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim != 2], "use_muon": False, "lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1},
    ]
    return pytorch_optimizer.NorMuon(groups, foreach=False)


def make_schedule_free(optimizer):
    optimizer.train()
    return optimizer


TORCH_FALLBACK = {
    "type": "adamw", "lr": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1, "decay_rate": "base", "eps_placement": "after_bias_correction",
}
CASES = {
    "torch_sgd": ({"type": "sgd", "lr": 0.05, "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1)),
    "torch_sgd_momentum": (
        {"type": "sgd", "lr": 0.05, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.2, weight_decay=0.1),
    ),
    "torch_sgd_nesterov": (
        {"type": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
    "torch_rmsprop": (
        {"type": "rmsprop", "lr": 0.01, "alpha": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, weight_decay=0.1),
    ),
    "torch_rmsprop_centered": (
        {"type": "rmsprop", "lr": 0.01, "alpha": 0.9, "eps": 1e-6, "momentum": 0.8, "centered": True, "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9, eps=1e-6, momentum=0.8, centered=True, weight_decay=0.1),
    ),
    "torch_adagrad": (
        {"type": "adagrad", "lr": 0.05, "lr_decay": 0.1, "accumulator_init": 0.01, "weight_decay": 0.1},
        lambda p: torch.optim.Adagrad(p, lr=0.05, lr_decay=0.1, initial_accumulator_value=0.01, weight_decay=0.1),
    ),
    "torch_adam": (
        {"type": "adam", "lr": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
    ),
    "torch_adam_amsgrad": (
        {"type": "adam", "lr": 0.01, "betas": [0.9, 0.5], "amsgrad": True},
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.5), amsgrad=True),
    ),
    "torch_adamw": (
        {"type": "adamw", "lr": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1, "decay_rate": "base", "eps_placement": "after_bias_correction"},
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
    ),
    "torch_adamw_amsgrad": (
        {
            "type": "adamw", "lr": 0.01, "betas": [0.9, 0.5], "weight_decay": 0.1, "amsgrad": True,
            "decay_rate": "base", "eps_placement": "after_bias_correction",
        },
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.9, 0.5), weight_decay=0.1, amsgrad=True),
    ),
    "torch_nadam": (
        {"type": "nadam", "lr": 0.01, "betas": [0.9, 0.95], "momentum_decay": 0.1, "weight_decay": 0.1},
        lambda p: torch.optim.NAdam(p, lr=0.01, betas=(0.9, 0.95), momentum_decay=0.1, weight_decay=0.1),
    ),
    "torch_nadam_decoupled": (
        {"type": "nadam", "lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True},
        lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "torch_radam": (
        {"type": "radam", "lr": 0.01, "weight_decay": 0.1},
        lambda p: torch.optim.RAdam(p, lr=0.01, weight_decay=0.1),
    ),
    "torch_radam_decoupled": (
        {"type": "radam", "lr": 0.01, "betas": [0.9, 0.95], "weight_decay": 0.1, "decoupled_weight_decay": True},
        lambda p: torch.optim.RAdam(p, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, decoupled_weight_decay=True),
    ),
    # PyTorch's own ε1 is 2.2e-16 in f64, and bounds the divisors.
    "torch_adafactor": (
        {"type": "adafactor", "lr": 0.5, "weight_decay": 0.1},
        lambda p: torch.optim.Adafactor(p, lr=0.5, eps=(1e-30, 1e-3), weight_decay=0.1, foreach=False),
    ),
    "torch_adafactor_clipped": (
        {"type": "adafactor", "lr": 0.02, "decay_rate": -0.5, "clip_threshold": 1.1, "eps_scale": 0.8},
        lambda p: torch.optim.Adafactor(p, lr=0.02, beta2_decay=-0.5, eps=(1e-30, 0.8), d=1.1, foreach=False),
    ),
    "schedule_free_adamw": (
        {"type": "schedule_free_adamw", "lr": 0.02, "betas": [0.8, 0.95], "r": 0.5, "weight_decay": 0.1},
        lambda p: make_schedule_free(
            schedulefree.AdamWScheduleFree(p, lr=0.02, betas=(0.8, 0.95), r=0.5, weight_decay=0.1, foreach=False)
        ),
    ),
    "schedule_free_sgd": (
        {"type": "schedule_free_sgd", "lr": 0.1, "momentum": 0.7, "weight_decay": 0.1},
        lambda p: make_schedule_free(schedulefree.SGDScheduleFree(p, lr=0.1, momentum=0.7, weight_decay=0.1, foreach=False)),
    ),
    "normuon": (
        {"type": "normuon", "lr": 0.02, "momentum": 0.9, "beta2": 0.8, "weight_decay": 0.1, "fallback": TORCH_FALLBACK},
        make_normuon,
    ),
}


def record(name, base, make):
    random = np.random.default_rng(sum(map(ord, name)))
    tensors, params = {}, {}
    for key, shape in SHAPES.items():
        tensors[f"param.{key}"] = random.uniform(-1, 1, shape).astype(np.float32)
        params[key] = torch.nn.Parameter(torch.tensor(tensors[f"param.{key}"], dtype=torch.float64))
    optimizer = make(params.values())
    for step in range(STEPS):
        for key, shape in SHAPES.items():
            # Of widely differing sizes, every eighth exactly zero. Some coordinates never have a gradient.
            grad = (0.1 * random.normal(size=shape) ** 3).astype(np.float32)
            grad[random.uniform(size=shape) < 0.125] = 0
            grad.reshape(-1)[5::11] = 0
            tensors[f"grad.{step}.{key}"] = grad
            params[key].grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        for key, param in params.items():
            tensors[f"expected.{step}.{key}"] = param.detach().numpy().astype(np.float32)
    if hasattr(optimizer, "eval"):
        optimizer.eval()
        for key, param in params.items():
            tensors[f"evaluated.{key}"] = param.detach().numpy().astype(np.float32)
    save_file(tensors, FOLDER / f"{name}.safetensors")
    text = json.dumps({"base": base, "policy": {"type": "plain"}}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main():
    for name in sys.argv[1:] or CASES:
        record(name, *CASES[name])
        print(name)


if __name__ == "__main__":
    main()
