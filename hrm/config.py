"""The schema of an experiment: Hydra composes the keys, this checks them, one sentence an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hrm.data.base import Metadata
from hrm.errors import UserError, nearest, sentence
from hrm.models.act import ACTModel
from hrm.models.registry import MODELS
from hrm.token_loss import TokenLoss

DynamicsName = Literal["persistent", "online", "episode", "rollout"]

_STEPWISE: tuple[DynamicsName, ...] = ("persistent", "online", "episode")
REFUSED: dict[tuple[str, DynamicsName], str] = {
    ("fixed", "episode"): "no sequence ever leaves the batch, which is what dynamics=online does",
    (
        "q_learning",
        "rollout",
    ): "its continue value learns from one more step, which a trajectory of "
    "all steps does not take; halting=halt_only has the same halting value",
    **{
        (policy, dynamics): "it learns from whole trajectories, which dynamics=rollout has"
        for policy in ("dual_value", "graves", "pondernet")
        for dynamics in _STEPWISE
    },
}
"""Pairs of a halting policy and a dynamics that make no sense together, with the reason."""


ENCODER_KEYS = (
    "encoder_lr",
    "kl_weight",
    "kl_anneal_steps",
    "freeze_decoder_steps",
    "freeze_encoder_steps",
    "load_pretrained_decoder",
)
"""Keys of models that encode demonstrations."""


class OptimizerConfig(BaseModel):
    """Optimizer, schedule and clipping; names and meanings as published where those exist."""

    model_config = ConfigDict(extra="forbid")

    optimizer: Literal["adamw", "adam_atan2", "muon"] = "adamw"
    """`adam_atan2` is that of the published recipes; `muon` takes the matrices of the layers and
    leaves embeddings, heads and biases to AdamW."""
    lr: float = Field(default=1e-4, gt=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_min_ratio: float = Field(default=0.0, ge=0, le=1)
    """Cosine ends at this share of `lr`."""
    lr_warmup_steps: int = Field(default=0, ge=0)
    """Updates of linear warm-up."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.1, ge=0)
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    head_lr: float | None = Field(default=None, gt=0)
    """Rate of the value functions that an act_unet's policy learns; null: `lr`."""
    head_lr_schedule: Literal["constant", "cosine"] | None = None
    """Theirs; null: `lr_schedule`. They begin where the trunk's rate is already falling, so that a
    constant one lets them learn to the end."""
    encoder_lr: float | None = Field(default=None, gt=0)
    """Rate of the encoder of a model that has one; null: `lr`."""
    puzzle_emb_lr: float = Field(default=1e-2, ge=0)
    puzzle_emb_weight_decay: float = Field(default=0.1, ge=0)
    grad_clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of all gradients together, of a model with value functions of the trunk's and of
    each of theirs; null: no clipping. A part that stands still counts by itself."""


class DataConfig(BaseModel):
    """Where the rows come from."""

    model_config = ConfigDict(extra="forbid")

    path: str
    """Folder with `train/` and `test/` in the published layout, and maybe `val/`."""
    augment: Literal["none", "sudoku", "dihedral", "arc"] = "none"
    """Symmetries applied to every row as it is drawn, beside copies that were built ahead: those of
    Sudoku, of the square for images, or of ARC (`hrm.data.arc.ArcAugment`)."""
    sampling: Literal["rows", "groups"] = "rows"
    """An epoch is every row once, or one random row of every group (published)."""
    easy_first: float = Field(default=0.0, ge=0, le=1)
    """A curriculum on difficulty, where the set tells it: how far the first epoch goes from easy
    rows to hard ones instead of by chance. Every row is still drawn once."""
    prepare: dict[str, Any] | None = None
    """How to build the set when `path` is missing: `kind` (default sudoku) and the keys of
    `hrm prepare KIND`."""


class ExperimentConfig(OptimizerConfig):
    """All of a training run. Its optimizer settings stand at the top level, as published."""

    model_config = ConfigDict(extra="forbid")

    experiment_name: str = "custom"
    arch: dict[str, Any]
    """`name` (hrm or trm) and that model's settings."""
    data: DataConfig
    dynamics: DynamicsName = "persistent"
    """How a batch becomes updates. `persistent` (published): one forward and one update, the carry
    lives on. `online`: a fresh carry and `num_act_steps` forwards, each with an update; nothing
    halts in training. `episode` (HRM's pseudocode): a fresh carry and forwards with an update each
    until every sequence has halted; those that have leave the batch. `rollout`: a fresh carry and a
    trajectory of all steps, with gradient through all of it, and one update."""
    num_act_steps: int | None = Field(default=None, ge=1)
    """Steps of a batch under `online`; null: the model's step limit in training."""

    stagger: bool = False
    """Under `persistent` (others start every batch anew): the first sequences start at random ages,
    so that slots do not march in step, all exchanged at once, while nothing halts early yet."""

    seed: int = Field(default=0, ge=0)
    global_batch_size: int = Field(ge=1)
    """Slots, of all processes together."""
    grad_accumulation: int = Field(default=1, ge=1)
    """Micro-batches an update; equals one batch of all of them. Each process has its share of each
    micro-batch."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the data; null: until max_steps."""
    max_steps: int | None = Field(default=None, ge=1)
    """Most updates; null: until the epochs are over."""
    step_curriculum: list[tuple[int, int]] = Field(default_factory=list)
    """Pairs of an update and the most steps of a sequence in training from that update on
    (`arch.train_max_steps` until the first). Few steps at first teach a small model fastest, more
    later polish it."""
    loss: TokenLoss = "stablemax"
    kl_weight: float = Field(default=1e-4, ge=0)
    """What a nat of a variational encoder's divergence from N(0, 1), summed over the latent, costs
    beside a sequence's mean token loss. It is counted where a sequence is encoded. No document
    names a figure."""
    kl_anneal_steps: int = Field(default=0, ge=0)
    """Updates over which that weight rises from 0, by equal steps; 0: it holds at once."""
    freeze_decoder_steps: int = Field(default=0, ge=0)
    """Updates at the start in which all but the encoder stands still: the rate is 0, schedule and
    moments go on."""
    freeze_encoder_steps: int = Field(default=0, ge=0)
    """The same of the encoder."""
    load_pretrained_decoder: str | None = None
    """Where the weights of an etrm's decoder come from (`hrm.models.pretrained_decoder`): a run, a
    checkpoint, an exported model, a published folder or file of TRM. Puzzle embeddings and an
    encoder are left out."""
    ema: bool = True
    ema_rate: float = Field(default=0.999, ge=0, lt=1)

    max_train_groups: int | None = Field(default=None, ge=1)
    """Train on the first so many groups (puzzles, each with its augmentations); null: all."""
    max_eval_groups: int | None = Field(default=None, ge=1)
    """Look at the first so many groups while training, and in `hrm evaluate` of that split unless
    it is told otherwise; null: all."""

    eval_every_steps: int | None = Field(default=None, ge=1)
    """Evaluate after every so many updates; null: at the end only."""
    eval_interval: int | None = Field(default=None, ge=1)
    """Evaluate, too, whenever so many epochs are over, as the published recipes have it."""
    eval_split: Literal["val", "test"] = "val"
    """What is looked at while training. Choose on `val`, report `test`."""
    eval_count: int | None = Field(default=None, ge=1)
    """Rows of it; null: all."""
    eval_batch_size: int = Field(default=256, ge=1)
    eval_halting: Literal["max_steps", "adaptive"] = "max_steps"
    """Every row to the last step (published), or each until the policy halts it, through the
    engine: several times faster with a policy that halts, and then the figures are those there."""
    stop_at_exact_accuracy: float | None = Field(default=None, gt=0, le=1)
    """End the run once an evaluation reaches this."""
    stop_after_s: float | None = Field(default=None, gt=0)
    """End the run after so many seconds of training (evaluations not counted)."""

    log_every_steps: int = Field(default=10, ge=1)
    checkpoint_every_steps: int | None = Field(default=None, ge=1)
    """null: after each evaluation. There is always one at the end."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """The newest so many."""
    keep_best: str | None = None
    """A figure of the evaluation, as `exact_accuracy` or `halting/cost`: the checkpoint where that
    was best is kept beside the newest, and the run's folder stands for it when it is evaluated or
    used. Of costs, losses, regrets, errors and steps less is better."""
    init_from: str | None = None
    """A run, checkpoint or model whose weights this one starts from, as far as names and shapes
    agree; null: new weights."""
    learn: Literal["everything", "halting"] = "everything"
    """halting: only what halts learns, from new weights, on a network that stays as `init_from`
    gave it."""
    out: str | None = None
    """The run's folder; null: a new one under runs/."""
    resume: bool = False
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; of several processes each has a GPU of its own."""
    compile: bool | Literal["auto"] = "auto"
    """Layers through torch.compile. `auto`: on a GPU yes; on a CPU, in runs of more than ten
    minutes, if a short measurement on this machine finds them faster."""
    progress: bool = True
    plots: bool = True
    tensorboard: bool = False
    """Also write TensorBoard events to the run's folder (extra `tensorboard`)."""
    wandb: bool = False
    """Also log to Weights & Biases (extra `wandb`), files under the run's folder. Offline, to be
    sent by `wandb sync`, unless there is a login; WANDB_MODE says otherwise."""
    trackio: bool = False
    """Also log to Trackio (extra `trackio`): under the run's folder, which
    `TRACKIO_DIR=OUT/trackio trackio show` shows, or in a TRACKIO_DIR that is set while training,
    where several runs stand side by side."""
    run_name: str | None = None
    """In the sinks' lists, on the progress line and in the folder that `out=null` makes; null: the
    folder's name, and the experiment's."""
    project_name: str | None = None
    """Of W&B and Trackio; null: hrm."""

    @field_validator("keep_best")
    @classmethod
    def _check_keep_best(cls, figure: str | None) -> str | None:
        if figure is not None and figure.startswith("eval/"):
            raise ValueError(f"got {figure!r}; it is a figure of the evaluation without eval/")
        return figure

    @field_validator("arch")
    @classmethod
    def _check_arch(cls, arch: dict[str, Any]) -> dict[str, Any]:
        settings = dict(arch)
        name = settings.pop("name", None)
        if name not in MODELS:
            raise ValueError(f"name: got {name!r}, may be one of {', '.join(MODELS)}")
        schema = MODELS[name].config_type
        for key in schema.from_data:
            if key in settings:
                raise ValueError(f"{key}: is read from the data and cannot be set")
        schema(**schema.from_data, **settings)
        return arch

    def step_limit(self, step: int) -> int | None:
        """Most steps of a sequence in training after update `step`; None: as the model has it."""
        due = [pair for pair in self.step_curriculum if pair[0] <= step]
        return max(due)[1] if due else self.num_act_steps

    def kl_weight_at(self, step: int) -> float:
        """`kl_weight` after update `step`, as far as it has risen."""
        risen = step / self.kl_anneal_steps if self.kl_anneal_steps else 1.0
        return self.kl_weight * min(1.0, risen)

    def frozen_at(self, step: int) -> frozenset[str]:
        """The model's parameter groups that stand still after update `step`."""
        until = {"trunk": self.freeze_decoder_steps, "encoder": self.freeze_encoder_steps}
        return frozenset(group for group, steps in until.items() if step < steps)

    def check_together(self) -> None:
        """What two keys say together.

        Raises:
            UserError: neither `epochs` nor `max_steps`, or a batch that does not divide.
        """
        self._check_encoder()
        if self.epochs is None and self.max_steps is None:
            raise UserError("epochs, max_steps: both are null; set one, so that the run ends")
        for update, limit in self.step_curriculum:
            if update < 0 or not 1 <= limit <= self.arch["halt_max_steps"]:
                raise UserError(
                    f"step_curriculum: [{update}, {limit}] is wrong; updates are 0 or more and "
                    f"steps 1 to arch.halt_max_steps ({self.arch['halt_max_steps']})"
                )
        if self.num_act_steps is not None:
            if self.dynamics != "online":
                raise UserError(f"num_act_steps: dynamics={self.dynamics} does not read it")
            if self.num_act_steps > self.arch["halt_max_steps"]:
                raise UserError(
                    f"num_act_steps: {self.num_act_steps} is above arch.halt_max_steps "
                    f"({self.arch['halt_max_steps']})"
                )
        if (self.arch.get("halting"), self.dynamics) in REFUSED:
            reason = REFUSED[self.arch["halting"], self.dynamics]
            raise UserError(
                f"arch.halting={self.arch['halting']} with dynamics={self.dynamics}: {reason}"
            )
        if self.learn == "halting":
            if self.init_from is None:
                raise UserError("learn=halting: give init_from=RUN, the network that is to halt")
            if self.arch.get("warmup_updates"):
                raise UserError(
                    "arch.warmup_updates: with learn=halting there is no task to learn first; set 0"
                )
        if self.resume and self.out is None:
            raise UserError("resume=true: give out=DIR, the folder of the run to go on with")
        if self.global_batch_size % self.grad_accumulation:
            raise UserError(
                f"grad_accumulation: {self.grad_accumulation} does not divide global_batch_size "
                f"{self.global_batch_size}"
            )

    def _check_encoder(self) -> None:
        name = self.arch["name"]
        for key in ENCODER_KEYS:
            default = type(self).model_fields[key].default
            if getattr(self, key) != default and not MODELS[name].has_encoder:
                raise UserError(
                    f"{key}: arch={name} has no encoder of demonstrations; leave it at {default}"
                )
        if self.load_pretrained_decoder is not None and self.init_from is not None:
            raise UserError(
                "load_pretrained_decoder, init_from: both say where the decoder's weights come "
                "from; give one of them"
            )
        frozen = self.frozen_at(0)
        if len(frozen) > 1:
            raise UserError(
                f"freeze_decoder_steps, freeze_encoder_steps: {self.freeze_decoder_steps} and "
                f"{self.freeze_encoder_steps} leave nothing to learn at first; one of them is 0"
            )


