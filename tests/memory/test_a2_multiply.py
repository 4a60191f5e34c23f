"""Products with quantised weights: dequantised once for many uses, and in eight bits within what rounding explains."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the a2 engine's libraries are not installed (requirements-a2.txt)")
pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed (requirements-a2.txt)")

from torch.nn.functional import cosine_similarity, linear

from engine.errors import EngineUnavailable
from engine.memory import multiply
from engine.memory.multiply import W8A8, Dequantising, can_w8a8, check_w8a8, multiplying, widened
from engine.memory.quantize import as_weight, quantise

KINDS = ("int8", "fp8")
FLOORS = {"int8": 0.9995, "fp8": 0.998}  # of the cosine to the float product


def quantised(kind: str, rows: int = 96, columns: int = 64, bias: bool = True) -> tuple[torch.nn.Linear, torch.Tensor]:
    """A linear layer with quantised weights, and these weights as floats."""
    torch.manual_seed(1)
    layer = torch.nn.Linear(columns, rows, bias=bias).requires_grad_(False)
    layer.weight = as_weight(*quantise(layer.weight.data, kind, torch.float32), kind)
    return layer, layer.weight._data.float() * layer.weight._scale


def activations(*shape: int) -> torch.Tensor:
    """With tokens of very different size, as they are."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*shape, generator=generator) * torch.logspace(-3, 3, shape[-2])[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_dequantising_gives_what_the_float_weights_give(kind):
    layer, weight = quantised(kind)
    x = activations(2, 40, 64)
    with multiplying([layer], Dequantising):
        assert torch.equal(layer(x), linear(x, weight, layer.bias))
    assert type(layer) is torch.nn.Linear


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_eight_bit_products_are_near_the_float_ones_for_every_token(kind, bias):
    layer, weight = quantised(kind, bias=bias)
    x = activations(2, 40, 64)
    with multiplying([layer], W8A8):
        product = layer(x)
    wanted = linear(x, weight, layer.bias)
    assert product.shape == wanted.shape
    assert not torch.equal(product, wanted)
    assert cosine_similarity(product, wanted, dim=-1).min() > FLOORS[kind]


def test_eight_bit_products_are_exact_where_nothing_is_rounded():
    """Whole numbers up to 127, of which each token has one: the scale is 1, and int32 adds them up exactly."""
    layer = torch.nn.Linear(64, 32, bias=False).requires_grad_(False)
    data = torch.randint(-127, 128, (32, 64), dtype=torch.int8)
    layer.weight = as_weight(data, torch.ones(32, 1), "int8")
    x = torch.randint(-127, 128, (multiply.ROWS + 20, 64)).float()
    x[:, 0] = 127
    with multiplying([layer], W8A8):
        assert torch.equal(layer(x), x @ data.float().t())


@pytest.mark.parametrize(("rows", "columns", "tokens"), [(90, 64, 40), (96, 60, 40), (96, 64, 16)])
def test_what_does_not_suit_eight_bits_is_dequantised(rows, columns, tokens):
    layer, weight = quantised("int8", rows, columns)
    x = activations(tokens, columns)
    with multiplying([layer], W8A8), widened(layer):
        assert torch.equal(layer(x), linear(x, weight, layer.bias))


def test_a_token_of_zeros_stays_zero():
    layer, _ = quantised("int8", bias=False)
    with multiplying([layer], W8A8):
        product = layer(torch.zeros(20, 64))
    assert torch.equal(product, torch.zeros(20, 96))


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_dequantised_once_for_many_uses(kind, monkeypatch):
    layer, weight = quantised(kind)
    before, made = layer.weight, []
    real = multiply._dequantised
    monkeypatch.setattr(multiply, "_dequantised", lambda weight: made.append(hasattr(weight, "_scale")) or real(weight))
    x = activations(40, 64)
    with multiplying([layer], Dequantising), widened(layer, torch.nn.Linear(2, 2)):
        for _ in range(5):
            assert torch.equal(layer(x), linear(x, weight, layer.bias))
    assert sum(made) == 1
    assert layer.weight is before


def test_an_error_within_leaves_the_layers_as_they_were():
    layer, _ = quantised("int8")
    before = layer.weight
    with pytest.raises(KeyError), multiplying([layer], W8A8), widened(layer):
        raise KeyError
    assert type(layer) is torch.nn.Linear
    assert layer.weight is before


def test_float_layers_and_foreign_ones_are_left_alone():
    class Other(torch.nn.Linear):
        pass

    plain, other = torch.nn.Linear(8, 8), Other(8, 8)
    other.weight = quantised("int8")[0].weight
    with multiplying([plain, other], W8A8):
        assert (type(plain), type(other)) == (torch.nn.Linear, Other)


@pytest.mark.parametrize(
    ("capability", "kind", "can"),
    [
        ((7, 5), "int8", False),
        ((8, 0), "int8", True),
        ((8, 6), "fp8", False),
        ((8, 9), "fp8", True),
        ((9, 0), "fp8", True),
    ],
)
def test_cards_are_asked_whether_they_multiply_in_eight_bits(monkeypatch, capability, kind, can):
    assert can_w8a8(capability, kind) == can
    check_w8a8(torch.device("cpu"), kind)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(torch.version, "hip", None)
    if can:
        check_w8a8(torch.device("cuda"), kind)
        return
    with pytest.raises(EngineUnavailable, match=f"--w8a8 with {kind} needs an RTX .0 or newer: a card"):
        check_w8a8(torch.device("cuda"), kind)
