"""The ACT U-Net: its recursion, what an admission touches, heads, gradients, sizes, operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hrm.carry import Carry
from hrm.config import build_model, sizes_of_data
from hrm.data.base import ImageMetadata, Metadata
from hrm.errors import UserError
from hrm.halting import Convergence, DualValue, Fixed, Graves, HaltOnly, PonderNet, QLearning
from hrm.inference import solve
from hrm.models import ACTUNet, from_pretrained, save_pretrained
from hrm.models.act_unet import CONTRIBUTED, X0
from hrm.models.unet.core import State
from tests.models.helpers import UNET, image_batch, small_hrm, small_trm, small_unet

POLICIES = {
    "dual_value": DualValue,
    "graves": Graves,
    "pondernet": PonderNet,
    "halt_only": HaltOnly,
    "convergence": Convergence,
    "fixed": Fixed,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "full attention": {"window": None},
    "full decoder": {"decoder": "full"},
    "conv": {"core": "conv", "window": None},
    "everything": {"local_conv": True, "global_pool": True, "core_layers": 2},
    "bare": {"gate": False, "inject": False},
}


def run(model: ACTUNet, batch: dict[str, Tensor], steps: int, **options: Any) -> tuple[Carry, list]:
    carry = model.initial_carry(batch, seed=0)
    taken = []
    for _ in range(steps):
        carry, outputs = model(carry, batch, **options)
        taken.append(outputs)
    return carry, taken


def awake(model: ACTUNet) -> ACTUNet:
    """With last layers of full scale, so that heads depend on their input."""
    with torch.no_grad():
        for head in (model.contribution, model.threshold, model.halt):
            if head is not None:
                head.last.weight *= 10
    return model


# -- sizes


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("height", "width", "downsamplings", "patch"), [(13, 17, 2, 2), (5, 9, 0, 3), (8, 8, 1, 1)]
)
def test_any_size_is_answered_pixel_by_pixel(
    variant: str, height: int, width: int, downsamplings: int, patch: int
) -> None:
    sizes = {"height": height, "width": width, "downsamplings": downsamplings, "patch_size": patch}
    model = small_unet(**sizes, **VARIANTS[variant])
    batch = image_batch(model, 2)
    carry, taken = run(model, batch, 2)
    side = 2**downsamplings * patch
    tokens = -(-height // side) * -(-width // side)
    assert carry.inner_carry.tokens.shape == (2, tokens, 16)
    assert carry.inner_carry.cls.shape == (2, 16)
    for outputs in taken:
        assert outputs["logits"].shape == (2, height * width, 3)
        assert torch.isfinite(outputs["logits"]).all()


def test_intensities_of_several_channels() -> None:
    model = small_unet(channels=3, vocab_size=256, values="intensity")
    batch = image_batch(model, 2)
    assert batch["inputs"].shape == (2, 3 * 64)
    planes = model.encoder.planes(batch["inputs"])
    torch.testing.assert_close(planes[1, 2, 3, 4], batch["inputs"][1, 2 * 64 + 3 * 8 + 4] / 255)
    assert run(model, batch, 1)[1][0]["logits"].shape == (2, 64, 3)


def test_symbols_become_channels_and_padding_none() -> None:
    model = small_unet(height=7, width=8, downsamplings=1)
    batch = image_batch(model, 2)
    planes = model.encoder.planes(batch["inputs"])
    assert planes.shape == (2, 4, 8, 8)
    symbols = batch["inputs"].view(2, 7, 8)
    assert torch.equal(planes[:, :, :7].argmax(1), symbols.long())
    assert planes[:, :, 7].eq(0).all()
    assert planes[:, :, :7].sum(1).eq(1).all()


@pytest.mark.parametrize("decoder", ["token", "full"])
def test_a_pixel_of_the_answer_stands_where_its_pixel_of_the_input_does(decoder: str) -> None:
    model = small_unet(height=8, width=12, decoder=decoder, patch_size=2, window=None).eval()
    with torch.no_grad():  # Only the features of the encoder speak.
        up = model.decoder.get_submodule("up" if decoder == "token" else "unpatch.conv")
        up.weight.zero_()
    batch = image_batch(model, 1)
    changed = {k: v.clone() for k, v in batch.items()}
    row, column = 2, 9
    changed["inputs"][0, row * 12 + column] ^= 1
    one, other = (model.encoder(b["inputs"])[1] for b in (batch, changed))
    # Norms see the whole image: the difference stands out where the pixel is.
    tokens = torch.zeros(1, 2 * 3, 16)
    answers = [model.decoder(tokens, model.decoder.prepare(f)) for f in (one, other)]
    difference = (answers[0] - answers[1]).abs().sum(-1).view(8, 12)
    where = divmod(int(difference.argmax()), 12)
    assert abs(where[0] - row) <= 1
    assert abs(where[1] - column) <= 1


def test_weights_do_not_depend_on_the_size_of_the_image() -> None:
    small, large = small_unet(), small_unet(height=20, width=11)
    large.load_state_dict(small.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 8}, "num_heads: hidden_size 16 is no multiple of 4 \\* 8"),
        ({"num_heads": 1, "window": 2}, "num_heads: 1 is odd"),
        ({"core": "conv"}, "window: got 2, but core=conv has no attention"),
        ({"train_max_steps": 9}, "train_max_steps: 9 is above halt_max_steps 5"),
        ({"temperature": [1.0, 0.0]}, "temperature: got"),
        ({"step_penalty": 0.0}, "step_penalty"),
        ({"downsamplings": -1}, "downsamplings"),
        ({"L_cycles": 3}, "L_cycles"),
        ({"seq_len": 64}, "seq_len"),
    ],
)
def test_contradictions_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_unet(**changes)


# -- the recursion


def test_without_gate_and_injection_a_step_is_the_core_and_nothing_else() -> None:
    model = small_unet(**VARIANTS["bare"], halting="fixed", halt_max_steps=4).eval()
    batch = image_batch(model)
    calls = {"core": 0, "layer": 0, "encoder": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    model.core.register_forward_hook(count("core"))
    model.core.layers[0].register_forward_hook(count("layer"))
    model.encoder.register_forward_hook(count("encoder"))
    carry, _ = run(model, batch, 4)
    assert calls == {"core": 4, "layer": 4, "encoder": 1}
    assert X0 not in carry.extra

    x0, _ = model.encoder(batch["inputs"])
    x = State(x0, model.core.first_cls.expand(4, -1)).joined()
    for _ in range(4):
        x = model.core.layers[0](x)
    torch.testing.assert_close(carry.inner_carry.joined(), x)


def test_the_input_is_added_at_every_step_where_that_is_set() -> None:
    model = small_unet(gate=False).eval()
    batch = image_batch(model)
    carry, _ = run(model, batch, 2)
    again, _ = model(carry, batch)
    carry.extra[X0] = torch.zeros_like(carry.extra[X0])
    without, _ = model(carry, batch)
    assert not torch.allclose(again.inner_carry.tokens, without.inner_carry.tokens)
    bare = model.core(carry.inner_carry.joined(), None)
    torch.testing.assert_close(without.inner_carry.joined(), bare)


def test_a_gate_that_is_shut_keeps_the_state() -> None:
    model = small_unet().eval()
    assert model.core.gate is not None
    assert model.core.gate.of_after.bias is not None
    with torch.no_grad():
        model.core.gate.of_after.bias.fill_(-100.0)
    carry, _ = run(model, image_batch(model), 1)
    after, _ = model(carry, image_batch(model))
    torch.testing.assert_close(after.inner_carry.joined(), carry.inner_carry.joined())


# -- admission


def test_only_admitted_slots_are_encoded_and_running_ones_stay_as_they_were() -> None:
    model = awake(small_unet()).eval()
    batch, other = image_batch(model, 5, seed=1), image_batch(model, 5, seed=2)
    carry, _ = run(model, batch, 2)
    undisturbed, outputs = model(carry, other)

    rows: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    halted = torch.tensor([False, True, False, True, False])
    carry.halted = halted
    refilled, mixed = model(carry, other)
    assert rows == [2]
    running = ~halted
    pairs = zip(refilled.named_tensors(), undisturbed.named_tensors(), strict=True)
    for (name, mine), (_, theirs) in pairs:
        torch.testing.assert_close(mine[running], theirs[running], msg=name)
    assert refilled.steps.tolist() == [3, 1, 3, 1, 3]

    fresh, first = run(model, other, 1)
    for name, mine in refilled.named_tensors():
        if name != "rng":
            theirs = dict(fresh.named_tensors())[name]
            torch.testing.assert_close(mine[halted], theirs[halted], msg=name)
    for name, values in mixed.items():
        torch.testing.assert_close(values[halted], first[0][name][halted], msg=name)
        torch.testing.assert_close(values[running], outputs[name][running], msg=name)
    # What was given is left alone.
    assert carry.steps.tolist() == [2] * 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_thinks_the_same_in_any_batch(variant: str) -> None:
    model = awake(small_unet(**VARIANTS[variant])).eval()
    batch = image_batch(model, 6)
    _, together = run(model, batch, 3)
    for i in range(6):
        _, alone = run(model, {k: v[i : i + 1] for k, v in batch.items()}, 3)
        for one, all_rows in zip(alone, together, strict=True):
            for name, value in one.items():
                torch.testing.assert_close(value[0], all_rows[name][i], atol=1e-5, rtol=1e-4)


def test_norms_are_those_of_an_image_by_itself_in_either_mode() -> None:
    model = small_unet(decoder="full")
    batch = image_batch(model)
    other = {k: v.clone() for k, v in batch.items()}
    other["inputs"][1:] = 0
    (_, [trained]), (_, [next_to]) = run(model.train(), batch, 1), run(model, other, 1)
    _, [evaluated] = run(model.eval(), batch, 1)
    torch.testing.assert_close(trained["logits"][0], next_to["logits"][0])
    torch.testing.assert_close(trained["logits"], evaluated["logits"])


def test_labels_are_read_by_nobody() -> None:
    model = awake(small_unet())
    batch = image_batch(model)
    _, with_labels = run(model, batch, 3)
    batch["labels"] = torch.zeros_like(batch["labels"])
    _, others = run(model, batch, 3)
    for one, other in zip(with_labels, others, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


# -- heads and policies


@pytest.mark.parametrize("halting", POLICIES)
def test_each_policy_has_the_heads_it_needs_and_no_others(halting: str) -> None:
    model = awake(small_unet(halting=halting))
    assert type(model.halting) is POLICIES[halting]
    _, [outputs, *_] = run(model, image_batch(model), 2)
    dual, logit = halting == "dual_value", halting in ("graves", "pondernet")
    assert (model.contribution is not None) == (model.threshold is not None) == dual
    assert (model.halt is not None) == (logit or halting == "halt_only")
    assert ("contribution" in outputs) == ("threshold" in outputs) == dual
    assert ("halt_logits" in outputs) == logit
    assert ("latent_change" in outputs) == (halting == "convergence")
    assert outputs["q_continue_logits"].eq(0).all()
    for name in outputs.keys() - {"logits"}:
        assert outputs[name].shape == (4,), name
        assert outputs[name].dtype == torch.float32, name


def test_first_biases() -> None:
    for halting, bias in (("graves", -3.0), ("pondernet", -3.0), ("halt_only", -5.0)):
        model = small_unet(halting=halting)
        _, [outputs] = run(model, image_batch(model), 1)
        assert (outputs["q_halt_logits"] - bias).abs().max() < 0.5
    model = small_unet(halting="fixed")
    assert run(model, image_batch(model), 1)[1][0]["q_halt_logits"].eq(-5).all()


def test_value_functions_are_positive_and_at_first_halt_midway() -> None:
    model = small_unet(halt_max_steps=9).eval()
    batch = image_batch(model, 8)
    assert set(solve(model, batch, "adaptive").stopped_at.tolist()) <= {4, 5, 6, 7}
    for head in (model.contribution, model.threshold):
        assert head is not None
        assert head.last.bias is not None
        with torch.no_grad():
            head.last.bias.fill_(-50.0)
    _, taken = run(model, batch, 3)
    for outputs in taken:
        for name in ("contribution", "threshold"):
            assert (outputs[name] >= 1e-3).all()
            assert (outputs[name] < 2e-3).all()


def test_q_halt_is_the_lead_of_the_sum_over_the_threshold_under_any_policy() -> None:
    model = awake(small_unet()).eval()
    batch = image_batch(model)
    carry, taken = run(model, batch, 4)
    total = sum(outputs["contribution"] for outputs in taken)
    torch.testing.assert_close(carry.extra[CONTRIBUTED], total)
    torch.testing.assert_close(taken[-1]["q_halt_logits"], total - taken[-1]["threshold"])
    probe = Convergence(5, tolerance=1.0, unchanged_steps=5, seq_len=64)
    carry = model.initial_carry(batch, seed=0, halting=probe)
    for outputs in taken:
        carry, probed = model(carry, batch, halting=probe)
        torch.testing.assert_close(probed["q_halt_logits"], outputs["q_halt_logits"])


def test_adaptive_halting_is_where_the_sum_leads() -> None:
    model = awake(small_unet(halt_max_steps=6)).eval()
    batch = image_batch(model, 12)
    _, taken = run(model, batch, 6)
    leads = torch.stack([outputs["q_halt_logits"] > 0 for outputs in taken])
    first = torch.where(leads.any(0), leads.int().argmax(0) + 1, 6)
    assert torch.equal(solve(model, batch, "adaptive").stopped_at.long(), first)


def test_a_continue_value_there_is_not() -> None:
    model = small_unet()
    batch = image_batch(model)
    policy = QLearning(5, target="bootstrap")
    carry = model.initial_carry(batch, halting=policy)
    with pytest.raises(NotImplementedError, match="no continue value for QLearning"):
        model(carry, batch, halting=policy)
    model.eval()(carry, batch, halting=policy)


# -- gradients


def grads(model: ACTUNet) -> set[str]:
    """Groups with any gradient that is not 0."""
    return {
        name
        for name, parameters in model.parameter_groups().items()
        if any(p.grad is not None and p.grad.any() for p in parameters)
    }


@pytest.mark.parametrize(
    ("name", "groups"),
    [("contribution", {"contribution"}), ("threshold", {"threshold"}), ("logits", {"trunk"})],
)
def test_a_heads_gradient_does_not_reach_the_trunk(name: str, groups: set[str]) -> None:
    for detached in (None, True, False):
        model = awake(small_unet(detach_heads=detached))
        _, taken = run(model, image_batch(model), 3, detach=False)
        sum(outputs[name].square().sum() for outputs in taken).backward()
        assert grads(model) == (groups | {"trunk"} if detached is False else groups)


@pytest.mark.parametrize("halting", ["graves", "pondernet", "halt_only"])
def test_a_published_policys_gradient_does_unless_it_is_kept_from_it(halting: str) -> None:
    for detached in (None, True):
        model = awake(small_unet(halting=halting, detach_heads=detached))
        _, [outputs] = run(model, image_batch(model), 1)
        outputs["q_halt_logits"].sum().backward()
        reached = model.encoder.embed.weight.grad is not None
        assert reached == (detached is None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_undetached_every_step_and_every_parameter_has_a_gradient(variant: str) -> None:
    model = awake(small_unet(**VARIANTS[variant]))
    batch = image_batch(model)
    carry = model.initial_carry(batch)
    states, last = [], None
    for _ in range(5):
        carry, last = model(carry, batch, detach=False)
        carry.halted = torch.zeros_like(carry.halted)
        carry.inner_carry.tokens.retain_grad()
        states.append(carry.inner_carry.tokens)
    assert last is not None
    loss = last["logits"].square().sum() + last["contribution"].sum() + last["threshold"].sum()
    loss.backward()
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in states)
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answers_alone_teach_the_whole_trunk(variant: str) -> None:
    model = small_unet(**VARIANTS[variant])
    _, taken = run(model, image_batch(model), 3, detach=False)
    taken[-1]["logits"].square().sum().backward()
    heads = {id(p) for p in model.halting_parameters()}
    still = {
        name
        for name, p in model.named_parameters()
        if id(p) not in heads and (p.grad is None or not p.grad.any())
    }
    # Tokens of the convolutional core do not read the summary, so nothing teaches where it starts.
    assert still == ({"core.first_cls"} if variant == "conv" else set())


def test_detached_no_step_reaches_the_one_before() -> None:
    model = small_unet()
    carry, _ = run(model, image_batch(model), 2)
    assert not any(tensor.requires_grad for _, tensor in carry.named_tensors())
    _, outputs = model(carry, image_batch(model))
    outputs["logits"].sum().backward()
    assert model.encoder.stem.conv.weight.grad is None
    assert model.core.layers[0].mlp.down_proj.weight.grad is not None


@pytest.mark.parametrize("small", [small_hrm, small_trm], ids=["hrm", "trm"])
def test_token_models_keep_the_graph_too(small: Callable[..., Any]) -> None:
    model = small(grad_cycles=99)
    batch = {"inputs": torch.ones(4, 6, dtype=torch.int32)}
    carry, _ = model(model.initial_carry(batch), batch)
    assert not carry.inner_carry.z_H.requires_grad
    carry, first = model(model.initial_carry(batch), batch, detach=False)
    carry.inner_carry.z_H.retain_grad()
    carry.halted = torch.zeros_like(carry.halted)
    _, second = model(carry, batch, detach=False)
    second["logits"].square().sum().backward()
    assert carry.inner_carry.z_H.grad is not None
    assert torch.equal(model.decode(carry, first, torch.tensor([2])), first["logits"][2:3])


@pytest.mark.parametrize("halting", POLICIES)
def test_every_parameter_is_in_exactly_one_group(halting: str) -> None:
    model = small_unet(halting=halting)
    groups = model.parameter_groups()
    listed = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    heads = {"contribution", "threshold"} if halting == "dual_value" else set()
    assert groups.keys() == {"trunk"} | heads


# -- decoding


@pytest.mark.parametrize("decoder", ["token", "full"])
def test_an_answer_is_decoded_when_it_is_asked_for(decoder: str) -> None:
    model = small_unet(decoder=decoder).eval()
    batch = image_batch(model)
    carry = model.initial_carry(batch, seed=0)
    _, with_logits = model(carry, batch)
    decoded: list[int] = []
    model.decoder.register_forward_pre_hook(lambda _, given: decoded.append(len(given[0])))
    after, outputs = model(carry, batch, decode=False)
    assert "logits" not in outputs
    assert decoded == []
    slots = torch.tensor([3, 1])
    torch.testing.assert_close(
        model.decode(after, outputs, slots), with_logits["logits"][slots], atol=1e-5, rtol=1e-4
    )
    assert decoded == [2]
    assert torch.equal(
        model.decode(after, with_logits, slots), with_logits["logits"].index_select(0, slots)
    )


def test_a_policy_that_compares_predictions_gets_them() -> None:
    model = small_unet(halting="convergence", halt_unchanged_steps=2).eval()
    batch = image_batch(model)
    assert "logits" in model(model.initial_carry(batch), batch, decode=False)[1]
    policy = Convergence(5, tolerance=0.5)
    carry = model.initial_carry(batch, halting=policy)
    assert "logits" not in model(carry, batch, decode=False, halting=policy)[1]


# -- saved, built, counted


@pytest.mark.parametrize("variant", ["default", "full decoder"])
def test_a_saved_model_comes_back_and_thinks_the_same(variant: str, tmp_path: Path) -> None:
    model = awake(small_unet(**VARIANTS[variant])).eval()
    again = from_pretrained(save_pretrained(model, tmp_path / "mine"))
    assert isinstance(again, ACTUNet)
    assert again.config == model.config
    batch = image_batch(model)
    (_, mine), (_, theirs) = run(model, batch, 2), run(again, batch, 2)
    assert all(torch.equal(mine[1][name], theirs[1][name]) for name in mine[1])


def metadata(**changes: Any) -> Metadata:
    image = {k: UNET[k] for k in ("channels", "height", "width", "classes", "values")}
    known = ImageMetadata(**image, class_names=["a", "b", "c"], task="test")
    sizes = {"vocab_size": 4, "seq_len": 64, "num_puzzle_identifiers": 1, "total_groups": 1}
    rest = {"pad_id": 0, "ignore_label_id": None, "blank_identifier_id": 0}
    return Metadata(
        **{**sizes, **rest, "mean_puzzle_examples": 1, "sets": ["all"], "image": known, **changes}
    )


def test_the_data_decide_the_sizes() -> None:
    arch = {"name": "act_unet", "hidden_size": 16}
    model = build_model(arch, **sizes_of_data(arch, metadata(), 7))
    config = model.config
    assert (config.seq_len, config.label_len, config.classes) == (64, 64, 3)
    assert (config.vocab_size, config.values, config.batch_size) == (4, "categorical", 7)
    with pytest.raises(UserError, match="act_unet reads images"):
        sizes_of_data(arch, metadata(image=None), 7)
    tokens = sizes_of_data({"name": "trm"}, metadata(image=None), 7)
    assert tokens == {
        "batch_size": 7, "seq_len": 64, "vocab_size": 4, "num_puzzle_identifiers": 1,
    }  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sizes", [{}, {"height": 13, "width": 17, "downsamplings": 2}])
def test_operations_are_those_that_pytorch_counts(variant: str, sizes: dict[str, int]) -> None:
    model = small_unet(**sizes, **VARIANTS[variant]).eval()
    batch = image_batch(model, 1)

    def counted(call: Callable[[], object]) -> int:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:
            call()
        return mode.get_total_flops() // 2

    told = model.operations()
    carry = model.initial_carry(batch, seed=0)
    first = counted(lambda: model(carry, batch, decode=False))
    running, outputs = model(carry, batch, decode=False)
    assert counted(lambda: model(running, batch, decode=False)) == told.iteration
    assert first == told.encoder + told.iteration
    slots = torch.tensor([0])
    assert counted(lambda: model.decode(running, outputs, slots)) == told.decoder
    assert told.total(3) == told.encoder + 3 * told.iteration + told.decoder
    bare = small_unet(**sizes, **(VARIANTS[variant] | {"halting": "fixed"})).operations()
    assert told.iteration - told.heads == bare.iteration
    assert bare.heads == 0
    assert told.without_heads() == bare


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision(variant: str, dtype: str) -> None:
    model = small_unet(**VARIANTS[variant], forward_dtype=dtype)
    carry, taken = run(model, image_batch(model), 2, detach=False)
    assert carry.inner_carry.tokens.dtype == getattr(torch, dtype)
    assert taken[1]["contribution"].dtype == torch.float32
    taken[1]["logits"].float().square().sum().backward()
    assert torch.isfinite(taken[1]["logits"]).all()
