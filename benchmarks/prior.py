"""What the built-in priors cost: operations and milliseconds of a forward, bytes on the disk, seconds to start.

    python benchmarks/prior.py [--threads N] [--batch N]

Start-up is measured in fresh processes: importing the class, and opening the weights and reading a prompt after that.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from dream3d.kernels.environment import set_thread_policy

set_thread_policy()

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from dream3d.cameras import turntable  # noqa: E402
from dream3d.commands.base import table  # noqa: E402
from dream3d.priors import Builtin, BuiltinLatent, BuiltinMV  # noqa: E402
from dream3d.prompts import Prompt  # noqa: E402

STARTED = """
import time
marks = [time.perf_counter()]
import torch
marks.append(time.perf_counter())
from dream3d.cameras import turntable
from dream3d.priors import {0}
from dream3d.prompts import Prompt
prior = {0}()
marks.append(time.perf_counter())
prior.load()
prior.conditions(Prompt("a teddy bear"), turntable(prior.views, prior.image_size))
marks.append(time.perf_counter())
print(*(b - a for a, b in zip(marks, marks[1:])))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=8, help="pictures a forward, a multiple of 4")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    heads = ("prior", "parameters", "MiB", "GFLOP a picture", f"ms for {args.batch}", "GFLOP/s", "import s", "open s")
    rows = [heads, *(measured(kind, args.batch, args.repeats) for kind in (Builtin, BuiltinMV, BuiltinLatent))]
    print("\n".join(table(rows)))
    print(f"{args.threads} threads; import and open are beside {started(Builtin)[0]:.1f} s of `import torch`")


def measured(kind: type, batch: int, repeats: int) -> tuple[str, ...]:
    prior = kind()
    prior.load()
    on = prior.conditions(Prompt("a teddy bear"), turntable(batch, prior.image_size))["text"]
    z_t, t = torch.randn_like(prior.encode(torch.rand(batch, 3, 64, 64))), torch.full((batch,), 0.6)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            prior.denoise(z_t, t, on)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            prior.denoise(z_t, t, on)
            times.append(time.perf_counter() - began)
    gflop, seconds = counter.get_total_flops() / 1e9, statistics.median(times)
    size = sum(path.stat().st_size for path in prior.folder.rglob("*") if path.is_file()) / 2**20
    count = sum(p.numel() for p in prior.parameters()) / 1e6
    _, imported, opened = started(kind)
    return (
        prior.name, f"{count:.1f} M", f"{size:.1f}", f"{gflop / batch:.2f}", f"{1e3 * seconds:.0f}",
        f"{gflop / seconds:.0f}", f"{imported:.2f}", f"{opened:.2f}",
    )  # fmt: skip


def started(kind: type) -> tuple[float, ...]:
    """Seconds in a fresh process: `import torch`; importing the prior after that; opening it and reading a prompt."""
    command = [sys.executable, "-c", STARTED.format(kind.__name__)]
    return tuple(float(x) for x in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


if __name__ == "__main__":
    main()
