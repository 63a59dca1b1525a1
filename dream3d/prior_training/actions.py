"""What can be done about the built-in prior from a command line: `python -m dream3d.prior_training ACTION` and
`dream3d prior ACTION` are the same. Standard library only until an action runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream3d.prior_training.batches import Batches
    from dream3d.prior_training.train import Task
    from dream3d.priors.builtin import Packaged

MEMBERS = {"builtin": "builtin", "mv": "builtin-mv", "latent": "builtin-latent"}
"""Short names of what is trained, and the members' own."""
JUDGES = ("matcher", "views")
TRAINED = (*MEMBERS, "vae", *JUDGES)
WEIGHTS = Path(__file__).parents[1] / "priors" / "weights"
TEXT = WEIGHTS / "builtin" / "text"
Say = Callable[[str], None]
Told = Mapping[str, Any]
"""What an action made, in words that are JSON."""


@dataclass(frozen=True)
class Action:
    """One word of the command line: what it does, its flags, and the function behind it."""

    about: str
    flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Say], Told]


def _pack(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.pack import write_pack
    from dream3d.prior_training.subjects import Catalogues

    source = Catalogues(options.catalogues, options.cache, everything=not options.chosen)
    write_pack(source, options.out, say=say)
    say(f"{options.out}: {len(source.credits)} subjects, {options.out.stat().st_size / 2**20:.1f} MiB")
    return {"out": str(options.out)}


def _pack_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalogues", type=Path, required=True, metavar="DIR", help="folder with the .sh3f files")
    parser.add_argument(
        "--cache", type=Path, default=Path("priormodels"), metavar="DIR", help="where they are unpacked"
    )
    parser.add_argument("--chosen", action="store_true", help="only the models with hand-written captions")
    parser.add_argument("--out", type=Path, default=Path("priorpack.npz"), metavar="FILE")


def _data(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.pack import Pack
    from dream3d.prior_training.pictures import Drawing, build
    from dream3d.prior_training.subjects import Catalogues

    source = Pack(options.pack) if options.pack else Catalogues(options.catalogues, options.out / "models")
    how = Drawing(options.size, options.views, options.device, options.seed, options.look)
    build(source, options.out, how, workers=options.workers, say=say)
    return {"out": str(options.out)}


def _data_flags(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--catalogues", type=Path, metavar="DIR", help="folder with the .sh3f files: the chosen models")
    source.add_argument("--pack", type=Path, metavar="FILE", help="file that `pack` wrote")
    parser.add_argument("--out", type=Path, default=Path("priordata"), metavar="DIR")
    parser.add_argument("--size", type=int, default=64, help="pixels a side; 128 serves every member")
    parser.add_argument("--views", type=int, default=256, help="pictures a subject, a multiple of 4")
    parser.add_argument("--look", choices=("shaded", "albedo", "normal"), default="shaded", help="what is drawn")
    parser.add_argument("--workers", type=int, default=2, help="processes, on the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)


def _text(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.text import distil

    distil(options.encoder).save(options.out)
    return {"out": str(options.out)}


def _text_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", type=Path, required=True, help="folder that transformers opens, with vocab.txt")
    parser.add_argument("--out", type=Path, default=Path("priortext"), metavar="DIR")


def _train(options: argparse.Namespace, say: Say) -> Told:
    import torch

    from dream3d.prior_training.members import gflop
    from dream3d.prior_training.train import Length, Report, Settings, Trainer, measured_peak, run

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # sizes never change
    task, views = _task(options)
    trainer = Trainer(
        task,
        Settings(
            Length(options.minutes, options.steps), options.batch, options.lr, options.rate, average=options.average,
            bf16=options.bf16, compiled=options.compile, device=options.device, seed=options.seed,
        ),
    )  # fmt: skip
    cost = peak = 0.0
    if options.start:
        trainer.begin_from(options.start)
    if options.member in MEMBERS:
        cost = 1e9 * gflop(task.config, task.config["cross_attention_dim"], views)
        peak = measured_peak(options.device, options.bf16)
        say(f"{cost / 1e9:.2f} GFLOP a picture and forward; this machine reaches {peak / 1e12:.2f} TFLOP/s")
    say(f"{sum(p.numel() for p in trainer.net.parameters()) / 1e6:.2f} M parameters")
    run(trainer, options.out, Report(say, peak=peak, cost=cost))
    for name, value in trainer.facts.items():
        if isinstance(value, float):
            say(f"{name}: {value:.4f}")
    return {"out": str(options.out), "samples": trainer.seen, **trainer.facts}


def _task(options: argparse.Namespace) -> tuple[Task, int]:
    """What `--member` names, and the pictures that it sees together."""
    from dream3d.prior_training.batches import Batches
    from dream3d.prior_training.denoising import Autoencoding, Denoising
    from dream3d.prior_training.judging import Matching, Viewing, for_judges
    from dream3d.prior_training.members import AUTOENCODER
    from dream3d.prior_training.members import MEMBERS as KNOWN
    from dream3d.prior_training.pictures import read_pictures
    from dream3d.prior_training.train import read_state
    from dream3d.priors.static_text import StaticText

    text, pictures = StaticText.load(options.text), read_pictures(options.data)

    def batches(size: int, grid: int = 16, chosen: Any = pictures) -> Batches:
        return Batches(chosen, text, size=size, device=options.device, grid=grid)

    if options.member in MEMBERS:
        member = KNOWN[MEMBERS[options.member]]
        encode = _encoder(options) if options.member == "latent" else None
        config = read_state(options.start)["cfg"] if options.start else None
        return Denoising(member, batches(member.size, member.grid), config=config, encode=encode), member.views
    if options.member == "vae":
        return Autoencoding(batches(AUTOENCODER["sample_size"])), 1
    shown = replace(pictures.resident(options.device, 64), subjects=for_judges(pictures.subjects))
    seen, unseen = shown.split()
    pair = batches(64, chosen=seen), batches(64, chosen=unseen)
    if options.member == "matcher":
        return Matching(*pair), 1
    weights = read_state(options.trunk)["ema"].items() if options.trunk else ()
    trunk = {name.removeprefix("trunk."): value for name, value in weights if name.startswith("trunk.")}
    return Viewing(*pair, trunk=trunk or None), 1


def _encoder(options: argparse.Namespace) -> Callable[[Any], Any]:
    """The exported autoencoder's way in, on the training's device."""
    from dream3d.checks import MissingError
    from dream3d.priors.builtin import read_network

    try:
        vae = read_network(options.vae, "AutoencoderKL").to(options.device)
    except ValueError as error:
        raise MissingError(
            f"no autoencoder in {options.vae} ({error}): train and export --member vae first."
        ) from error
    return lambda images: vae.encode(2 * images - 1).latent_dist.mean * vae.config.scaling_factor


def _train_flags(parser: argparse.ArgumentParser) -> None:
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="length by the clock")
    length.add_argument("--steps", type=int, help="length in optimiser steps")
    parser.add_argument("--member", choices=TRAINED, default="builtin", help=", ".join(TRAINED))
    parser.add_argument("--data", type=Path, default=Path("priordata"), metavar="DIR")
    parser.add_argument("--text", type=Path, default=TEXT, metavar="DIR", help="the words' table")
    parser.add_argument(
        "--vae", type=Path, default=Path("priorvae"), metavar="DIR", help="for latent: the exported vae"
    )
    parser.add_argument(
        "--start", type=Path, default=None, metavar="FILE", help="begin with the average of another member's state.pt"
    )
    parser.add_argument(
        "--trunk",
        type=Path,
        default=None,
        metavar="FILE",
        help="for views: begin with the trunk of a matcher's state.pt",
    )
    parser.add_argument("--out", type=Path, default=Path("priortrain"), metavar="DIR")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rate", choices=("cosine", "trapezoid"), default="cosine", help="how the learning rate falls")
    parser.add_argument("--average", type=float, default=0.999, help="most that the moving average keeps in a step")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 arithmetic")
    parser.add_argument("--compile", action="store_true", help="torch.compile; takes a minute to start")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to torch")
    parser.add_argument("--seed", type=int, default=0)


def _export(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.export import export, export_autoencoder, export_judge
    from dream3d.prior_training.members import MEMBERS as KNOWN
    from dream3d.prior_training.members import gflop
    from dream3d.prior_training.train import read_state
    from dream3d.priors.static_text import StaticText

    state = read_state(options.state)
    described = json.loads((options.data / "subjects.json").read_text(encoding="utf-8"))
    facts = {
        "samples_seen": state["seen"], "steps": state["n"], "minutes": round(state["minutes"], 1),
        "started_from": state.get("before", {}),
        "machine": options.machine, "parameters": sum(v.numel() for v in state["ema"].values()),
        "pictures_per_object": described["views"], **state.get("facts", {}),
    }  # fmt: skip
    if options.member == "vae":
        scale = facts["scaling_factor"]
        export_autoencoder(options.out, config=state["cfg"], weights=state["ema"], scale=scale)
    elif options.member in JUDGES:
        config, subjects = state["cfg"], described["subjects"]
        export_judge(options.out, options.member, weights=state["ema"], config=config, facts=facts, subjects=subjects)
    else:
        member, words = KNOWN[MEMBERS[options.member]], state["cfg"]["cross_attention_dim"]
        card = {**facts, "gflop_per_forward": round(gflop(state["cfg"], words, member.views), 3)}
        # One table is enough in the package.
        text = None if options.text == TEXT and options.member != "builtin" else StaticText.load(options.text)
        export(
            options.out, name=member.name, config=state["cfg"], weights=state["ema"], text=text, card=card,
            subjects=described["subjects"], autoencoder=options.vae if options.member == "latent" else None,
        )  # fmt: skip
    return {"out": str(options.out)}


def _export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--member", choices=TRAINED, default="builtin", help=", ".join(TRAINED))
    parser.add_argument("--state", type=Path, default=Path("priortrain/state.pt"), metavar="FILE")
    parser.add_argument("--data", type=Path, default=Path("priordata"), metavar="DIR")
    parser.add_argument("--text", type=Path, default=TEXT, metavar="DIR")
    parser.add_argument(
        "--vae", type=Path, default=Path("priorvae"), metavar="DIR", help="for latent: the exported vae"
    )
    parser.add_argument("--machine", default="", help="for the card")
    parser.add_argument("--out", type=Path, default=Path("builtin"), metavar="DIR")


def _sample(options: argparse.Namespace, say: Say) -> Told:
    return _draw(_prior(options), options.prompts, options, say)


def _draw(prior: Packaged, prompts: list[str], options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.sample import sheet, write_sheet

    pictures = sheet(
        prior, prompts, steps=options.steps, scale=options.scale, seed=options.seed, limit=_limit(options),
        device=options.device,
    )  # fmt: skip
    write_sheet(pictures, str(options.out), prompts)
    say(str(options.out))
    return {"out": str(options.out)}


def _sample_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="+", metavar="PROMPT")
    _drawing_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="FILE")


def _sheet(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.prior_training.exam import questions, read_subjects

    prior = _prior(options)
    asked = questions(read_subjects(prior.folder), options.count, options.seed)
    return _draw(prior, [question.prompt for question in asked], options, say)


def _sheet_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=48, help="prompts")
    _drawing_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="FILE")


def _exam(options: argparse.Namespace, say: Say) -> Told:
    from dream3d.evaluation.judge import TrainedJudge
    from dream3d.prior_training.exam import Exam, hold, questions, read_subjects
    from dream3d.prior_training.pictures import read_pictures

    judge = TrainedJudge(folder=options.judge, device=options.device)
    judge.load()
    prior = _prior(options)
    asked = questions(read_subjects(prior.folder), options.count, options.seed)
    how = Exam(tuple(options.scales), options.steps, options.seed, limit=_limit(options), device=options.device)
    training = read_pictures(options.data) if options.data else None
    result = hold(prior, judge, asked, how, training=training, say=say)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(_shown(result))
    say(str(options.out))
    return result


def _shown(result: Mapping[str, Any]) -> str:
    """The exam as a table."""
    from rich.console import Console
    from rich.table import Table

    scales: Mapping[str, Mapping[str, float | None]] = result["scales"]
    table = Table(title=f"{result['prior']}: {len(result['prompts'])} prompts x {result['views']} views")
    for head in ("", *(f"scale {scale}" for scale in scales), "judge's own"):
        table.add_column(head, justify="right" if head else "left")
    for name in next(iter(scales.values())):
        own = result["judge"].get("own_color" if name.startswith("color") else f"own_{name}")
        cells = [values[name] for values in scales.values()]
        table.add_row(name, *("-" if value is None else f"{value:.3g}" for value in (*cells, own)))
    console = Console()
    with console.capture() as shown:
        console.print(table)
        if result["memory"]:
            told = ", ".join(f"{name} {value:.4f}" for name, value in result["memory"].items())
            console.print(f"distance to the nearest training picture at scale {result['best']:g}: {told}")
    return shown.get().rstrip()


def _exam_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=64, help="prompts")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 3.0, 5.0, 7.5], help="guidance scales")
    _drawing_flags(parser, scale=False)
    parser.add_argument("--judge", type=Path, default=None, metavar="DIR", help="of the judge; default: packaged")
    parser.add_argument("--data", type=Path, default=None, metavar="DIR", help="training set, to look for copies")
    parser.add_argument("--out", type=Path, default=Path("exam.json"), metavar="FILE")


