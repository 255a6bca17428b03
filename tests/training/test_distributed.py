"""Two processes do what one does: the same losses, the same weights, and checkpoints of either."""

import functools
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hrm.commands.train import make_trainer
from hrm.config import ExperimentConfig
from hrm.data.scenes import prepare_scenes, scenes_request
from hrm.errors import UserError
from hrm.models.weights import read_tensors
from hrm.training.checkpoint import checkpoints, find_checkpoint
from hrm.training.distributed import ALONE, Processes
from hrm.training.metrics import read_metrics
from hrm.training.trainer import NonFiniteError, Trainer
from tests.training.conftest import SMALL, composed
from tests.training.tasks import write_tasks
from tests.training.test_trainer import without_time


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """For a test that uses `in_two`."""
    cannot = torch.cuda.is_available() or not hasattr(os, "fork")
    skipped = pytest.mark.skipif(cannot, reason="a process that has used a GPU cannot be forked")
    # Of pytest's own threads, which hold nothing that a child needs.
    fine = pytest.mark.filterwarnings("ignore:.* is multi-threaded:DeprecationWarning")
    return skipped(fine(test))


UPDATES = 8
RESUMED = ("one_two", "two_one", "two_two")
COMMON = (
    "global_batch_size=8",
    "lr=1e-2",
    "log_every_steps=1",
    f"max_steps={UPDATES}",
    "eval_every_steps=null",
    f"checkpoint_every_steps={UPDATES // 2}",
    "plots=false",
    "progress=false",
)
TOKENS = (
    "arch.forward_dtype=float32",
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.L_layers=1",
    "arch.halt_max_steps=3",
    "arch.halt_exploration_prob=0.5",
)
EAGER = ("arch.halting=halt_only", "arch.halt_threshold=0.003", "global_batch_size=4")
"""An untrained head halts all whom exploration does not hold back."""
ENCODER = (
    "arch=etrm_small",
    "arch.encoder_num_layers=1",
    "arch.context_tokens=2",
    "arch.encoder_type=hybrid_variational",
    *TOKENS,
)
CASES: dict[str, tuple[str, ...]] = {
    # Rows of all puzzles in both processes, two carries in each, a checkpoint between log rows.
    "persistent": (
        "arch=hrm_small",
        "arch.H_layers=1",
        "arch.puzzle_emb_ndim=16",
        "log_every_steps=3",
        "grad_accumulation=2",
        *TOKENS,
    ),
    # Updates in which one process has no new sequence, so its encoder no gradient.
    "encoder": ("stagger=true", "grad_clip_norm=0.5", "ema=false", *ENCODER, *EAGER),
    "online": ("dynamics=online", "num_act_steps=2", "arch.context=reencode", *ENCODER),
    # Sequences leave, at last all of one process, which touches no puzzle's row then.
    "episode": (
        "dynamics=episode",
        "arch=trm_small",
        "arch.puzzle_emb_ndim=16",
        "puzzle_emb_weight_decay=20",
        "grad_accumulation=2",
        *TOKENS,
        *EAGER,
    ),
    # Heads in turn, draws by slot, and a loss of the mean over all slots.
    "rollout": (
        "dynamics=rollout",
        "arch=act_unet",
        "arch.base_channels=4",
        "arch.hidden_size=16",
        "arch.num_heads=2",
        "arch.halt_max_steps=3",
        "arch.warmup_updates=1",
        "arch.alternate_every=1",
        "arch.contribution_loss=reinforce",
        "arch.conditional=false",
    ),
}
Made = Callable[..., ExperimentConfig]
"""`made("folder", "key=value", ...)`."""

each_case = pytest.mark.parametrize(
    "case", [c if c == "persistent" else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)


def in_two(folder: Path, work: Callable[[Processes], None]) -> None:
    """`work` in two processes at once, forked from this one, which has all imports done."""
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    children = []
    for rank in range(2):
        child = os.fork()
        if child:
            children.append(child)
            continue
        status = 1
        try:
            dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=2)
            work(Processes(rank, 2))
            dist.destroy_process_group()
            status = 0
        except BaseException:
            (folder / f"{rank}.txt").write_text(traceback.format_exc())
        finally:
            os._exit(status)
    ended = [os.waitpid(child, 0)[1] for child in children]
    told = [p.read_text() for p in sorted(folder.glob("?.txt"))]
    assert ended == [0, 0], "\n".join(told)


def run(config: ExperimentConfig, processes: Processes = ALONE) -> Trainer:
    trainer = make_trainer(config, processes)
    trainer.run()
    return trainer


