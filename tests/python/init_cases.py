"""What every rank runs for test_zero_init.py."""

from __future__ import annotations

import copy

import torch
from torch import nn

import hydrofoil
from hydrofoil.zero import GatheredParameters, Init
from tests.support import models
from tests.support.models import Odd, plain, rank


class Reinitialised(nn.Module):
    """Does in constructors what models do: writes into children, ties, copies, clones layers, loops over parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True), 2)
        self.stack = nn.Sequential(nn.Linear(12, 7), nn.Linear(7, 12))
        nn.init.constant_(self.stack[0].bias, 0.25)
        nn.init.normal_(self.stack[1].weight, std=0.5)
        self.copied = nn.Linear(12, 7)
        self.copied.weight.data.copy_(self.stack[0].weight.data)
        self.layers_again = copy.deepcopy(self.stack)
        self.own = nn.Parameter(torch.randn(3))
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        with torch.no_grad():
            self.own += 1
            self.stack[0].weight.mul_(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.copied(self.layers_again(self.stack(self.layers(x)))) * self.own.sum()


class Late(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Parameter(torch.randn(5))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=37, hidden_size=16, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
                                        num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=True, use_cache=False))


MODELS = {"odd": Odd, "reinitialised": Reinitialised, "late": Late, "llama": llama}


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    with GatheredParameters(list(model.parameters())):
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


def values_are_those_of_rank_0(name: str) -> None:
    """Each rank has other random numbers; all get rank 0's, which are those of the plain construction."""
    expected = plain(0, MODELS[name])
    torch.manual_seed(rank())
    with Init():
        model = MODELS[name]()
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in expected.named_parameters()]
    shapes = [(p.shape, p.numel(), p.dtype, p.requires_grad) for p in model.parameters()]
    assert shapes == [(p.shape, p.numel(), p.dtype, p.requires_grad) for p in expected.parameters()]
    values = _values(model)
    models.assert_equal(values, {n: v.detach() for n, v in expected.state_dict().items()}, name)
    if models.world_size() > 1:
        released = next(p for p in model.parameters() if p.numel() > 1)
        models.raises(RuntimeError, lambda: released.sum().item(), "is released", "GatheredParameters")
    for module in model.modules():
        assert type(module._parameters) is dict


def initialize_is_as_from_a_plain_model(name: str, stage: int, dtype: str) -> None:
    """Bits after initialize and after three steps."""
    settings = models.config(stage, dtype)
    states = []
    for sharded in (False, True):
        torch.manual_seed(0)
        with Init(enabled=sharded):
            model = MODELS[name]()
        engine = hydrofoil.initialize(model=model, config=settings)[0]
        states.append([models.full_state(engine)])
        if name == "odd":
            models.train(engine, 3)
            states[-1].append(models.full_state(engine))
        engine.destroy()
    for before, after in zip(*states):
        models.assert_equal(before, after, name)


def config_gives_dtype_and_stage() -> None:
    with Init(config_dict_or_path=models.config(3, "bf16")):
        model = nn.Linear(5, 3)
    assert model.weight.dtype == torch.bfloat16
    with Init(config_dict_or_path=models.config(3, "bf16"), dtype=torch.float16):
        assert nn.Linear(5, 3).weight.dtype == torch.float16
    for init in (Init(config_dict_or_path=models.config(2)), Init(enabled=False), Init(config=models.config(3), enabled=False)):
        with init:
            plain_model = nn.Linear(5, 3)
        assert plain_model.weight.sum().item() is not None
        assert not hasattr(plain_model.weight, "_hydrofoil_initial_shard")
    torch.manual_seed(0)
    expected = nn.Linear(5, 3).to(torch.bfloat16)
    torch.manual_seed(0)
    with Init(dtype=torch.bfloat16):
        model = nn.Linear(5, 3)
    models.assert_equal(_values(model), dict(expected.state_dict()))


