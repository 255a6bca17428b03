"""`pretrain_encoder.py` and `pretrain_encoder_original.py`: `hrm train` under the document's names.

    torchrun --nproc-per-node N pretrain_encoder.py --config-name NAME key=value ...

Settings are Hydra's, as in `hrm train`. `arch.num_act_steps=N` is the document's name of
`num_act_steps=N`. Any experiment trains in the mode of the script's
configuration, with settings of that mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hrm.commands.train import show_settings, train
from hrm.config import ExperimentConfig, compose_dict, config_dir, validate
from hrm.errors import UserError, nearest
from hrm.models.registry import MODELS

HELP = """usage: {script} [--config-name NAME] [key=value ...]

TRM with an encoder on ARC-AGI-1, {mode} mode. Settings are those of hrm train; under torchrun
several processes share each batch.
  --config-name NAME   default {default}
  experiment=NAME      O1 O2 O3, L1 L2 L3, E1 E2 E3, all in this mode; scale=cpu for a small machine
  load_pretrained_decoder=RUN  max_train_groups=N  max_eval_groups=N  epochs=N  max_steps=N
  eval_interval=N (in epochs)  global_batch_size=N  grad_clip_norm=X  seed=N  out=DIR  resume=true
  arch.encoder_type=NAME  arch.num_act_steps=N  arch.halt_exploration_prob=X  ...
  --cfg                print the composed settings and stop

example: torchrun --nproc-per-node 4 {script} --config-name {default} {example}"""

ONLINE = "cfg_pretrain_encoder_arc_agi_1"
ORIGINAL = "cfg_pretrain_encoder_original_arc_agi_1"

RENAMED = {"arch.num_act_steps": "num_act_steps"}
"""The document's names of settings, and what they are here."""


def run_online(arguments: list[str]) -> int:
    """`pretrain_encoder.py`."""
    return _run(arguments, "pretrain_encoder.py", ONLINE, "online", "arch.num_act_steps=4")


def run_original(arguments: list[str]) -> int:
    """`pretrain_encoder_original.py`."""
    script = "pretrain_encoder_original.py"
    return _run(arguments, script, ORIGINAL, "original", "arch.halt_exploration_prob=0.5")


def _run(arguments: list[str], script: str, default: str, mode: str, example: str) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP.format(script=script, default=default, mode=mode, example=example))
        return 0
    name, rest = config_name(arguments, default)
    shows = "--cfg" in rest
    config = settings(overrides(a for a in rest if a != "--cfg"), name)
    return show_settings(config) if shows else train(config)


def settings(words: Sequence[str], name: str) -> ExperimentConfig:
    """The experiment that Hydra's overrides `words` make of configuration `name`, checked.

    Online, one that names no number of steps takes L1's: a quarter of the most steps.

    Raises:
        UserError: for anything wrong in them, naming the key, or a model without an encoder.
    """
    values = compose_dict(words, name)
    model = values["arch"].get("name")
    if model in MODELS and not MODELS[model].has_encoder:
        able = ", ".join(known for known in MODELS if MODELS[known].has_encoder)
        raise UserError(
            f"arch: {model} has no encoder of demonstrations, which these scripts train; give an "
            f"experiment or arch with one ({able}), or use hrm train"
        )
    config = validate(values)
    told = any(word.lstrip("+").startswith("num_act_steps=") for word in words)
    if config.dynamics != "online" or config.num_act_steps is not None or told:
        return config
    steps = max(1, int(config.arch["halt_max_steps"]) // 4)
    return config.model_copy(update={"num_act_steps": steps})


def config_name(arguments: Sequence[str], default: str) -> tuple[str, list[str]]:
    """The name that `--config-name` gives, or the default, and the other arguments.

    Raises:
        UserError: there is no such configuration.
    """
    name, rest, words = default, [], iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in ("--config-name", "-cn"):
            rest.append(word)
            continue
        name = value if equals else next(words, "")
        if not name or name.startswith("-"):
            raise UserError(f"{flag}: give a name")
    name = name.removesuffix(".yaml")
    known = [path.stem for path in config_dir().glob("cfg_*.yaml")]
    if name not in known:
        raise UserError(
            f"--config-name {name}: unknown{nearest(name, known)} (there are "
            f"{', '.join(sorted(known))})"
        )
    return name, rest


def overrides(words: Iterable[str]) -> list[str]:
    """Hydra's overrides, the document's names replaced.

    Raises:
        UserError: a word is no setting.
    """
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-") or not equals:
            raise UserError(f"{word}: settings are given as key=value")
        sign = key[: len(key) - len(key.lstrip("+~"))]
        key = key.removeprefix(sign)
        found.append(f"{sign}{RENAMED.get(key, key)}={value}")
    return found
