"""A training step beside the same step in what one would take instead, in turns in one process.

    python benchmarks/peers.py --hrm CHECKOUT --trm CHECKOUT

The checkouts are clones of sapientinc/HRM and SamsungSAILMontreal/TinyRecursiveModels, imported as
they are but for the flash-attention package, which needs a GPU and is replaced by PyTorch's
`scaled_dot_product_attention`. The packages nano-trm and tiny-recursive-model take part where they
can be imported: in an environment of their own, say, with

    pip install -e . tiny-recursive-model lightning einops scikit-learn
    pip install --no-deps --ignore-requires-python nano-trm    # it asks for Python 3.12.1 exactly

What is not there is left out with the reason. A step is forward, loss, backward and the same AdamW,
nothing else that a trainer does. "Equal" contenders start from this project's weights, and their
first loss is recorded beside ours. Memory is that of a child process each. Writes
results/peers.json and results/peers.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from full_size_step import SHARED, Update, random_batch
from golden import attention, commit, importing, stub
from machine import stamp
from torch import Tensor, nn

from hrm.benchmarking.measure import PeakMemory, in_turns, seconds
from hrm.benchmarking.products import Product, count_products
from hrm.config import compose
from hrm.models import TRM, ACTModel, HRMACTv1

RESULTS = Path(__file__).parent.parent / "results"
CPU = torch.device("cpu")
TURN_S = 0.2
"""A turn of a contender is as many steps as take this project so long, and at least one."""
MEMORY_STEPS = 3
PACKAGES = ("nano-trm", "tiny-recursive-model", "x-transformers", "torch")

Step = Callable[[], Tensor]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to take the step. `make(ours, weights)` builds it for the model `ours`, whose weights
    it starts from if they are given and fit."""

    name: str
    make: Callable[..., Step]
    equal: bool
    """The same mathematics as `ours`."""
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A model of this project, and those who take its step."""

    title: str
    ours: Callable[[], ACTModel]
    contenders: tuple[Contender, ...]
    checkout: str
    """`hrm` or `trm`: whose published code takes part."""
    loss: str = "stablemax"


# -- who takes the step


def this_project(ours: ACTModel, weights: Weights | None, **changes: Any) -> Step:
    """Our own step, with other settings if any are given."""
    loss = changes.pop("loss", "stablemax")
    compiled = changes.pop("compiled", False)
    model = type(ours)(ours.config.model_copy(update=changes))
    mine = model.state_dict()
    if weights is not None and all(mine[k].shape == v.shape for k, v in weights.items()):
        model.load_state_dict(dict(weights))
    model.compile_layers(compiled)
    return Update(model, loss)


def published(ours: ACTModel, weights: Weights | None, compiled: bool = False) -> Step:
    """The code of the checkout that can be imported now."""
    is_trm, config = isinstance(ours, TRM), ours.config
    settings = config.model_dump()  # Keys that it does not know are ignored there.
    if is_trm:
        settings |= {"mlp_t": config.mlp_t, "puzzle_emb_len": 0, "H_layers": 0}
        module = importlib.import_module("models.recursive_reasoning.trm")
        model = module.TinyRecursiveReasoningModel_ACTV1(settings)
    else:
        module = importlib.import_module("models.hrm.hrm_act_v1")
        model = module.HierarchicalReasoningModel_ACTV1(settings)
    if weights is not None:
        model.load_state_dict(dict(weights))
    losses = importlib.import_module("models.losses")
    head = losses.ACTLossHead(model, "stablemax_cross_entropy").train()
    run = torch.compile(head, dynamic=False) if compiled else head
    batch = random_batch(ours)
    optimizer = adamw(model)
    state = {"carry": head.initial_carry(batch)}

    def step() -> Tensor:
        state["carry"], loss, *_ = run(carry=state["carry"], batch=batch, return_keys=[])
        return finish(loss / config.batch_size, optimizer)

    return step


NANO_NAMES = {"L_level": "lenet", "embed_tokens": "input_embedding"}


def nano_trm(ours: ACTModel, weights: Weights | None) -> Step:
    """The Lightning module of nano-trm without Lightning's loop."""
    config = ours.config
    with redirect_stdout(StringIO()):
        module = importlib.import_module("src.nn.models.trm")
        model = module.TRMModule(
            hidden_size=config.hidden_size,
            num_layers=config.L_layers,
            num_heads=config.num_heads,
            max_grid_size=math.isqrt(config.seq_len),
            H_cycles=config.H_cycles,
            L_cycles=config.L_cycles,
            N_supervision=config.halt_max_steps,
            ffn_expansion=config.expansion,
            halt_exploration_prob=config.halt_exploration_prob,
            puzzle_emb_dim=0,
            puzzle_emb_len=0,
            pos_emb_type=None if config.mlp_t else "1d",
            use_mlp_t=config.mlp_t,
            vocab_size=config.vocab_size,
            num_puzzles=1,
            batch_size=config.batch_size,
            seq_len=config.seq_len,
            forward_dtype=getattr(torch, config.forward_dtype),
        ).train()
    if weights is not None:
        theirs = {}
        for name, value in weights.items():
            first, _, rest = name.removeprefix("inner.").partition(".")
            if first in ("H_init", "L_init"):
                first = f"z_{first}"
            if first == "q_head":
                value = value[:1]  # It has no value of going on.
            theirs[".".join(filter(None, (NANO_NAMES.get(first, first), rest)))] = value
        model.load_state_dict(theirs)
    given = random_batch(ours)
    batch = {
        "input": given["inputs"],
        "output": given["labels"],
        "puzzle_identifiers": given["puzzle_identifiers"],
    }
    optimizer = adamw(model)
    state = {"carry": model.initial_carry(batch)}

    def step() -> Tensor:
        state["carry"], loss, *_ = model.compute_loss_and_metrics(state["carry"], batch)
        return finish(loss / config.batch_size, optimizer)

    return step


