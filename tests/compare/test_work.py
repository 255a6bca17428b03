"""The work of a run, counted by one sequence, is what its updates multiply."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.benchmarking.products import count_products
from hrm.commands.train import make_trainer
from hrm.compare.work import Work, work_of
from hrm.data import Demonstrations, load_split, write_dataset
from tests.training.conftest import composed
from tests.training.tasks import COLOURS, SIDE, permutations, tasks, write_tasks

SLOTS = 4
SETTINGS = (
    *("arch.hidden_size=16", "arch.num_heads=2", "arch.H_cycles=2", "arch.L_cycles=2"),
    *(f"global_batch_size={SLOTS}", "max_steps=4", "plots=false", "progress=false"),
)
SMALL = ("arch=etrm_small", "arch.encoder_num_layers=1", "arch.context_tokens=2", *SETTINGS)
ONLINE = ("dynamics=online", "num_act_steps=2", "arch.context=reencode")
VARIATIONAL = ("arch.encoder_type=hybrid_variational",)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("work") / "toy", train=6, held_out=3)


def counted(settings: tuple[str, ...], out: Path) -> tuple[dict[str, Any], float, float]:
    """A run's settings, and what its first two updates multiply and add."""
    config = composed(settings, f"out={out}")
    trainer = make_trainer(config)
    first, second = (count_products(trainer.update).operations / 2 for _ in range(2))
    return config.model_dump(mode="json"), first, second


@pytest.mark.parametrize("more", [(), VARIATIONAL], ids=["standard", "variational"])
def test_an_update_is_a_step_of_all_slots_and_its_encoder_passes(
    toy: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    words = (*SMALL, *more, f"data.path={toy}")
    settings, first, second = counted((*words, *ONLINE), tmp_path / "online")
    work = work_of(settings)
    assert work is not None
    assert first == second == pytest.approx(SLOTS * (work.step + work.encoding))
    # All slots are filled at first; nobody halts at the first of 8 steps with an untrained head.
    cached = (*words, "dynamics=persistent", "arch.context=cache", "arch.halt_max_steps=8")
    settings, first, second = counted(cached, tmp_path / "persistent")
    assert work_of(settings) == work
    assert first == pytest.approx(SLOTS * (work.step + work.encoding))
    assert second == pytest.approx(SLOTS * work.step)


def test_a_model_without_encoder_has_no_encoder_passes(toy: Path, tmp_path: Path) -> None:
    words = ("arch=trm_small", "arch.forward_dtype=float32", *SETTINGS, f"data.path={toy}")
    online = (*words, "dynamics=online", "num_act_steps=2")
    settings, first, _ = counted(online, tmp_path / "trm")
    work = work_of(settings)
    assert work is not None
    assert work.encoding == 0
    assert first == pytest.approx(SLOTS * work.step)


def test_encoder_passes_follow_the_mean_number_of_demonstrations(toy: Path, tmp_path: Path) -> None:
    """One task shows three demonstrations and the other one, so two in the mean."""
    whole = tasks(permutations()[:2], 1, 1)
    assert whole.demonstrations is not None
    shown = whole.demonstrations
    few = Demonstrations(shown.inputs[:4], shown.outputs[:4], np.array([0, 3, 4], dtype=np.int32))
    root = tmp_path / "uneven"
    splits: dict[Any, Any] = {
        "train": replace(whole, demonstrations=few),
        "val": tasks(permutations()[2:3], 1, 2),
    }
    write_dataset(
        root, splits, vocab_size=COLOURS + 2, identifiers=["<blank>", "a", "b"], grid=SIDE
    )
    assert load_split(root, "train").metadata.demonstrations == 3
    work: dict[str, Work] = {}
    for name, path, groups in (("one", root, 2), ("first", root, 1), ("toy", toy, 6)):
        words = (*SMALL, f"data.path={path}", f"max_train_groups={groups}")
        found = work_of(composed(words, f"out={tmp_path / name}").model_dump(mode="json"))
        assert found is not None
        work[name] = found
    # The first task alone, and all of the toy's, show three.
    assert work["first"].encoding == pytest.approx(work["toy"].encoding)
    assert 0.6 < work["one"].encoding / work["first"].encoding < 0.75
    assert work["one"].step == work["first"].step


def test_work_that_cannot_be_counted_is_not_known(toy: Path, tmp_path: Path) -> None:
    words = (*SMALL, f"data.path={toy}")
    settings = composed(words, f"out={tmp_path / 'a'}").model_dump(mode="json")
    assert work_of(settings) is not None
    assert work_of(settings | {"data": {"path": str(tmp_path / "nowhere")}}) is None
    # An episode's batch shrinks as its sequences end.
    assert work_of(settings | {"dynamics": "episode"}) is None