def _drawing_flags(parser: argparse.ArgumentParser, *, scale: bool = True) -> None:
    parser.add_argument("--member", choices=tuple(MEMBERS), default="builtin", help=", ".join(MEMBERS))
    parser.add_argument("--folder", default=None, metavar="DIR", help="of the prior; default: packaged")
    parser.add_argument("--steps", type=int, default=30, help="of the sampler")
    if scale:
        parser.add_argument("--scale", type=float, default=3.0, help="of classifier-free guidance")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)


def _prior(options: argparse.Namespace) -> Packaged:
    from dream3d.priors import Builtin, BuiltinLatent, BuiltinMV

    kinds = {"builtin": Builtin, "mv": BuiltinMV, "latent": BuiltinLatent}
    prior = kinds[options.member](folder=options.folder)
    prior.load()
    return prior.to(options.device)


def _limit(options: argparse.Namespace) -> float | None:
    """Pictures end at 1; latents of variance 1 have no end."""
    return None if options.member == "latent" else 1.0


ACTIONS: Mapping[str, Action] = {
    "pack": Action("put all models of the catalogues into one small file", _pack_flags, _pack),
    "data": Action("draw the training pictures", _data_flags, _data),
    "text": Action("distil the words' table from a sentence encoder", _text_flags, _text),
    "train": Action("train a member, the autoencoder or a judge, or go on with it", _train_flags, _train),
    "export": Action("write a checkpoint's average as a folder that dream3d reads", _export_flags, _export),
    "sample": Action("draw a sheet: one row a prompt, four views", _sample_flags, _sample),
    "sheet": Action("draw the sheet of the exam's first 48 prompts", _sheet_flags, _sheet),
    "exam": Action("put 64 prompts from 4 sides before the judge", _exam_flags, _exam),
}