def tiny_recursive_model(ours: ACTModel, _: Weights | None) -> Step:
    """tiny-recursive-model with the networks that its own description names."""
    config = ours.config
    package = importlib.import_module("tiny_recursive_model")
    width, dtype = config.hidden_size, getattr(torch, config.forward_dtype)
    if config.mlp_t:
        network = package.MLPMixer1D(dim=width, depth=config.L_layers, seq_len=config.seq_len)
    else:
        transformers = importlib.import_module("x_transformers")
        inner = ours.get_parameter("inner.L_level.layers.0.mlp.down_proj.weight").shape[1]
        network = transformers.Encoder(
            dim=width,
            depth=config.L_layers,
            heads=config.num_heads,
            attn_dim_head=width // config.num_heads,
            attn_flash=True,
            rotary_pos_emb=True,
            use_simple_rmsnorm=True,
            pre_norm=False,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_mult=inner / width,
        )
    model = package.TinyRecursiveModel(
        dim=width,
        num_tokens=config.vocab_size,
        network=network,
        num_refinement_blocks=config.H_cycles,
        num_latent_refinements=config.L_cycles,
    ).train()
    given = random_batch(ours)
    inputs, labels = given["inputs"].long(), given["labels"].long()
    optimizer = adamw(model)
    state = dict(zip(("outputs", "latents"), model.get_initial(), strict=True))
    half = dtype != torch.float32

    def step() -> Tensor:
        with torch.autocast("cpu", dtype) if half else nullcontext():
            loss, _, outputs, latents, *_ = model(inputs, **state, labels=labels)
        state.update(outputs=outputs, latents=latents)
        return finish(loss / config.batch_size, optimizer)

    return step


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """As `Update` has it."""
    return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def finish(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


# -- what is compared

OURS = Contender("this project", this_project, equal=True)
PUBLISHED = Contender("published code", published, equal=True)
NANO = Contender("nano-trm", nano_trm, equal=True, note="its module, without Lightning's loop")
TINY = Contender(
    "tiny-recursive-model",
    tiny_recursive_model,
    equal=False,
    note="its own mathematics, autocast; operations tell how much work that is",
)
NEXT_STEP = Contender(
    "this project, next_step",
    partial(this_project, continue_target="next_step"),
    equal=False,
    note="continue_target=next_step: no second forward",
)
COMPILED = ", compiled"
BY: dict[Callable[..., Step], str] = {
    this_project: "layers compiled",
    published: "torch.compile as it does",
}


def compiled(contender: Contender) -> Contender | None:
    """The same through torch.compile, if it can be had so."""
    by = BY.get(getattr(contender.make, "func", contender.make))
    make = partial(contender.make, compiled=True)
    name = f"{contender.name}{COMPILED}"
    return None if by is None else Contender(name, make, contender.equal, by)


AS_PUBLISHED = {
    "ffn_multiple": 256,
    "branch_init_scale": 1.0,
    "q_pool": "first",
    "train_max_steps": None,
}
"""What published code cannot have otherwise."""


def full_size(kind: type[ACTModel], **settings: Any) -> Callable[[], ACTModel]:
    return lambda: kind({**SHARED, **settings})


def preset_model(experiment: str) -> ACTModel:
    """An experiment's model at its sizes, in the form that published code has."""
    config = compose([f"experiment={experiment}"])
    arch = {**config.arch, **AS_PUBLISHED}
    kind = {"hrm": HRMACTv1, "trm": TRM}[arch.pop("name")]
    if kind is TRM:
        arch |= {"mix_expansion": None, "mix_norm": "positions"}
    size = config.data.prepare["size"]  # type: ignore[index]
    sizes = {"seq_len": size**2, "vocab_size": size + 2, "batch_size": config.global_batch_size}
    return kind({**arch, **sizes})


def preset(experiment: str, checkout: str, *others: Contender) -> Case:
    config = compose([f"experiment={experiment}"])
    own = {key: config.arch[key] for key in AS_PUBLISHED if key != "train_max_steps"}
    own |= {key: config.arch[key] for key in ("mix_expansion", "mix_norm") if key in config.arch}
    as_it_is = Contender(
        "this project, the preset as it is",
        partial(this_project, loss=config.loss, **own),
        equal=False,
        note="inner widths not rounded up to 256, its own norm, scale, pooling and loss",
    )
    title = f"{experiment}: the preset's sizes in the form that published code has"
    ours = partial(preset_model, experiment)
    return Case(title, ours, (OURS, as_it_is, PUBLISHED, *others), checkout)


TRM_CYCLES = {"H_cycles": 3, "L_cycles": 6, "L_layers": 2}


def cases() -> dict[str, Case]:
    hrm = full_size(HRMACTv1, H_cycles=2, L_cycles=2, H_layers=4, L_layers=4)
    trm = full_size(TRM, **TRM_CYCLES)
    mlp = full_size(TRM, **TRM_CYCLES, mlp_t=True, pos_encodings="none")
    return {
        "hrm": Case("HRM, full size", hrm, (OURS, NEXT_STEP, PUBLISHED), "hrm"),
        "trm": Case("TRM with attention, full size", trm, (OURS, PUBLISHED, NANO, TINY), "trm"),
        "trm_mlp": Case("TRM-MLP, full size", mlp, (OURS, PUBLISHED, NANO, TINY), "trm"),
        "sudoku_4x4": preset("sudoku_4x4", "trm", NANO),
        "sudoku_4x4_hrm": preset("sudoku_4x4_hrm", "hrm"),
        "sudoku_6x6": preset("sudoku_6x6", "trm", NANO),
    }


# -- measuring


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """A case's contenders, in turns."""
    torch.manual_seed(0)
    ours = case.ours()
    weights = ours.state_dict()
    contenders = [*case.contenders]
    if options.compile:
        contenders += [c for c in map(compiled, case.contenders) if c is not None]
    rows: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    for contender in contenders:
        row: dict[str, Any] = {"name": contender.name, "equal": contender.equal}
        row["note"] = contender.note
        rows[contender.name] = row
        try:
            step = contender.make(ours, weights)
            row["first_loss"] = float(step())
            if not contender.name.endswith(COMPILED):
                counted = count_products(step)
                row["operations"] = counted.operations
                if contender is OURS:
                    largest = counted
            step()
            steps[contender.name] = step
        except Exception as error:  # A peer that fails is part of the result.
            row["missing"] = reason(error, contender, case, options)
    product = Product(largest.largest, largest.dtype, CPU)
    product.warm_up()
    times = max(1, math.ceil(TURN_S / seconds(steps[OURS.name], CPU)))
    works: dict[str, Callable[[], object]] = {"product": product}
    works |= {name: partial(repeated, step, times) for name, step in steps.items()}
    taken = in_turns(works, options.repeats, CPU)
    rate = statistics.median(product.operations / t for t in taken["product"])
    for name in steps:
        each = [t / times for t in taken[name]]
        middle, row = statistics.median(each), rows[name]
        ratios = [t / t_ours for t, t_ours in zip(taken[name], taken[OURS.name], strict=True)]
        row |= {"seconds_a_step": middle, "spread": [min(each), max(each)]}
        row |= {"times_ours": statistics.median(ratios), "ratio_spread": [min(ratios), max(ratios)]}
        # Compiled products are not seen; they are those of the same contender uncompiled.
        operations = row.get("operations") or rows[name.removesuffix(COMPILED)]["operations"]
        row["gemm_share"] = operations / middle / rate
        first = rows[OURS.name]["first_loss"]
        row["loss_difference"] = abs(row["first_loss"] / first - 1) if row["equal"] else None
    config = ours.config
    return {
        "title": case.title,
        "batch_size": config.batch_size,
        "seq_len": config.seq_len,
        "dtype": config.forward_dtype,
        "steps_a_turn": times,
        "product_rate_gflops": rate / 1e9,
        "contenders": list(rows.values()),
    }


def repeated(step: Step, times: int) -> None:
    for _ in range(times):
        step()


def reason(error: Exception, contender: Contender, case: Case, options: argparse.Namespace) -> str:
    """Why a contender does not take part."""
    if "published" in contender.name and getattr(options, case.checkout) is None:
        return f"--{case.checkout} was not given"
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"[:200]


def memory_of(case: Case, contender: Contender) -> int | None:
    """Bytes that steps of one contender take at most, model and optimizer included; to be called
    in a fresh process. The model of ours that gives the sizes is there before."""
    ours = case.ours()
    miniature = {"hidden_size": 64, "num_heads": 2, "seq_len": 4, "batch_size": 1}
    small = type(ours)(ours.config.model_copy(update=miniature))
    contender.make(small, None)()  # Imports, kernels and threads are none of a step's memory.
    memory = PeakMemory(CPU)
    step = contender.make(ours, None)
    repeated(step, MEMORY_STEPS)
    return memory.read()


def memory_in_child(name: str, contender: str, options: argparse.Namespace) -> int | None:
    arguments = ["--only", name, "--child", contender, "--threads", str(options.threads)]
    for checkout in ("hrm", "trm"):
        if path := getattr(options, checkout):
            arguments += [f"--{checkout}", str(path)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}, {contender}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def imported(case: Case, options: argparse.Namespace) -> ExitStack:
    """While it is open, the modules of the case's checkout can be imported."""
    stack = ExitStack()
    if checkout := getattr(options, case.checkout):
        stack.enter_context(importing(checkout))
    return stack


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit_of(checkout: Path | None) -> str | None:
    try:
        return commit(checkout) if checkout is not None else None
    except subprocess.CalledProcessError:  # No clone.
        return None


def report(record: dict[str, Any]) -> str:
    """The record as tables."""
    lines = [
        "# A training step beside peers",
        "",
        f"`{record['command']}` at commit {record['commit']}, {record['date']},"
        f" {record['machine']}, {record['threads']} threads.",
        f"Medians (range) of {record['repeats']} turns, in which every contender and a bare matrix"
        " product have their turn. A step is forward, loss, backward and AdamW.",
        "Times ours: the median over turns of a contender's time over this project's in the same"
        " turn.",
        "Loss apart: how far the first loss from the same weights lies from ours; - where the"
        " mathematics differ. Memory: model, optimizer and steps, in a process each.",
    ]
    for case in record["cases"].values():
        lines += [
            "",
            f"## {case['title']}",
            "",
            f"{case['batch_size']} sequences of {case['seq_len']} tokens, {case['dtype']}; bare"
            f" product {case['product_rate_gflops']:.0f} GFLOP/s; {case['steps_a_turn']} steps a"
            " turn.",
            "",
            "| contender | ms a step | times ours | GFLOP a step | share of product rate |"
            " loss apart | memory MiB | note |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in case["contenders"]:
            if "missing" in row:
                lines.append(
                    f"| {row['name']} | - | - | - | - | - | - | left out: {row['missing']} |"
                )
                continue
            low, high = (f"{1e3 * s:.4g}" for s in row["spread"])
            apart, memory = row["loss_difference"], row.get("memory_bytes")
            operations = row.get("operations")
            lines.append(
                f"| {row['name']} | {1e3 * row['seconds_a_step']:.4g} ({low} to {high}) |"
                f" {row['times_ours']:.2f} ({row['ratio_spread'][0]:.2f} to"
                f" {row['ratio_spread'][1]:.2f}) |"
                f" {'-' if operations is None else f'{operations / 1e9:.4g}'} |"
                f" {row['gemm_share']:.2f} | {'-' if apart is None else f'{apart:.0e}'} |"
                f" {'-' if memory is None else f'{memory / 2**20:.0f}'} | {row['note']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = cases()
    for name in ("--hrm", "--trm"):
        parser.add_argument(name, type=lambda text: Path(text).resolve(), metavar="CHECKOUT")
    parser.add_argument("--only", nargs="+", choices=known, default=list(known))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compiled forms take part too")
    parser.add_argument("--no-memory", action="store_true", help="no child processes")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # Of others' code.
    stub("flash_attn_interface", flash_attn_func=attention)

    if options.child:
        case = known[options.only[0]]
        with imported(case, options):
            child = next(c for c in case.contenders if c.name == options.child)
            print(json.dumps(memory_of(case, child)))
        return
    words = [f"--{n} CHECKOUT" for n in ("hrm", "trm") if getattr(options, n)]
    words += ["--only", *options.only] if options.only != list(known) else []
    words += ["--compile"] if options.compile else []
    words += [f"--repeats {options.repeats}", f"--threads {options.threads}"]
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/peers.py", *words]),
        **stamp(),
        "threads": options.threads,
        "repeats": options.repeats,
        "checkouts": {
            "sapientinc/HRM": commit_of(options.hrm),
            "SamsungSAILMontreal/TinyRecursiveModels": commit_of(options.trm),
        },
        "packages": {name: version(name) for name in PACKAGES},
        "cases": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        with imported(known[name], options):
            found = measure(known[name], options)
        record["cases"][name] = found
        names = {c.name for c in known[name].contenders}
        for row in found["contenders"]:
            if not options.no_memory and "missing" not in row and row["name"] in names:
                row["memory_bytes"] = memory_in_child(name, row["name"], options)
        print(json.dumps({name: found}), flush=True)
        (options.out / "peers.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.out / "peers.md").write_text(report(record))


if __name__ == "__main__":
    main()
