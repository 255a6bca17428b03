"""What holds of every encoder: a set of real demonstrations in, a context of known loudness out."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hrm.encoders import ENCODERS, Encoder
from hrm.encoders.demonstration import PAD
from tests.encoders.helpers import (
    GRID,
    KINDS,
    LAYOUTS,
    TOKENS,
    VOCAB,
    WIDTH,
    demonstrations,
    small_encoder,
)

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def rms(x: Tensor) -> Tensor:
    return x.float().square().mean(-1).sqrt()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_context_has_the_shape_and_loudness_that_its_reader_expects(
    kind: str, layout: str
) -> None:
    encoder = small_encoder(kind, layout=layout)
    context, kl = encoder(*demonstrations())
    assert context.shape == (3, TOKENS, WIDTH)
    assert (kl is not None) == encoder.variational == kind.endswith("variational")
    torch.testing.assert_close(rms(context), torch.ones(3, TOKENS), atol=1e-2, rtol=0)
    with torch.no_grad():
        encoder.scale.fill_(0.25)
    again, _ = encoder.eval()(*demonstrations())
    torch.testing.assert_close(rms(again), torch.full((3, TOKENS), 0.25), atol=1e-2, rtol=0)
    again.sum().backward()
    assert encoder.scale.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_that_the_document_names_unless_another_is_asked_for(kind: str) -> None:
    encoder = small_encoder(kind)
    assert len(encoder.demonstration.layers) == (2 if kind == "standard" else 4)
    assert encoder.demonstration.pool == ("mean" if kind == "standard" else "cls")
    assert encoder.style == ("post" if kind == "standard" else "pre")
    other = small_encoder(kind, num_layers=1, norm_style="pre")
    assert (len(other.demonstration.layers), other.style) == (1, "pre")
    if "lpn" not in kind:
        set_layers = {"standard": 1}.get(kind, 2)
        assert len(encoder.set.layers) == set_layers
        assert len(small_encoder(kind, set_layers=3).set.layers) == 3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3)
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_the_order_of_the_demonstrations_does_not_matter(
    kind: str, layout: str, order: list[int], seed: int
) -> None:
    encoder = small_encoder(kind, layout=layout).eval()
    inputs, outputs, mask = demonstrations(seed=seed)
    context, kl = encoder(inputs, outputs, mask)
    other, other_kl = encoder(inputs[:, order], outputs[:, order], mask[:, order])
    torch.testing.assert_close(other, context, **CLOSE)
    if kl is not None:
        torch.testing.assert_close(other_kl, kl, **CLOSE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_demonstrations_that_are_not_there_change_nothing(kind: str, layout: str) -> None:
    encoder = small_encoder(kind, layout=layout).eval()
    inputs, outputs, mask = demonstrations()
    context, kl = encoder(inputs, outputs, mask)
    # What lies under a mask of 0 is not looked at, even where it is no padding.
    junk = [torch.where(mask[..., None].bool(), grids, 5) for grids in (inputs, outputs)]
    assert torch.equal(encoder(*junk, mask).context, context)
    # More room, and a demonstration without a cell.
    wide = [torch.nn.functional.pad(grids, (0, 0, 0, 2)) for grids in (inputs, outputs)]
    for value in (0, 1):
        padded = torch.nn.functional.pad(mask, (0, 2), value=value)
        again, again_kl = encoder(*wide, padded)
        assert torch.equal(again, context)
        if kl is not None:
            assert torch.equal(again_kl, kl)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_cells_that_are_not_there_change_nothing(kind: str, layout: str) -> None:
    """A grid in the corner of a larger square is the same grid, beside fuller ones even."""
    encoder = small_encoder(kind, layout=layout, grid=5).eval()

    def in_corner(grids: Tensor, side: int, of: int) -> Tensor:
        square = grids.unflatten(-1, (of, of))[..., :side, :side]
        return torch.nn.functional.pad(square, (0, 5 - side, 0, 5 - side)).flatten(-2)

    inputs, outputs, mask = demonstrations(slots=1)
    small = [in_corner(grids, 3, 3) for grids in (inputs, outputs)]
    context = encoder(*small, mask).context
    # The embedding of a cell that is not there is nobody's: `stacked` has it beside a real one.
    with torch.no_grad():
        encoder.demonstration.embed_tokens.embedding_weight[PAD] += 100.0
    assert torch.equal(encoder(*small, mask).context, context)
    # Beside a task whose grids fill the square, its positions are padded, and masked.
    full = demonstrations(slots=1, grid=5, seed=3)
    both = [torch.cat(pair) for pair in zip((*small, mask), full, strict=True)]
    torch.testing.assert_close(encoder(*both).context[:1], context, **CLOSE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_of_both_grids_matters(kind: str, layout: str) -> None:
    """With its place, and the side that it lies on."""
    encoder = small_encoder(kind, layout=layout).eval()
    inputs, outputs, mask = demonstrations(slots=1, demos=2)
    context = encoder(inputs, outputs, mask).context

    def moved(inputs: Tensor, outputs: Tensor) -> float:
        with torch.no_grad():
            return float((encoder(inputs, outputs, mask).context - context).abs().max())

    for cell in (0, GRID**2 - 1):
        other = inputs.clone()
        other[0, 1, cell] = other[0, 1, cell] % (VOCAB - 1) + 1
        assert moved(other, outputs) > 1e-4
        other = outputs.clone()
        other[0, 1, cell] = other[0, 1, cell] % (VOCAB - 1) + 1
        assert moved(inputs, other) > 1e-4
    assert moved(outputs, inputs) > 1e-4
    turned = [grids.unflatten(-1, (GRID, GRID)).mT.flatten(-2) for grids in (inputs, outputs)]
    assert moved(*turned) > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_task_without_demonstrations_has_a_context_and_a_finite_gradient(
    kind: str, slots: int
) -> None:
    encoder = small_encoder(kind)
    inputs, outputs, mask = demonstrations(slots, demos=2)
    mask[-1] = 0
    context, kl = encoder(inputs, outputs, mask)
    assert torch.isfinite(context).all()
    torch.testing.assert_close(rms(context[-1]), torch.ones(TOKENS), atol=1e-2, rtol=0)
    total = context.square().sum() if kl is None else context.square().sum() + kl.sum()
    total.backward()
    for name, p in encoder.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), name
    assert encoder.set.nothing.grad is not None
    assert encoder.set.nothing.grad.any()
    if kl is not None:
        assert kl[-1] == 0
        assert (kl[:-1] > 0).all()
    # The learned context of nothing is nobody's else.
    assert slots == 1 or not torch.equal(context[0], context[-1])
    empty = encoder.eval()(inputs[:, :0], outputs[:, :0], mask[:, :0])
    torch.testing.assert_close(empty.context[0], empty.context[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    encoder = small_encoder(kind)
    inputs, outputs, mask = demonstrations()
    mask[-1] = 0
    context, _ = encoder(inputs, outputs, mask)
    target = torch.randn(context.shape, generator=torch.Generator().manual_seed(0))
    (context * target).sum().backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_only_real_demonstrations_are_computed(
    kind: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small_encoder(kind, layout=layout).eval()
    seen: list[torch.Size] = []
    layer = encoder.demonstration.layers[0]
    monkeypatch.setattr(
        layer, "forward", lambda x, real, f=layer.forward: (seen.append(x.shape), f(x, real))[1]
    )
    inputs, outputs, mask = demonstrations()
    inputs[:, :, 5:] = outputs[:, :, 2:] = PAD
    encoder(inputs, outputs, mask)
    cls = encoder.demonstration.pool == "cls"
    cells = 5 if layout == "stacked" else 5 + 2
    assert seen == [(int(mask.sum()), cells + cls, WIDTH)]
    seen.clear()
    encoder(inputs, outputs, torch.zeros_like(mask))
    assert seen == []


@pytest.mark.parametrize("kind", ["standard", "hybrid_variational"])
def test_a_large_batch_is_worked_on_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = demonstrations()
    encoder = small_encoder(kind, checkpointing=True)
    keys = torch.arange(3)

    def gradients() -> list[Tensor]:
        encoder.zero_grad()
        context, _ = encoder(*given, keys)
        context.pow(3).sum().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    whole, learned = encoder.eval()(*given).context, gradients()
    monkeypatch.setattr("hrm.encoders.demonstration.MOST_CELLS", 40)  # two demonstrations
    with torch.no_grad():
        torch.testing.assert_close(encoder(*given).context, whole, **CLOSE)
    for part, all_at_once in zip(gradients(), learned, strict=True):
        torch.testing.assert_close(part, all_at_once, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_computes_the_same_to_its_rounding(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wide = small_encoder(kind).eval()
    half = small_encoder(kind, dtype=dtype).eval()
    half.load_state_dict(wide.state_dict())
    context, _ = half(*demonstrations())
    assert context.dtype == dtype
    assert all(p.dtype == torch.float32 for p in half.parameters())
    torch.testing.assert_close(context.float(), wide(*demonstrations()).context, atol=0.1, rtol=0)


def test_the_registry_names_every_encoder_once() -> None:
    assert all(issubclass(kind, Encoder) for kind in ENCODERS.values())
    assert len(set(ENCODERS.values())) == len(ENCODERS) == 5
