"""Nanoseconds per parameter of PyTorch's fused AdamW, and of MGUP-AdamW written with its operations, and GFLOP/s of its
f32 matrix product (TF32 off) at 4096³ (1024³ on a CPU), as JSON.

python3 scripts/bench-pytorch.py [--device cuda] [--samples 15] SIZE...

Without PyTorch, or without the device, it says so and exits with 1.
"""

import argparse
import json
import statistics
import sys
import time


def fused_adamw(torch, param):
    optimizer = torch.optim.AdamW([param], lr=1e-3, fused=True)
    return optimizer.step


def mgup_adamw(torch, param):
    exp_avg, exp_avg_sq = torch.zeros_like(param), torch.zeros_like(param)
    k = param.numel() // 2

    @torch.no_grad()
    def step():
        grad = param.grad
        exp_avg.lerp_(grad, 0.1)
        exp_avg_sq.mul_(0.999).addcmul_(grad, grad, value=0.001)
        direction = exp_avg / (exp_avg_sq.sqrt() + 1e-8)
        factor = torch.full_like(param, 0.5)
        factor[torch.topk(direction * grad, k, sorted=False).indices] = 2.0
        param.sub_(factor * direction, alpha=1e-3)

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=15)
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch has no CUDA device; use --device cpu")

    def wait():
        if arguments.device == "cuda":
            torch.cuda.synchronize()

    def measure(step, size):
        for _ in range(3):
            step()
        wait()
        samples = []
        for _ in range(arguments.samples):
            start = time.perf_counter()
            step()
            wait()
            samples.append((time.perf_counter() - start) * 1e9 / size)
        return statistics.median(samples)

    results = []
    for size in arguments.sizes:
        for name, make in [("fused AdamW", fused_adamw), ("MGUP-AdamW with topk", mgup_adamw)]:
            param = torch.nn.Parameter(torch.randn(size, device=arguments.device))
            param.grad = torch.randn(size, device=arguments.device)
            try:
                value = measure(make(torch, param), size)
            except RuntimeError as error:  # out of memory, or no fused kernel for the device
                print(f"{name} at {size}: {error}", file=sys.stderr)
                continue
            results.append({"name": name, "params": size, "ns_per_param": value})
    torch.backends.cuda.matmul.allow_tf32 = False
    n = 4096 if arguments.device == "cuda" else 1024
    left, right = (torch.randn(n, n, device=arguments.device) for _ in range(2))
    gflops = 2 * n**3 / (measure(lambda: left @ right, 1))
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
    print(json.dumps({"torch": torch.__version__, "device": name, "results": results, "matmul": {"n": n, "gflops": gflops}}, indent=2))


main()
