"""Settings: defaults, and contradictions refused by the name of the key."""

import pytest
from pydantic import ValidationError

from hrm.errors import UserError
from hrm.halting import Fixed, HaltOnly, QLearning
from hrm.models import TRM, HRMACTv1, HRMACTv1Config
from tests.models.helpers import SMALL, small_batch, small_hrm, small_trm


def test_published_defaults() -> None:
    config = small_hrm().config
    assert isinstance(config, HRMACTv1Config)
    assert (config.expansion, config.rms_norm_eps, config.rope_theta) == (4.0, 1e-5, 10000.0)
    assert (config.puzzle_emb_ndim, config.halt_exploration_prob) == (0, 0.1)
    assert config.grad_cycles is None
    fields = HRMACTv1Config.model_fields
    assert fields["forward_dtype"].default == "bfloat16"
    assert fields["ffn_multiple"].default == 256


def test_a_config_object_does_as_well_as_a_dict() -> None:
    config = HRMACTv1Config(**SMALL, H_layers=1)
    assert HRMACTv1(config).config is config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "num_heads: 3 heads do not divide hidden_size 16"),
        ({"hidden_size": 18, "num_heads": 2}, "odd head dimension 9"),
        ({"halt_max_steps": 0}, "halt_max_steps"),
        ({"halt_exploration_prob": 1.5}, "halt_exploration_prob"),
        ({"pos_encodings": "sinus"}, "pos_encodings"),
        ({"forward_dtype": "float8"}, "forward_dtype"),
        ({"H_cycle": 2}, "H_cycle"),
        ({"grad_cycles": 0}, "grad_cycles"),
        ({"train_max_steps": 4}, "train_max_steps: 4 is above halt_max_steps 3"),
    ],
)
def test_contradictions_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_hrm(**changes)


def test_an_odd_head_dimension_is_fine_without_rotary() -> None:
    small_hrm(hidden_size=18, num_heads=2, pos_encodings="learned")


def test_halting_policies() -> None:
    assert isinstance(small_hrm().halting, QLearning)
    assert isinstance(small_hrm(continue_target="none").halting, HaltOnly)
    assert isinstance(small_trm().halting, HaltOnly)
    assert isinstance(small_hrm(halting="fixed").halting, Fixed)
    model = TRM({**SMALL, "halting": "q_learning", "continue_target": "bootstrap"})
    assert isinstance(model.halting, QLearning)


@pytest.mark.parametrize("model", [small_hrm(), small_trm()], ids=["hrm", "trm"])
def test_inputs_of_another_length_are_refused(model: HRMACTv1) -> None:
    with pytest.raises(UserError, match=r"shape \(4, 7\), but the model reads \(slots, 6\)"):
        model.initial_carry(small_batch(seq_len=7))


def test_puzzle_emb_is_absent_without_width() -> None:
    with pytest.raises(AttributeError):
        _ = small_hrm().puzzle_emb