class Watched(Processes):
    """Notes who had what to add to each update's gradients."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor | None) -> Tensor:
        learning = list(parameters)
        missing = sum(p.grad is None for p in learning)
        self.notes.append("nothing" if loss is None else "parts" if missing else "all")
        return super().sum_gradients(learning, loss)

    @functools.cached_property
    def notes(self) -> list[str]:
        return []


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """`made(case)("folder", "key=value", ...)`: its configuration."""
    root = tmp_path_factory.mktemp("two")

    @functools.cache
    def data(kind: str) -> Path:
        if kind == "tasks":
            return write_tasks(root / kind, train=6, held_out=3)
        sizes = {"size": 8, "count": 40, "val_count": 10, "test_count": 10}
        prepare_scenes(scenes_request(task="flood_fill", out=root / kind, **sizes))
        return root / kind

    def of(case: str) -> Made:
        @functools.cache
        def config(folder: str, *overrides: str) -> ExperimentConfig:
            where = data("mazes" if case == "rollout" else "tasks")
            settings = (*COMMON, *CASES[case], f"out={root / folder / case}", *overrides)
            return composed((f"data.path={where}",), *settings)

        return config

    return functools.cache(of)


@pytest.fixture(scope="session")
def runs(made: Callable[[str], Made]) -> Callable[[str], Made]:
    """`runs(case)` is `made(case)` after it ran by one process in the folder `one`, by two in
    `two`, and begun by so many and gone on with by others in `one_two` and so on."""

    def of(case: str) -> Made:
        config = made(case)
        out = {name: Path(str(config(name).out)) for name in ("one", "two", *RESUMED)}
        meeting = out["two"].with_name(f"{case}_meeting")

        def whole(processes: Processes) -> None:
            watched = Watched(processes.rank, processes.count)
            run(config("two"), watched)
            (meeting / f"notes{processes.rank}.json").write_text(json.dumps(watched.notes))

        def rest(processes: Processes) -> None:
            for name in ("one_two", "two_two"):
                run(config(name, "resume=true"), processes)

        run(config("one"))
        in_two(meeting, whole)
        for name in RESUMED:  # As a kill after the first checkpoint would have left it.
            shutil.copytree(out[name.split("_")[0]], out[name])
            shutil.rmtree(checkpoints(out[name])[-1])
        in_two(meeting, rest)
        run(config("two_one", "resume=true"))
        return config

    return functools.cache(of)


def rows(config: ExperimentConfig) -> list[dict[str, Any]]:
    """What training said; an evaluation sees weights that are the same up to rounding only."""
    found = without_time(read_metrics(Path(str(config.out)) / "metrics.jsonl"))
    return [{k: v for k, v in r.items() if not k.startswith("eval/")} for r in found]


def saved(config: ExperimentConfig) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    path = find_checkpoint(Path(str(config.out)))
    files = sorted(path.glob("*.safetensors"))
    return {f"{f.stem}.{k}": v for f in files for k, v in read_tensors(f).items()}


def assert_rows_close(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in other.items():
            same = (
                mine[name] == value
                if value is None
                else mine[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
            )
            assert same, (name, mine, other)


def assert_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=2e-4, rtol=2e-3), name


@forks
@each_case
def test_two_processes_do_what_one_does(runs: Callable[[str], Made], case: str) -> None:
    one, two = runs(case)("one"), runs(case)("two")
    expected, got = rows(one), rows(two)
    assert [row["step"] for row in got] == sorted({row["step"] for row in expected})
    assert_rows_close(got, expected)
    assert_close(saved(two), saved(one))


@forks
@each_case
def test_a_checkpoint_does_not_tell_how_many_wrote_it(
    runs: Callable[[str], Made], case: str
) -> None:
    one, two = (find_checkpoint(Path(str(runs(case)(n).out))) for n in ("one", "two"))
    files = [{p.name for p in path.iterdir()} for path in (one, two)]
    assert files[0] == files[1]
    told = []
    for path in (one, two):
        state, config = (json.loads((path / f).read_text()) for f in ("state.json", "config.json"))
        del state["train_s"], config["experiment"]["out"]
        told.append((state, config))
    assert told[0] == told[1]


@forks
@each_case
def test_others_go_on_with_a_run(runs: Callable[[str], Made], case: str) -> None:
    one = runs(case)("one")
    for folder in ("two_one", "one_two"):
        mixed = runs(case)(folder)
        assert_rows_close(rows(mixed), rows(one))
        assert_close(saved(mixed), saved(one))


@forks
@each_case
def test_as_many_go_on_bit_for_bit(runs: Callable[[str], Made], case: str) -> None:
    unbroken, resumed = runs(case)("two"), runs(case)("two_two")
    assert rows(resumed) == rows(unbroken)
    ours, theirs = saved(resumed), saved(unbroken)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@forks
@pytest.mark.slow
@pytest.mark.parametrize(("case", "note"), [("encoder", "parts"), ("episode", "nothing")])
def test_these_cases_have_updates_to_which_one_process_adds_less(
    runs: Callable[[str], Made], case: str, note: str
) -> None:
    meeting = Path(str(runs(case)("two").out)).with_name(f"{case}_meeting")
    notes = [json.loads((meeting / f"notes{rank}.json").read_text()) for rank in range(2)]
    assert any((ours == note) != (theirs == note) for ours, theirs in zip(*notes, strict=True))


@forks
def test_what_goes_wrong_or_ends_it_in_one_process_does_in_both(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    config = made("persistent")
    configs = {
        name: config(f"wrong/{name}", *settings)
        for name, settings in {
            "taken": (),
            "nan": (),
            "goal": ("eval_every_steps=2", "stop_at_exact_accuracy=0.5"),
            "uneven": ("global_batch_size=6",),
        }.items()
    }
    taken = Path(str(configs["taken"].out))
    taken.mkdir(parents=True)
    (taken / "mine").touch()

    def two(processes: Processes) -> None:
        for name in ("taken", "uneven"):
            with pytest.raises(UserError, match=r"^(out|global_batch_size): "):
                make_trainer(configs[name], processes)
        broken = make_trainer(configs["nan"], processes)
        with torch.no_grad():
            if processes.rank == 1:
                broken.model.inner.lm_head.weight.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match=r"^update 1: gradients of inner\.embed"):
            broken.run()
        ended = make_trainer(configs["goal"], processes)
        ended.evaluate = {  # type: ignore[method-assign]
            0: lambda: {"count": 1, "exact_accuracy": 0.5},
            1: lambda: pytest.fail("the first one alone evaluates"),
        }[processes.rank]
        ended.run()
        assert (ended.step, ended.goal_reached) == (2, 0.5)

    in_two(tmp_path, two)


def test_slots_are_shared_in_order_whatever_the_number() -> None:
    for count in (1, 2, 3):
        every = [Processes(rank, count) for rank in range(count)]
        for micro_batches in (1, 2):
            parts = [p.slices(12, micro_batches) for p in every]
            held = [list(range(12))[s] for i in range(micro_batches) for s in (p[i] for p in parts)]
            assert [slot for part in held for slot in part] == list(range(12))
            assert np.sum([p.holds(12, micro_batches) for p in every], axis=0).tolist() == [1] * 12
    with pytest.raises(UserError, match=r"^global_batch_size: 12 .* give a multiple of 8"):
        Processes(0, 4).slices(12, 2)


def test_each_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": 3, "WORLD_SIZE": 4, "MASTER_ADDR": "a", "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("hrm.training.distributed.pick_device", lambda name: name)
    mine = Processes(3, 4)
    assert [mine.device(name) for name in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(UserError, match=r"^device: cuda:0 is one, and there are 4 processes"):
        mine.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"^device: 2 processes and 1 GPUs are here"):
        mine.device("auto")


ROOT = Path(__file__).parents[2]


def torchrun(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        environment.pop(name, None)
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def said(process: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in process.stderr.splitlines() if line.startswith("hrm: ")]


@pytest.mark.slow
def test_the_command_runs_under_torchrun(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    settings = [*SMALL, f"data.path={data}", f"out={out}", "max_steps=4", "device=cpu"]
    done = torchrun("-m", "hrm", "train", *settings)
    assert done.returncode == 0, done.stderr
    assert len(said(done)) == 1
    assert said(done)[0].startswith(f"hrm: {out}: 4 updates")
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2, 3, 4]
    again = torchrun("-m", "hrm", "train", *settings)
    assert again.returncode != 0
    assert said(again) == [
        f"hrm: out: {out} exists; give another folder, or resume=true to go on in it"
    ]


@pytest.mark.slow
def test_the_documents_scripts_run_under_torchrun(made: Callable[[str], Made]) -> None:
    config = made("online")("script")
    words = ["scale=cpu", *ENCODER, *COMMON, "arch.num_act_steps=2", "epochs=null", "device=cpu"]
    words += [f"data.path={config.data.path}", "data.prepare=null", f"out={config.out}"]
    done = torchrun("pretrain_encoder.py", *words, "+run_name=L1")
    assert done.returncode == 0, done.stderr
    rows = read_metrics(Path(str(config.out)) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, UPDATES + 1))