def config_dir() -> Path:
    """The folder of the shipped configurations: inside an installed package, or the checkout's."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def compose(overrides: Sequence[str], config_name: str = "train") -> ExperimentConfig:
    """The experiment that the overrides describe, checked.

    Raises:
        UserError: for anything wrong in them, naming the key.
    """
    return validate(compose_dict(overrides, config_name))


def compose_dict(overrides: Sequence[str], config_name: str = "train") -> dict[str, Any]:
    """Hydra's composition as plain values; its errors as one sentence."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    directory = config_dir()
    try:
        with initialize_config_dir(str(directory.resolve()), version_base="1.3"):
            composed = hydra_compose(config_name, overrides=_for_hydra(overrides, directory))
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_hydra_sentence(error, overrides, directory)) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _for_hydra(overrides: Sequence[str], directory: Path) -> list[str]:
    """The overrides, `+key` as "add or set": Hydra's own `+` refuses a key that is listed.

    A key that is no setting is refused by the schema all the same.
    """
    groups = _groups(directory)
    found = []
    for word in overrides:
        key = word.partition("=")[0]
        if key.lstrip("+") in groups:
            found.append(word.lstrip("+"))
        else:
            found.append(f"+{word}" if key.startswith("+") and key[1:2] != "+" else word)
    return found


