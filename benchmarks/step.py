"""What a step of a recipe costs beside the bare prior forwards inside it.

    python benchmarks/step.py [RECIPE] [--steps N] [--threads N]

Both are timed in one process, in turn: a step, then the same number of pictures through the prior's network alone.
The field is trained for a while first, so that it is drawn as it is in the middle of a run.
"""

from __future__ import annotations

import argparse
import statistics
import time

from dream3d.kernels.environment import set_thread_policy

set_thread_policy()

import torch  # noqa: E402

from dream3d import config  # noqa: E402
from dream3d.fitting import fit  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="default")
    parser.add_argument("--warmup", type=int, default=200, help="steps before the timing")
    parser.add_argument("--steps", type=int, default=30, help="timed steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipeline, _ = config.load(args.recipe, ["device=cpu"])
    name, stage = list(pipeline.stages.items())[-1]
    full = stage.steps
    stage.steps = args.warmup
    module = pipeline.module(name)
    stage.prior.load()
    fit(module, pipeline.device, [])
    stage.steps = full
    asked, denoise = [], stage.prior.denoise

    def record(z_t, t, condition):  # noqa: ANN001, ANN202
        asked.append((z_t, t, condition))
        return denoise(z_t, t, condition)

    object.__setattr__(stage.prior, "denoise", record)
    steps, forwards = [], []
    for step in range(args.warmup, args.warmup + args.steps):
        began = time.perf_counter()
        module.loss(step).backward()
        module.optimizer.step()
        module.optimizer.zero_grad(set_to_none=True)
        module.representation.after_step(step, module.optimizer)
        steps.append(time.perf_counter() - began)
        began = time.perf_counter()
        with torch.no_grad():
            for query in asked:
                denoise(*query)
        forwards.append(time.perf_counter() - began)
        count = sum(len(z_t) for z_t, _, _ in asked)
        asked.clear()
    whole, bare = statistics.median(steps), statistics.median(forwards)
    print(f"recipe {args.recipe}, {args.threads} threads, medians of {args.steps} steps after {args.warmup}")
    print(f"step                     {1e3 * whole:8.1f} ms")
    print(f"bare forwards ({count:2d} images) {1e3 * bare:7.1f} ms")
    print(f"ratio                    {whole / bare:8.2f}")


if __name__ == "__main__":
    main()