def exception_leaves_no_trace() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            nn.init.zeros_(self.inner.weight)
            raise KeyError("no")

    before = nn.Linear.__init__
    models.raises(KeyError, lambda: _build(Fails), "no")
    assert nn.Linear.__init__ is before
    assert "__init_subclass__" not in nn.Module.__dict__
    assert nn.Linear(3, 3).weight.sum().item() is not None
    with Init():
        model = nn.Linear(300, 3)
    assert _values(model)["weight"].shape == (3, 300)


def _build(make: type[nn.Module]) -> nn.Module:
    with Init():
        return make()


def contexts_nest() -> None:
    with Init():
        outer = nn.Linear(4, 3)
        with Init(dtype=torch.bfloat16):  # the outer one's settings hold, as in DeepSpeed
            inner = nn.Linear(4, 3)
        after = nn.Linear(4, 3)
        with Init(enabled=False):
            still = nn.Linear(4, 3)

        class Inside(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(9))

        defined = Inside()
    for model in (outer, inner, after, still, defined):
        assert hasattr(model.weight, "_hydrofoil_initial_shard")
        assert model.weight.dtype == torch.float32
    assert not hasattr(nn.Linear(4, 3).weight, "_hydrofoil_initial_shard")
    assert not hasattr(Inside().weight, "_hydrofoil_initial_shard")


def initialize_inside_the_context() -> None:
    with Init():
        engine = hydrofoil.initialize(model=Odd(), config=models.config(3))[0]
    models.train(engine, 2)
    engine.destroy()


def a_built_module_can_be_sharded() -> None:
    model = plain(rank())
    expected = plain(0)
    Init(module=model)
    models.assert_equal(_values(model), dict(expected.state_dict().items()))


def gathered_parameters_before_initialize() -> None:
    torch.manual_seed(0)
    with Init():
        model = Odd()
    weight = model.frozen.weight
    with GatheredParameters(weight, modifier_rank=0):
        with torch.no_grad():
            weight.fill_(3.0 if rank() == 0 else 4.0)
    with GatheredParameters([weight, weight]):
        assert torch.equal(weight, torch.full_like(weight, 3.0))
        with GatheredParameters(model.parameters()):
            assert model.scale.item() == 1.5
        assert weight.sum().item() == 3.0 * weight.numel()
    twin = copy.deepcopy(model.frozen)  # as PEFT does with the modules of modules_to_save
    assert torch.equal(twin.weight, torch.full_like(twin.weight, 3.0)) and not hasattr(twin.weight, "ds_id")
    assert twin.weight.requires_grad == weight.requires_grad
    if models.world_size() > 1:
        assert weight.ds_status == hydrofoil.zero.ZeroParamStatus.NOT_AVAILABLE
        with GatheredParameters(weight, modifier_rank=1):
            nn.init.constant_(weight, 5.0 + rank())
        with GatheredParameters(weight):
            assert torch.equal(weight, torch.full_like(weight, 6.0))

        def write() -> None:
            with GatheredParameters(weight), torch.no_grad():
                weight.add_(1)

        models.raises(ValueError, write, "modifier_rank", "weight")
        with GatheredParameters(weight):
            assert torch.equal(weight, torch.full_like(weight, 6.0))
        models.raises(RuntimeError, lambda: weight.sum().item(), "is released")
    engine = hydrofoil.initialize(model=model, config=models.config(3))[0]
    state = models.full_state(engine)
    assert torch.equal(state["frozen.weight"], torch.full((12, 12), 6.0 if models.world_size() > 1 else 3.0))
    engine.destroy()


def unsupported_arguments() -> None:
    models.raises(NotImplementedError, lambda: Init(mpu=object()), "mpu")
    models.raises(NotImplementedError, lambda: Init(remote_device="nvme"), "nvme")
    models.raises(NotImplementedError, lambda: Init(zero_quantized_weights=True), "zero_quantized_weights")
