"""The one training loop: optimizers, schedule, averaging, log, evaluation, checkpoints, resume."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hrm.config import ExperimentConfig, build_model, planned_updates, sizes_of_data, validate
from hrm.data.base import PuzzleSplit
from hrm.data.feeder import Augmenter, Feeder
from hrm.errors import UserError
from hrm.files import write_text
from hrm.inference.evaluate import check_fits, evaluate_split
from hrm.models import ETRM, ACTModel
from hrm.models.pretrained_decoder import LoadedDecoder, load_decoder
from hrm.training import checkpoint
from hrm.training.compiling import compiles
from hrm.training.distributed import ALONE, Processes
from hrm.training.dynamics import DYNAMICS
from hrm.training.ema import EMA
from hrm.training.metrics import LOG_NAME, MetricsLog, Sums, best_step, is_number, read_metrics
from hrm.training.optim import clip_groups, lr_factor, make_optimizers, set_lr
from hrm.training.start import learn_only_halting, start_from

FREE_TO_CHANGE = frozenset(
    "epochs max_steps eval_every_steps eval_split eval_count max_eval_groups eval_batch_size "  # noqa: SIM905
    "eval_halting stop_at_exact_accuracy stop_after_s checkpoint_every_steps keep_checkpoints "
    "keep_best out eval_interval load_pretrained_decoder init_from "
    "resume progress plots tensorboard wandb trackio run_name project_name device data.path "
    "data.prepare".split()
)
"""Keys that a resumed run may set otherwise: they do not touch what an update computes, but for
the length of the run, which a cosine schedule follows."""

Listener = Callable[[dict[str, Any]], None]


class NonFiniteError(RuntimeError):
    """A loss or gradient was not finite; the message names the parameters."""


class Trainer:
    """A run in folder `out`.

    Args:
        config: the checked experiment.
        train: rows to learn from.
        held_out: rows of `config.eval_split`, or None to never evaluate.
        out: the run's folder; an existing one is refused unless `config.resume`.
        augment: applied to every row as it is drawn.
        processes: those that train together. All make a trainer of the same settings, and call the
            same of its methods; the first one writes.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        train: PuzzleSplit,
        held_out: PuzzleSplit | None,
        out: Path,
        augment: Augmenter | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.held_out, self.out = config, held_out, out
        self.processes = processes
        self.device = processes.device(config.device)
        self.data_root = train.path.parent.resolve()
        self.sizes = sizes_of_data(config.arch, train.metadata, config.global_batch_size)
        self.feeder = Feeder(
            train,
            slots=config.global_batch_size,
            seed=config.seed,
            epochs=config.epochs,
            sampling=config.data.sampling,
            easy_first=config.data.easy_first,
            augment=augment,
            # Not by each of several processes: all of them would make all rows.
            ahead=self.device.type == "cuda" and processes.count == 1,
            mine=processes.holds(config.global_batch_size, config.grad_accumulation),
        )
        torch.manual_seed(config.seed)
        share = {"batch_size": config.global_batch_size // processes.count}
        self.model = build_model(config.arch, **{**self.sizes, **share}).to(self.device).train()
        self.model.halting.total = processes.total
        source = None if config.resume else config.init_from
        if config.learn == "halting":
            learn_only_halting(self.model, source)
        elif source is not None:
            self._start_from(source)
        if held_out is not None:
            check_fits(self.model, held_out)
        if config.arch.get("puzzle_emb_ndim"):
            self.model.puzzle_emb.check_ids = False  # The data's were checked when it was read.
        self.decoder = self._load_decoder()
        # They are the same already; on machines that are not, they may differ by rounding.
        processes.take_from_first(self.model.state_dict().values())
        self.ema = EMA(self.model, config.ema_rate) if config.ema else None
        self.optimizers = make_optimizers(self.model, config, processes.count)
        half = config.arch.get("forward_dtype") == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.dynamics = DYNAMICS[config.dynamics](
            self.model,
            self.feeder,
            loss=config.loss,
            micro_batches=config.grad_accumulation,
            seed=config.seed,
            device=self.device,
            stagger=config.stagger,
            processes=processes,
        )
        self.warmup = self._shortened_warmup()
        self.compiled = False
        self.sums = Sums(processes)
        self.step = 0
        self.train_s = 0.0
        self.finished = False
        self.goal_reached: float | None = None
        """The exact accuracy that ended the run."""
        self.last_saved = -1
        self.log = MetricsLog(out / LOG_NAME)
        self.listeners: list[Listener] = []
        """Called with every row of the log: progress bars and other sinks."""

    # -- the loop

    def run(self) -> None:
        """Train until the run ends: its updates or epochs are done, or its goal is reached.

        Raises:
            NonFiniteError: the last good checkpoint is kept.
            UserError: `out` is taken, by another process even, or is nothing to resume.
        """
        self.processes.on_first(self._make_folder)
        with ExitStack() as stack:
            self.processes.on_first(lambda: stack.enter_context(checkpoint.exclusive(self.out)))
            self._begin()
            while not self.finished:
                self._train_one_update()

    def _train_one_update(self) -> None:
        started, before = time.perf_counter(), self.feeder.admitted
        self.update()
        self.train_s += time.perf_counter() - started
        if self.config.stop_after_s is not None:  # All stop by one clock.
            self.train_s = self.processes.on_first(lambda: self.train_s)
        self.finished = self._is_over()
        evaluates = self._evaluation_is_due(before)
        row, best = self._row_if_due(evaluates), False
        if row is not None:
            goal = self.config.stop_at_exact_accuracy
            exact = row.get("eval/exact_accuracy")
            if goal is not None and exact is not None and exact >= goal:
                self.finished, self.goal_reached = True, exact
            best = self.processes.on_first(lambda: self._note(row))
        every = self.config.checkpoint_every_steps
        due = evaluates if every is None else self.step % every == 0
        if self.finished or due or best:
            self.save()

    def _note(self, row: dict[str, Any]) -> bool:
        """Log a row; whether it is the best so far (`_is_best`)."""
        self.log.append(row)
        for listener in self.listeners:
            listener(row)
        return self._is_best(row)

    def _is_best(self, row: dict[str, Any]) -> bool:
        """Whether no earlier evaluation had a better `keep_best`.

        Raises:
            UserError: it is no figure of the evaluation.
        """
        figure = self.config.keep_best
        if figure is None or "eval/count" not in row:
            return False
        known = [name.removeprefix("eval/") for name in row if name.startswith("eval/")]
        if figure not in known:
            numbers = [name for name in known if is_number(row[f"eval/{name}"])]
            raise UserError(f"keep_best: {figure} is not evaluated; there are {', '.join(numbers)}")
        return best_step(self.rows(), figure) == self.step

    def update(self) -> None:
        """One update: forward, backward, optimizers, average."""
        limit = self.config.step_limit(self.step)
        if limit is not None:
            self.model.halting.train_max_steps = limit
        self.dynamics.kl_weight = self.config.kl_weight_at(self.step)
        self._update(self.dynamics.update(self._backward))

    def _backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def _update(self, sums: dict[str, Tensor]) -> None:
        """Guard, clip, step all optimizers, average."""
        self.step += 1
        self.sums.add(sums)
        loss = self.processes.sum_gradients(self.model.parameters(), sums.get("loss"))
        if self.processes.count > 1:
            self.scaler.scale(loss)  # It makes its scale at the first loss; not all have had one.
        # The scaler refuses optimizers without any gradient: heads whose turn it is not.
        dense = [o for o in self.optimizers if not _is_sparse(o) and _has_gradient(o)]
        for optimizer in dense:
            self.scaler.unscale_(optimizer)
        frozen = self.config.frozen_at(self.step - 1)
        groups = clip_groups(self.model.parameter_groups(), frozen)
        norms = [
            torch.nn.utils.get_total_norm([p.grad for p in group if p.grad is not None])
            for group in groups
        ]
        # The update's only transfer: waiting twice would let the device run dry twice.
        fine = torch.isfinite(sum(norms, loss)).view(1)
        on_host = torch.cat((fine, self.dynamics.flags())).cpu().numpy()
        finite = bool(on_host[0])
        self.dynamics.receive(on_host[1:])
        # A float16 step that overflows is no fault: it is skipped, and the scale is halved. Halved
        # below 1, it was not the scale that overflowed.
        if not finite and not (self.scaler.is_enabled() and self.scaler.get_scale() >= 1):
            raise NonFiniteError(self._non_finite(loss))
        if finite:
            if (limit := self.config.grad_clip_norm) is not None:
                for group, norm in zip(groups, norms, strict=True):
                    torch.nn.utils.clip_grads_with_norm_(group, limit, norm)
            now = self.warmup, self.config, self.step, self._progress()
            set_lr(self.optimizers, lr_factor(*now), frozen, lr_factor(*now, head=True))
            for optimizer in dense:
                self.scaler.step(optimizer)
            for optimizer in self.optimizers:
                if _is_sparse(optimizer):  # Works on signs, which the scale leaves alone.
                    optimizer.step()
        self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if finite and self.ema is not None:
            self.ema.update_parameters(self.model)

    def _non_finite(self, loss: Tensor) -> str:
        bad = [
            name
            for name, p in self.model.named_parameters()
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        what = f"gradients of {', '.join(bad)}" if bad else "the loss"
        mean = float(loss) / self.config.global_batch_size
        return (
            f"update {self.step}: {what} not finite (loss {mean}); nothing was changed by it, and "
            f"checkpoints in {self.out / 'checkpoints'} are kept"
        )

    def share_done(self) -> float:
        """Share of the run that is over, by rows, updates or seconds, whichever is most."""
        limit = self.config.stop_after_s
        return max(self._progress(), self.train_s / limit if limit else 0.0)

    def _progress(self) -> float:
        """What the schedule follows: rows admitted over rows planned, or updates."""
        by_rows = self.feeder.admitted / self.feeder.planned if self.feeder.planned else 0.0
        by_steps = (self.step - 1) / self.config.max_steps if self.config.max_steps else 0.0
        return max(by_rows, by_steps)

    def _is_over(self) -> bool:
        config = self.config
        too_long = config.stop_after_s is not None and self.train_s >= config.stop_after_s
        full = config.max_steps is not None and self.step >= config.max_steps
        return too_long or full or (self.feeder.exhausted and self.dynamics.idle())

    def _shortened_warmup(self) -> int:
        """Warm-up updates: no more than the run has, since published recipes at small sizes do."""
        planned = planned_updates(self.config, self.feeder.planned)
        if self.config.lr_warmup_steps <= planned:
            return self.config.lr_warmup_steps
        short = max(1, int(planned) // 10)
        warnings.warn(
            f"lr_warmup_steps: {self.config.lr_warmup_steps} is longer than the run "
            f"({int(planned)} updates at most); {short} are taken",
            stacklevel=2,
        )
        return short

    # -- log and evaluation

    def _evaluation_is_due(self, before: int) -> bool:
        """After this update, before which so many rows had been drawn."""
        every, epochs = self.config.eval_every_steps, self.config.eval_interval
        if self.finished or (every is not None and self.step % every == 0):
            return True
        rows = None if epochs is None else epochs * self.feeder.rows_per_epoch
        return rows is not None and self.feeder.admitted // rows > before // rows

    def _row_if_due(self, evaluates: bool) -> dict[str, Any] | None:
        if not (evaluates or self.step % self.config.log_every_steps == 0):
            return None
        row: dict[str, Any] = {
            "step": self.step,
            "samples": self.feeder.admitted,
            "epoch": self.feeder.admitted / self.feeder.rows_per_epoch,
            "lr": self.optimizers[0].param_groups[0]["lr"],
            **self.sums.read(),
            "time/train_s": round(self.train_s, 3),
        }
        if evaluates and self.held_out is not None:
            started = time.perf_counter()
            figures = self.processes.on_first(self.evaluate)
            row |= {f"eval/{name}": value for name, value in figures.items()}
            row["time/eval_s"] = round(time.perf_counter() - started, 3)
        return row

    def evaluate(self) -> dict[str, Any]:
        """Figures of the averaged weights on the held-out rows."""
        assert self.held_out is not None
        model = self.model if self.ema is None else cast(ACTModel, self.ema.module)
        result = evaluate_split(
            model,
            self.held_out,
            count=self.config.eval_count,
            batch_size=self.config.eval_batch_size,
            halting=self.config.eval_halting,
            loss=self.config.loss,
        )
        self.model.train()
        return result

    # -- checkpoints

    def save(self) -> None:
        """Write a checkpoint of this moment and drop old ones."""
        if self.last_saved == self.step:
            return
        self.last_saved = self.step
        state = self._state_tensors()
        self.processes.on_first(lambda: self._write_checkpoint(state))

    def _write_checkpoint(self, state: dict[str, Tensor]) -> None:
        tensors = {"model": self.model.state_dict(), "state": state}
        if self.ema is not None:
            tensors["ema"] = self.ema.module.state_dict()
        optimizers = [checkpoint.optimizer_tensors(o)[1] for o in self.optimizers]
        objects = {
            "config": {
                "format": checkpoint.FORMAT,
                "step": self.step,
                "sizes": self.sizes,
                "data_root": str(self.data_root),
                "experiment": self.config.model_dump(mode="json"),
            },
            "state": {
                "step": self.step,
                "train_s": self.train_s,
                "compiled": self.compiled,
                "finished": self.finished,
                "goal_reached": self.goal_reached,
                "feeder": self.feeder.state_dict(),
                "optimizers": optimizers,
                "scaler": self.scaler.state_dict(),
                "ema_updates": int(self.ema.n_averaged) if self.ema is not None else 0,
            },
        }
        checkpoint.save(checkpoint.checkpoint_path(self.out, self.step), tensors, objects)
        checkpoint.clean(self.out, self.config.keep_checkpoints, self.config.keep_best)

    def _state_tensors(self) -> dict[str, Tensor]:
        """What beside weights a run needs to go on; whole in the first process."""
        tensors = checkpoint.with_prefix("carry", self.dynamics.tensors())
        tensors |= checkpoint.with_prefix("sums", self.sums.total())
        tensors["random"] = torch.get_rng_state()
        for i, optimizer in enumerate(self.optimizers):
            state = checkpoint.optimizer_tensors(optimizer)[0]
            tensors |= checkpoint.with_prefix(f"optimizer{i}", state)
        return tensors

    def _make_folder(self) -> None:
        checkpoint.refuse_taken(self.out, self.config.resume)
        (self.out / "checkpoints").mkdir(parents=True, exist_ok=True)

    def _begin(self) -> None:
        """Start, or go on from the newest checkpoint."""
        newest = self.processes.on_first(self._newest)
        if newest is not None:
            self._load(newest)
        else:
            self.compiled = self.processes.on_first(self._begin_anew)
        self.model.compile_layers(self.compiled)
        self.processes.on_first(lambda: self.log.keep_until(self.step))

    def _newest(self) -> Path | None:
        """The checkpoint to go on from, what a killed run left behind removed."""
        checkpoint.clean(self.out)
        found = checkpoint.checkpoints(self.out)
        return found[-1] if found else None

    def _begin_anew(self) -> bool:
        """Write down what is going to run; whether compiled."""
        self._write_config()
        return compiles(self.config, self.model, self.dynamics.example(), self.feeder.planned)

    def _write_config(self) -> None:
        import yaml

        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_text(self.out / "config.yaml", text)
        if self.decoder is not None:
            text = json.dumps(self.decoder.record(), indent=1)
            write_text(self.out / "pretrained_decoder.json", text)

    def _start_from(self, source: str) -> None:
        """Take the weights of another run that fit, and say which do not."""
        afresh = sorted(start_from(self.model, source))
        if afresh and self.processes.first:
            whole = len(self.model.state_dict())
            names = ", ".join(afresh[:3]) + (", ..." if len(afresh) > 3 else "")
            print(
                f"hrm: init_from={source}: {whole - len(afresh)} of {whole} tensors fit; the "
                f"others start afresh: {names}",
                file=sys.stderr,
            )

    def _load_decoder(self) -> LoadedDecoder | None:
        """Start from a trained decoder, if the settings name one and no checkpoint has its own."""
        source = self.config.load_pretrained_decoder
        if source is None or checkpoint.checkpoints(self.out):
            return None
        assert isinstance(self.model, ETRM)
        found = load_decoder(self.model, source)
        print(f"hrm: {found}", file=sys.stderr)
        return found

    def _load(self, path: Path) -> None:
        saved = checkpoint.read_config(path)
        # Read anew: settings that did not exist yet have their defaults.
        before = validate(saved["experiment"]).model_dump(mode="json")
        before["arch"] = {**self._arch_defaults(), **before["arch"]}
        _refuse_changes(before, self.config.model_dump(mode="json"))
        try:
            self._load_state(path, checkpoint.read_json(path / "state.json"))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{path}: is not a whole checkpoint ({error!r})") from None

    def _arch_defaults(self) -> dict[str, Any]:
        """What the model's settings are where nobody gives them, of those that this run gives."""
        fields = type(self.model.config).model_fields
        return {
            name: json.loads(json.dumps(fields[name].get_default(call_default_factory=True)))
            for name in self.config.arch
            if name in fields and not fields[name].is_required()
        }

    def _load_state(self, path: Path, state: dict[str, Any]) -> None:
        tensors = checkpoint.read_tensors(path / "state.safetensors")
        source = path / "model.safetensors"
        checkpoint.load_weights(self.model, checkpoint.read_tensors(source), source)
        if self.ema is not None:
            source = path / "ema.safetensors"
            checkpoint.load_weights(self.ema.module, checkpoint.read_tensors(source), source)
            self.ema.n_averaged.fill_(state["ema_updates"])
        for i, (optimizer, rest) in enumerate(
            zip(self.optimizers, state["optimizers"], strict=True)
        ):
            mine = checkpoint.under_prefix(f"optimizer{i}", tensors)
            checkpoint.load_optimizer(optimizer, mine, rest)
        self.scaler.load_state_dict(state["scaler"])
        self.dynamics.load_tensors(checkpoint.under_prefix("carry", tensors))
        if self.processes.first:
            self.sums.values = checkpoint.under_prefix("sums", tensors)
        self.feeder.load_state_dict(state["feeder"])
        torch.set_rng_state(tensors["random"])
        self.step = self.last_saved = int(state["step"])
        self.train_s = float(state["train_s"])
        # Decided once: the other way rounds otherwise, and a resumed run is the same bit for bit.
        self.compiled = bool(state["compiled"])
        # A longer max_steps, more epochs or another goal reopen a run that had ended.
        goal = self.config.stop_at_exact_accuracy
        self.goal_reached = state["goal_reached"]
        reached = goal is not None and self.goal_reached is not None and self.goal_reached >= goal
        self.finished = bool(state["finished"]) and (reached or self._is_over())

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the log so far."""
        return read_metrics(self.log.path)


def _is_sparse(optimizer: torch.optim.Optimizer) -> bool:
    return "world_size" in optimizer.defaults


def _has_gradient(optimizer: torch.optim.Optimizer) -> bool:
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def _refuse_changes(saved: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> None:
    for key in saved.keys() | asked.keys():
        was, now = saved.get(key), asked.get(key)
        if was == now or f"{prefix}{key}" in FREE_TO_CHANGE:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            _refuse_changes(was, now, f"{prefix}{key}.")
            continue
        raise UserError(f"resume=true: {prefix}{key} was {was!r} and is {now!r} now")
