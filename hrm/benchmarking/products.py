"""The matrix products of a piece of work, counted; and the rate of bare ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from hrm.benchmarking.measure import Work, in_turns, seconds, with_spread

LONG_ENOUGH = 0.05
"""Seconds that one timing of a product lasts at least; shorter ones are noise."""


class Shape(NamedTuple):
    """A product `(m, k) x (k, n)`: `2 m k n` operations."""

    m: int
    k: int
    n: int

    @property
    def operations(self) -> int:
        return 2 * self.m * self.k * self.n


FULL_SIZE = (Shape(1296, 512, 3072), Shape(1296, 1536, 512), Shape(1296, 512, 1536))
"""The largest products of a full-size step, 16 sequences of 81 tokens at width 512: gate and up of
the feed-forward network, its way down, and attention's queries, keys and values."""


class Counted(NamedTuple):
    """What a piece of work multiplies."""

    operations: int
    """Of all matrix products and of attention."""
    largest: Shape
    """The product with most operations; among equals the most frequent one."""
    dtype: torch.dtype
    """Its type."""


def count_products(work: Work) -> Counted:
    """Run `work` once and count what it multiplies."""
    # PyTorch counts the attention kernels of GPUs, but not the one of CPUs.
    attention = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    counter = FlopCounterMode(display=False, custom_mapping=attention)
    with counter, _Shapes() as seen:
        work()
    if not seen.calls:
        raise ValueError("the work holds no matrix product")
    (shape, dtype), _ = max(seen.calls.items(), key=lambda item: (item[0][0].operations, item[1]))
    return Counted(counter.get_total_flops(), shape, dtype)


_FACTORS = {torch.ops.aten.mm: 0, torch.ops.aten.addmm: 1}
"""Where the two factors start among the arguments."""


class _Shapes(TorchDispatchMode):
    """How often each shape of product is called, by type."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Shape, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = _FACTORS.get(func.overloadpacket)
        if first is not None:
            a, b = args[first : first + 2]
            self.calls[Shape(a.shape[0], a.shape[1], b.shape[1]), a.dtype] += 1
        return func(*args, **(kwargs or {}))


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


class Product:
    """A bare product of random matrices; a call repeats it until a timing of it is long enough."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.device, self.repeats = shape, device, 1
        self.x = torch.randn(shape.m, shape.k, dtype=dtype, device=device)
        self.weight = torch.randn(shape.n, shape.k, dtype=dtype, device=device)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        for _ in range(self.repeats):
            out = F.linear(self.x, self.weight)
        return out

    @property
    def operations(self) -> int:
        """Of one call."""
        return self.shape.operations * self.repeats

    def warm_up(self, long_enough: float = LONG_ENOUGH) -> None:
        """Call it until it lasts `long_enough` seconds."""
        seconds(self, self.device)
        while (taken := seconds(self, self.device)) < long_enough:
            self.repeats *= 2 if taken > long_enough / 4 else 4


def product_rates(
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    shapes: Sequence[Shape] = FULL_SIZE,
) -> list[dict[str, Any]]:
    """The rate of each product, in operations a second: median and spread of calls in turns."""
    products = {str(tuple(shape)): Product(shape, dtype, device) for shape in shapes}
    for product in products.values():
        product.warm_up()
    times = in_turns(dict(products), repeats, device)
    return [
        {
            "shape": list(product.shape),
            "operations": product.shape.operations,
            **with_spread("operations_per_s", [product.operations / t for t in times[name]]),
        }
        for name, product in products.items()
    ]
