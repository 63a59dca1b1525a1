"""How much faster the kernels are than their plain-torch twins: ratios of medians, all variants interleaved in one run.

    python benchmarks/kernels.py [--rounds 7] [--threads 2] [--only march]
    python benchmarks/kernels.py --scaling

Absolute times differ from machine to machine and with whatever else runs; ratios within a run much less. A round
times every variant of a case once (the quick one three times), so that a disturbance hits all of them. The targets
are those that this project set itself for two CPU threads. `--scaling` times the splat and mesh kernels alone, over
the number of Gaussians or triangles and of pixels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from dream3d.kernels.environment import set_thread_policy

set_thread_policy()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dream3d.cameras import turntable  # noqa: E402
from dream3d.kernels import (  # noqa: E402
    mesh,
    mesh_reference,
    ops,
    reference,
    splat,
    splat_reference,
    texture,
    texture_reference,
)
from dream3d.kernels.types import HashGridSpec, Occupancy, Samples  # noqa: E402

SPEC = HashGridSpec(levels=16, log2_table=15, base=16, finest=1024)
POINTS = 200_000
BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
STEP = 2 * 3**0.5 / 128
SPHERE = 0.7
"""Radius of the occupied sphere: 18 % of the box."""
SPLAT_NUMBERS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
MESH_BANDS = (16, 32, 50, 71, 100, 158)
"""Of a sphere; it has about 4 bands^2 triangles."""
SCALING_PIXELS = (64, 128, 256, 512)


@dataclass(frozen=True)
class Case:
    """Variants of one computation; the first is ours, `targets` are the ratios wanted of the others to it."""

    name: str
    variants: dict[str, Callable[[], object]]
    targets: dict[str, float]


def scene() -> tuple[Tensor, Tensor, Occupancy]:
    """16,384 rays of four 64 x 64 views, and a grid with a sphere in it."""
    origins, directions = (rays.reshape(-1, 3).contiguous() for rays in turntable(4, 64).rays())
    axis = (torch.arange(64) + 0.5) / 32 - 1
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) < SPHERE
    return origins, directions, Occupancy.pack(cells)


def march(module: ModuleType, rays: tuple[Tensor, Tensor, Occupancy], jitter: Tensor | None = None) -> Samples:
    limits = {"aabb": BOX, "step": STEP, "near": 0.05, "far": 10.0, "max_samples": 256}
    return module.march(*rays, **limits, jitter=jitter)


def hash_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(POINTS, 3, generator=generator)
    leaves = points.clone().requires_grad_()
    table = torch.randn(SPEC.rows, 2, generator=generator).requires_grad_()
    gradient = torch.randn(POINTS, SPEC.width, generator=generator)

    def both(run: Callable[[ModuleType], object]) -> dict[str, Callable[[], object]]:
        return {"kernel": lambda: run(ops), "twin": lambda: run(reference)}

    return [
        Case("hash grid forward", both(lambda m: m.hash_grid(points, table.detach(), SPEC)), {}),
        Case(
            "hash grid + backward to the table",
            both(lambda m: torch.autograd.grad(m.hash_grid(points, table, SPEC), table, gradient)),
            {"twin": 15},
        ),
        Case(
            "hash grid + backward to table and positions",
            both(lambda m: torch.autograd.grad(m.hash_grid(leaves, table, SPEC), (leaves, table), gradient)),
            {"twin": 11},
        ),
    ]


def volume_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    rays = scene()
    marched = march(ops, rays)

    def composited(samples: Samples, modules: dict[str, ModuleType]) -> dict[str, Callable[[], object]]:
        number, count = len(samples.ray), len(samples.offsets) - 1
        density = (5 * torch.rand(number, generator=generator)).requires_grad_()
        rgb = torch.rand(number, 3, generator=generator).requires_grad_()
        gradient = torch.randn(count, 3, generator=generator)

        def ours(module: ModuleType) -> object:
            seen = module.composite(density, rgb, samples, early_stop=0.0)
            return torch.autograd.grad((seen.rgb, seen.opacity), (density, rgb), (gradient, gradient[:, 0]))

        def nerfacc() -> object:
            from nerfacc import accumulate_along_rays, render_weight_from_density

            dense = (t.view(count, -1) for t in (samples.t_start, samples.t_end, density))
            weights, _, _ = render_weight_from_density(*dense)
            seen = accumulate_along_rays(weights, rgb.view(count, -1, 3)), weights.sum(dim=1)
            return torch.autograd.grad(seen, (density, rgb), (gradient, gradient[:, 0]))

        variants: dict[str, Callable[[], object]] = {k: lambda m=m: ours(m) for k, m in modules.items()}
        regular = bool((samples.offsets.diff() == number // count).all())
        return variants | ({"nerfacc dense": nerfacc} if regular else {})

    # Samples as the march makes them, and as many in rays of equal length, which is all that nerfacc takes on a CPU.
    edges = torch.linspace(0.5, 2.5, 65)
    rays_of_64 = 174_000 // 64
    dense = Samples(
        torch.arange(rays_of_64 + 1, dtype=torch.int32) * 64,
        edges[:-1].repeat(rays_of_64),
        edges[1:].repeat(rays_of_64),
        torch.arange(rays_of_64, dtype=torch.int32).repeat_interleave(64),
    )
    both = {"kernel": ops, "twin": reference}
    ragged = f"composite + backward, {len(marched.ray) // 1000}k samples"
    return [
        Case("march, 16,384 rays", {k: lambda m=m: march(m, rays) for k, m in both.items()}, {"twin": 4}),
        Case(ragged, composited(marched, both), {"twin": 3}),
        Case("the same, 64 samples in every ray", composited(dense, both), {"nerfacc dense": 1.7}),
    ]


def step_case() -> Case:
    rays = scene()

    def stepper(module: ModuleType) -> Callable[[], float]:
        generator = torch.Generator().manual_seed(0)
        table = nn.Parameter(0.1 * torch.randn(SPEC.rows, 2, generator=generator))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Linear(SPEC.width, 64), nn.ReLU(inplace=True), nn.Linear(64, 4))
        optimizer = torch.optim.Adam([table, *network.parameters()], lr=1e-3)
        origins, directions, _ = rays

        def step() -> float:
            samples = march(module, rays, torch.rand(len(origins), generator=generator))
            ray, middle = samples.ray.long(), 0.5 * (samples.t_start + samples.t_end)
            points = (origins[ray] + middle[:, None] * directions[ray] + 1) * 0.5
            raw = network(module.hash_grid(points, table, SPEC))
            density, rgb = nn.functional.softplus(raw[:, 0]), torch.sigmoid(raw[:, 1:])
            seen = module.composite(density, rgb, samples)
            loss = (seen.rgb - 0.5).square().mean() + 0.1 * seen.opacity.mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step

    return Case("field step, 4 x 64 x 64 rays", {"kernel": stepper(ops), "twin": stepper(reference)}, {"twin": 8})


def splat_step(module: ModuleType, number: int, pixels: int) -> Callable[[], object]:
    """Four views of a ball of coloured Gaussians, and the gradients of all they have; the more, the smaller."""
    generator = torch.Generator().manual_seed(0)
    views = turntable(4, pixels)
    means = nn.functional.normalize(torch.randn(number, 3, generator=generator), dim=1)
    means *= SPHERE * torch.rand(number, 1, generator=generator) ** (1 / 3)
    # On average two thirds of the distance to the nearest neighbour: the picture is covered about as after a training.
    scales = (5000 / number) ** (1 / 3) * (0.01 + 0.03 * torch.rand(number, 3, generator=generator))
    quaternions = torch.randn(number, 4, generator=generator)
    opacities = 0.1 + 0.8 * torch.rand(number, generator=generator)
    colours = torch.rand(number, 3, generator=generator)
    leaves = [t.requires_grad_() for t in (means, quaternions, scales, opacities, colours)]
    gradient = torch.randn(4, pixels, pixels, 3, generator=generator)

    def step() -> object:
        projected = module.project_splats(*leaves[:4], views)
        image = module.composite_splats(projected, shared=leaves[4])
        return torch.autograd.grad((image.features, image.alpha), leaves, (gradient, gradient[..., 0]))

    return step


def splat_cases() -> list[Case]:
    modules = {"kernel": splat, "twin": splat_reference}
    return [
        Case(
            f"splats {number // 1000}k, 4 x 128^2, forward + backward",
            {name: splat_step(module, number, 128) for name, module in modules.items()},
            {"twin": target},
        )
        for number, target in ((5_000, 25), (50_000, 35))
    ]


def sphere(bands: int) -> tuple[Tensor, Tensor]:
    """Vertices and faces of a sphere cut into bands and twice as many segments."""
    across = 2 * bands
    latitude, longitude = torch.meshgrid(
        torch.linspace(0.01, 3.13, bands + 1), torch.arange(across) * (2 * torch.pi / across), indexing="ij"
    )
    ring = latitude.sin()
    vertices = torch.stack([ring * longitude.sin(), latitude.cos(), ring * longitude.cos()], dim=-1)
    row, column = torch.meshgrid(torch.arange(bands), torch.arange(across), indexing="ij")
    a, b = row * across + column, row * across + (column + 1) % across
    faces = torch.stack([torch.stack([a, a + across, b], -1), torch.stack([b, a + across, b + across], -1)])
    return (SPHERE * vertices).view(-1, 3), faces.view(-1, 3).int()


def mesh_step(module: ModuleType, bands: int, pixels: int) -> Callable[[], object]:
    """Four antialiased views of a sphere with six numbers at every vertex, and the gradients of both."""
    generator = torch.Generator().manual_seed(0)
    vertices, faces = sphere(bands)
    vertices.requires_grad_()
    attributes = torch.randn(len(vertices), 6, generator=generator).requires_grad_()
    views, neighbours = turntable(4, pixels), mesh.find_neighbours(faces)
    gradient = torch.randn(4, pixels, pixels, 6, generator=generator)

    def step() -> object:
        projected = module.project_vertices(vertices, views)
        fragments = module.rasterise(projected, faces)
        values = module.interpolate(attributes, faces, fragments)
        image = module.antialias(values, fragments, projected, faces, neighbours=neighbours)
        return torch.autograd.grad(image, (vertices, attributes), gradient)

    return step


def mesh_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    vertices, faces = sphere(71)
    projected = mesh.project_vertices(vertices, turntable(4, 256))
    moving = mesh.ProjectedVertices(projected.points.clone().requires_grad_(), 256, 256)
    fragments = mesh.rasterise(projected, faces)
    shares = fragments.barycentrics.clone().requires_grad_()
    seen = mesh.Fragments(fragments.face, shares, fragments.depth)
    attributes = torch.randn(len(vertices), 6, generator=generator).requires_grad_()
    colours, gradient = (torch.randn(4, 256, 256, 6, generator=generator) for _ in range(2))
    colours.requires_grad_()
    neighbours = mesh.find_neighbours(faces)
    image = torch.rand(512, 512, 3, generator=generator).requires_grad_()
    uv = torch.rand(4, 256, 256, 2, generator=generator).cumsum(dim=2) / 256
    levels = 3 * torch.rand(4, 256, 256, generator=generator)

    def both(run: Callable[[ModuleType], object], twin: ModuleType = mesh_reference) -> dict[str, Callable[[], object]]:
        return {"kernel": lambda: run(texture if twin is texture_reference else mesh), "twin": lambda: run(twin)}

    def interpolate(module: ModuleType) -> object:
        return torch.autograd.grad(module.interpolate(attributes, faces, seen), (attributes, shares), gradient)

    def antialias(module: ModuleType) -> object:
        soft = module.antialias(colours, fragments, moving, faces, neighbours=neighbours)
        return torch.autograd.grad(soft, (colours, moving.points), gradient)

    def lookup(module: ModuleType) -> object:
        return torch.autograd.grad(module.sample_texture(image, uv, levels=levels), image, gradient[..., :3])

    chain = {name: mesh_step(module, 71, 256) for name, module in (("kernel", mesh), ("twin", mesh_reference))}
    return [
        Case("mesh: rasterise 20k, 4 x 256^2", both(lambda m: m.rasterise(projected, faces)), {"twin": 14}),
        Case("mesh: interpolate 6, forward + backward", both(interpolate), {"twin": 8}),
        Case("mesh: antialias 6, forward + backward", both(antialias), {"twin": 4}),
        Case("mesh: texture 512^2, forward + backward", both(lookup, texture_reference), {}),
        Case("mesh: whole chain, forward + backward", chain, {"twin": 8}),
    ]


def scaling(rounds: int) -> None:
    """CPU milliseconds of a step, all threads together, best of `rounds`: hardly touched by what else runs."""
    families: dict[str, tuple[Callable[[int, int], Callable[[], object]], dict[int, int]]] = {
        "Gaussians": (lambda number, pixels: splat_step(splat, number, pixels), {n: n for n in SPLAT_NUMBERS}),
        "triangles": (lambda bands, pixels: mesh_step(mesh, bands, pixels), {4 * b * b: b for b in MESH_BANDS}),
    }
    for name, (make, sizes) in families.items():
        print(f"{name:>9} | " + " | ".join(f"{f'4 x {pixels}^2':>19}" for pixels in SCALING_PIXELS))
        print(f"{'':>9} | " + " | ".join(f"{'CPU ms':>8} {'us a piece':>10}" for _ in SCALING_PIXELS))
        for number, size in sizes.items():
            cells = []
            for pixels in SCALING_PIXELS:
                step, times = make(size, pixels), []
                for _ in range(rounds + 1):
                    begin = time.process_time()
                    step()
                    times.append(1e3 * (time.process_time() - begin))
                cells.append(f"{min(times[1:]):8.1f} {1e3 * min(times[1:]) / number:10.2f}")
            print(f"{number:>9} | " + " | ".join(cells), flush=True)


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every variant, one warm-up left out."""
    times: dict[str, list[float]] = {name: [] for name in case.variants}
    for i in range(rounds + 1):
        for name, run in case.variants.items():
            for _ in range(3 if name == "kernel" else 1):
                begin = time.perf_counter()
                run()
                if i:
                    times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument(
        "--scaling", action="store_true", help="only splats and meshes, by Gaussians or triangles and pixels"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{ops.backend('cpu')}, torch {torch.__version__}; milliseconds, best / median of {args.rounds} rounds")
    if args.scaling:
        scaling(args.rounds)
        return
    missed = 0
    for case in [*hash_cases(), *volume_cases(), *splat_cases(), *mesh_cases(), step_case()]:
        if args.only not in case.name:
            continue
        times = measure(case, args.rounds)
        ours = statistics.median(times["kernel"])
        for name, values in times.items():
            median = statistics.median(values)
            line = f"{case.name:<45} {name:<14} {min(values):8.2f} / {median:8.2f}"
            if name != "kernel":
                wanted = case.targets.get(name)
                missed += wanted is not None and median < wanted * ours
                line += f"   {median / ours:5.1f}x" + (f"  (target {wanted:g}x)" if wanted else "")
            print(line, flush=True)
    print("all targets met" if not missed else f"{missed} below target")


if __name__ == "__main__":
    main()