def _groups(directory: Path) -> list[str]:
    """Folders of files to choose from; `sizes` follows from experiment and scale."""
    return sorted(p.name for p in directory.iterdir() if p.is_dir() and p.name != "sizes")


def _hydra_sentence(error: Exception, overrides: Sequence[str], directory: Path) -> str:
    """Hydra's message, which may span lines and quote paths, as one sentence with the nearest."""
    text = str(error)
    if found := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, name = found.groups()
        known = sorted(path.stem for path in (directory / group).glob("*.yaml"))
        return f"{group}={name}: unknown{nearest(name, known)} (there are {', '.join(known)})"
    if found := re.search(r"Missing mandatory value.*?full_key: (\S+)", text, re.DOTALL):
        return f"{found.group(1)}: missing; give it as {found.group(1)}=..., or experiment=NAME"
    if found := re.search(r"Could not override '([^']*)'", text):
        key = found.group(1)
        return f"{key}: unknown key{_hint(key)}"
    first = " ".join(line.strip() for line in text.splitlines() if line.strip())
    first = first.partition(" See http")[0]
    culprit = next((o for o in overrides if o in first), None)
    return first if culprit else f"{first} (in: {' '.join(overrides) or 'no overrides'})"


def _hint(key: str) -> str:
    """What an unknown key may mean: one of another model, in another place, or misspelt."""
    parent, _, leaf = key.rpartition(".")
    schemas = {name: model.config_type for name, model in MODELS.items()}
    if parent == "arch":
        if any(leaf in schema.from_data for schema in schemas.values()):
            return "; it is read from the data"
        if owners := [name for name, schema in schemas.items() if leaf in schema.model_fields]:
            return f"; it is a setting of {', '.join(owners)}"
    known = {
        "": [*ExperimentConfig.model_fields, *_groups(config_dir())],
        "data": list(DataConfig.model_fields),
        "arch": [field for schema in schemas.values() for field in schema.model_fields],
    }
    if parent not in known:
        return ""
    for place, names in known.items():
        if place != parent and leaf in names:
            return f"; did you mean '{place}.{leaf}'?" if place else f"; did you mean '{leaf}'?"
    hint = nearest(leaf, known[parent])
    return hint.replace("'", f"'{parent}.", 1) if hint and parent else hint


