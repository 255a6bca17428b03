"""The series' configurations compose at each scale and differ where the document says so."""

from functools import cache

import pytest

from hrm.commands.compare import mode_settings
from hrm.compare.plan import EXPERIMENTS, SERIES
from hrm.config import ExperimentConfig, compose, config_dir

NAMES = ["arc_encoder", *EXPERIMENTS]


@cache
def composed(name: str, scale: str) -> ExperimentConfig:
    return compose([f"experiment={name}", f"scale={scale}"])


def changes(a: ExperimentConfig, b: ExperimentConfig) -> set[str]:
    first, second = a.model_dump(), b.model_dump()
    arches = first.pop("arch"), second.pop("arch")
    found = {key for key in first if first[key] != second[key]} - {"experiment_name"}
    return found | {f"arch.{key}" for key in arches[0] if arches[0][key] != arches[1][key]}


@pytest.mark.parametrize("scale", ["full", "cpu"])
@pytest.mark.parametrize("name", [*NAMES, "arc_decoder", "arc_trm"])
def test_every_experiment_composes(name: str, scale: str) -> None:
    config = composed(name, scale)
    assert config.experiment_name == name
    assert config.arch["hidden_size"] == {"full": 512, "cpu": 64}[scale]
    assert config.data.prepare is not None
    assert config.data.prepare["kind"] == "arc"
    assert config.data.prepare.get("max_grid", 30) == {"full": 30, "cpu": 10}[scale]


@pytest.mark.parametrize("scale", ["full", "cpu"])
def test_experiments_differ_in_what_they_vary_alone(scale: str) -> None:
    configs = {n: composed(n, scale) for n in EXPERIMENTS}
    for name in ("O2", "O3"):
        assert changes(configs["O1"], configs[name]) == {"arch.halt_exploration_prob"}
    for name in ("L2", "L3"):
        assert changes(configs["L1"], configs[name]) == {"num_act_steps"}
    modes = {"dynamics", "num_act_steps", "arch.context"}
    assert changes(configs["O1"], configs["L1"]) == modes
    assert changes(configs["E1"], configs["E2"]) == {"arch.encoder_type"}
    for name in SERIES["E"]:
        found = changes(configs["O1"], configs[name])
        assert {k for k in found if not k.startswith("arch.encoder_")} <= {"global_batch_size"}


@pytest.mark.parametrize("name", NAMES)
def test_on_a_cpu_no_measurement_compiles_some_runs_and_not_others(name: str) -> None:
    assert composed(name, "cpu").compile is False


def test_the_documents_figures_stand_in_the_full_size() -> None:
    o1, e1 = composed("O1", "full"), composed("E1", "full")
    assert (o1.max_train_groups, o1.max_eval_groups) == (32, 32)
    assert (o1.epochs, o1.eval_interval, o1.grad_clip_norm) == (20000, 5000, 1.0)
    rates = [composed(f"O{i}", "full").arch["halt_exploration_prob"] for i in (1, 2, 3)]
    assert rates == [0.5, 0.3, 0.7]
    assert [composed(f"L{i}", "full").num_act_steps for i in (1, 2, 3)] == [4, 8, 16]
    assert e1.global_batch_size == 128
    assert e1.arch["encoder_num_layers"] == 4
    assert e1.arch["encoder_norm_style"] == "pre"
    assert e1.arch["encoder_set_layers"] == 2


@pytest.mark.parametrize(("leader", "scale"), [("O2", "full"), ("L1", "full"), ("L3", "cpu")])
def test_an_encoder_takes_over_the_leaders_mode(leader: str, scale: str) -> None:
    best, size = composed(leader, scale), composed("E1", scale).global_batch_size
    mode = mode_settings(best)
    config = compose(["experiment=E1", f"scale={scale}", *mode])
    found = changes(best, config) - {"global_batch_size"}
    assert all(key.startswith("arch.encoder_") for key in found)
    assert config.global_batch_size == size


@pytest.mark.parametrize("scale", ["full", "cpu"])
def test_the_decoder_fits_the_model_that_takes_it_over(scale: str) -> None:
    decoder, model = composed("arc_decoder", scale), composed("O1", scale)
    shared = decoder.arch.keys() & model.arch.keys() - {"name", "halt_exploration_prob"}
    assert {k: decoder.arch[k] for k in shared} == {k: model.arch[k] for k in shared}
    assert decoder.arch["puzzle_emb_len"] == model.arch["context_tokens"]
    # What the model's data hold out the decoder must not have seen.
    held, seen = model.data.prepare, decoder.data.prepare
    assert held is not None
    assert seen is not None
    assert seen["leave_out_groups"] == held["val_groups"]
    assert seen["max_eval_groups"] == 0
    assert seen["seed"] == held["seed"]
    assert seen.get("max_grid") == held.get("max_grid")


@pytest.mark.parametrize("scale", ["full", "cpu"])
def test_puzzle_embeddings_are_asked_about_the_same_tasks(scale: str) -> None:
    model, beside = composed("O1", scale), composed("arc_trm", scale)
    mine, theirs = model.data.prepare, beside.data.prepare
    assert mine is not None
    assert theirs is not None
    for key in ("source", "seed", "val_groups", "max_grid", "max_eval_groups"):
        assert mine.get(key) == theirs.get(key), key
    assert theirs["max_train_groups"] == model.max_train_groups
    assert beside.max_train_groups is None


def test_sizes_are_of_experiments_that_there_are() -> None:
    known = {path.stem for path in (config_dir() / "experiment").glob("*.yaml")}
    for path in (config_dir() / "sizes").glob("*.yaml"):
        name, _, scale = path.stem.rpartition("_")
        assert name in known | {"arc"}
        assert scale == "cpu"
