"""``talksplat build ada.avatar --backend tensorrt-rtx``."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import safetensors.numpy

from talksplat import families
from talksplat.atomic import write_bytes
from talksplat.bundle import Bundle
from talksplat.cli.console import console, file_size, print_table, step_progress
from talksplat.cuda import open_device
from talksplat.engines.cache import EngineCache, Found
from talksplat.engines.flavours import FLAVOURS, ComputeCapability, Flavour, open_flavour
from talksplat.engines.obtain import Engine, Workshop, frame_source, obtain_all, sources_of
from talksplat.engines.shipped import check_output, ship
from talksplat.errors import BackendError, InputError, NoDriverError

ONNXRUNTIME = "onnxruntime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "avatar", type=Path, nargs="?", metavar="AVATAR", help="avatar bundle (a folder)"
    )
    parser.add_argument(
        "--backend",
        choices=(*FLAVOURS, ONNXRUNTIME),
        help="what the engines are for; with onnxruntime, the whole frame as one ONNX file",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of the numbers inside (default: fp32); fp16 keeps in fp32 what pictures need so",
    )
    parser.add_argument(
        "--compatible",
        action="store_true",
        help="let the engines run on other GPUs too, which costs speed with tensorrt",
    )
    parser.add_argument(
        "--all-targets",
        nargs="?",
        const="",
        metavar="LIST",
        help="build ahead of time for these compute capabilities, as in sm86,sm89,sm120, on a "
        "machine without a GPU (tensorrt-rtx; default: all from Ampere on); needs -o",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="folder to write engines and their index.json to, to ship with an app (default: they "
        "are kept in the cache only); with onnxruntime the .onnx file, beside it its constants",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="threads the builder may use")
    parser.add_argument("--list", action="store_true", help="print what the cache holds and stop")
    parser.add_argument("--clear", action="store_true", help="empty the cache and stop")


def execute(args: argparse.Namespace) -> None:
    """Build what is missing and print what there is."""
    if args.list or args.clear:
        _print_cache(EngineCache(), args.clear)
        return
    if args.avatar is None or args.backend is None:
        raise InputError("Expected an avatar bundle and --backend, found only one or none of them.")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs must be at least 1, found {args.jobs}.")
    bundle = Bundle.open(args.avatar)
    if args.backend == ONNXRUNTIME:
        _write_frame(bundle, args)
        return
    flavour = open_flavour(args.backend)
    if args.output is not None:
        check_output(args.output)  # before building, not after
    with ExitStack() as opened:
        if args.all_targets is None:
            workshop = _for_this_machine(flavour, args, opened)
        else:
            workshop = _ahead_of_time(flavour, args)
        _build(bundle, workshop, args)


def _build(bundle: Bundle, workshop: Workshop, args: argparse.Namespace) -> None:
    if args.output is None:
        workshop.cache.check_trusted()  # engines that are not kept would be built for nothing
    program = families.frame_program(bundle)
    sources = list(sources_of(bundle, program, workshop.flavour, args.precision))
    with step_progress() as progress:
        engines = list(obtain_all(workshop, sources, progress))
    if args.output is not None:
        found = {engine.graph: Found(engine.data, engine.entry) for engine in engines}
        ship(args.output, workshop.target, args.precision, found)
    _print_engines(engines, workshop, args.precision)
    console.print(f"In {args.output or workshop.cache.folder}")


def _for_this_machine(flavour: Flavour, args: argparse.Namespace, opened: ExitStack) -> Workshop:
    device = None
    try:
        device = opened.enter_context(open_device())
    except NoDriverError:
        if flavour.needs_device:
            raise
    except BackendError as error:
        if flavour.needs_device:
            raise
        console.print(f"The GPU here cannot be built for: {error}")
    target = flavour.target(device, args.compatible)
    if device is None:
        console.print(f"Building for compute capability {target.devices}.")
    return Workshop(flavour, target, EngineCache(), device, threads=args.jobs)


def _ahead_of_time(flavour: Flavour, args: argparse.Namespace) -> Workshop:
    if args.output is None:
        raise InputError(
            "--all-targets builds engines for other machines: expected -o and a folder to write "
            "them to, found none."
        )
    target = flavour.targets(_capabilities(args.all_targets))
    return Workshop(flavour, target, EngineCache(), threads=args.jobs)


def _capabilities(text: str) -> list[ComputeCapability]:
    """``"sm86,sm120"`` or ``"8.6,12.0"`` as pairs of numbers."""
    found = []
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", part.lower())
        if match is None:
            raise InputError(
                f"--all-targets: expected compute capabilities as in sm86,sm120, found {part!r}."
            )
        found.append((int(match[1]), int(match[2])))
    return found


def _write_frame(bundle: Bundle, args: argparse.Namespace) -> None:
    """The composed graph, and beside it the inputs that never change."""
    if args.output is None or args.output.suffix != ".onnx":
        raise InputError(
            "--backend onnxruntime expects -o and a file to write that ends in .onnx, found "
            f"{args.output or 'none'}."
        )
    program = families.frame_program(bundle)
    model = frame_source(bundle, program, args.precision).model
    constants = safetensors.numpy.save(
        {name: np.ascontiguousarray(tensor) for name, tensor in program.constants.items()}
    )
    beside = args.output.with_suffix(".safetensors")
    write_bytes(beside, constants)
    write_bytes(args.output, model)
    console.print(f"{args.output}: {file_size(len(model))}, the whole frame in one graph")
    console.print(f"{beside}: {file_size(len(constants))}, its inputs that never change")


def _print_engines(engines: list[Engine], workshop: Workshop, precision: str) -> None:
    flavour, target = workshop.flavour, workshop.target
    print_table(
        f"{flavour.name} {flavour.version_text}, {precision}, compute capability {target.devices}",
        ("graph", "ONNX bytes", "layers", "engine bytes", "build, s", "now"),
        [
            (
                engine.graph,
                f"{engine.entry.facts['onnx_bytes']:,.0f}",
                f"{engine.entry.facts['layers']:.0f}",
                f"{engine.entry.bytes:,}",
                f"{engine.entry.facts['seconds']:.2f}",
                "found" if engine.reason is None else "built",
            )
            for engine in engines
        ],
    )


def _print_cache(cache: EngineCache, clear: bool) -> None:
    if clear:
        console.print(f"{cache.folder}: {cache.clear()} files removed")
        return
    print_table(
        f"{cache.folder}",
        ("engine", "flavour", "version", "compute capability", "size"),
        [
            (
                entry.label,
                entry.key.get("flavour", ""),
                entry.key.get("version", ""),
                entry.key.get("devices", ""),
                file_size(entry.bytes),
            )
            for entry in cache.entries()
        ],
        text_columns=4,
    )