def validate(values: dict[str, Any]) -> ExperimentConfig:
    """Check plain values against the schema; the first fault as one sentence."""
    try:
        config = ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(sentence(error, hint=_hint)) from None
    config.check_together()
    return config


def sizes_of_data(arch: Mapping[str, Any], data: Metadata, batch_size: int) -> dict[str, Any]:
    """What data and batch decide about the model of `arch`: what `build_model` needs beside it.

    Raises:
        UserError: such a model cannot learn from such data.
    """
    return {"batch_size": batch_size, **MODELS[arch["name"]].config_type.read_data(data)}


def build_model(arch: dict[str, Any], **from_data: Any) -> ACTModel:
    """The model of `arch` for data of these sizes (`sizes_of_data`)."""
    settings = {key: value for key, value in arch.items() if key != "name"}
    try:
        return MODELS[arch["name"]]({**settings, **from_data})
    except ValidationError as error:
        raise UserError(sentence(error, "arch", hint=_hint)) from None


def planned_updates(config: ExperimentConfig, rows: int | None) -> float:
    """Most updates that the run can take: that many if no sequence halts early."""
    a_row = 1 if config.dynamics == "rollout" else config.arch["halt_max_steps"]
    by_rows = math.inf if rows is None else rows * a_row / config.global_batch_size
    return min(by_rows, config.max_steps or math.inf)
