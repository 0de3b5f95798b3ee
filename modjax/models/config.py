"""What a decoder is made of: its sizes, and the choices in which the families differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The sizes and choices of one decoder; hashable, so it can be a static part of a traced program."""

    family: str  # whose names the weights have: "llama", "mistral", "phi"
    V: int  # vocabulary
    D: int  # model width
    N: int  # query heads
    K: int  # key-value heads; divides N
    H: int  # head width
    F: int  # MLP width
    L: int  # layers
    context: int  # longest sequence trained on, in tokens
    norm: str = "rms"  # "rms" or "layer"
    norm_eps: float = 1e-5  # added to the (mean) square under the root
    rope_theta: float = 10_000.0  # base of the rotary wavelengths
    rope_dim: int = 0  # rotated coordinates of each head; even, at most H
    window: int | None = None  # tokens a query reads, itself included; None for all before it
    tied: bool = False  # the head is the embedding's transpose
    parallel: bool = False  # attention and MLP both read the one input norm and are summed
    gated: bool = True  # gate, up, down; else fc1, fc2
    activation: str = "silu"  # "silu", "gelu", "gelu_tanh", "relu"
    qkv_bias: bool = False  # biases on attn.q, attn.k, attn.v
    out_bias: bool = False  # a bias on attn.o
    mlp_bias: bool = False  # biases on every linear map of the MLP
    head_bias: bool = False  # a bias on the logits

    @property
    def sites(self) -> dict[str, tuple[int, int]]:
        """{site: (input width, output width)} of a block's linear maps, in the order of their use."""
        query, key = self.N * self.H, self.K * self.H
        attention = {
            "attn.q": (self.D, query),
            "attn.k": (self.D, key),
            "attn.v": (self.D, key),
            "attn.o": (query, self.D),
        }
        if self.gated:
            wide = (self.D, self.F)
            return attention | {"mlp.gate": wide, "mlp.up": wide, "mlp.down": (self.F, self.D)}
        return attention | {"mlp.fc1": (self.D, self.F), "mlp.fc2": (self.F, self.D)}

    def bias(self, site: str) -> bool:
        """Whether the linear map at this site has a bias."""
        if site.startswith("mlp."):
            return self.mlp_bias
        return self.out_bias if site == "attn.o" else self.qkv_bias

    @classmethod
    def from_hf(cls, found: Mapping[str, Any], where: str) -> ModelConfig:
        """The config that a Hugging Face config.json describes.

        found: the file's content; where: its path, for the messages.
        Raises InputError naming file and key for a missing or impossible size and for anything not supported.
        """
        family = _family(found, where)
        values = dict(family.defaults) | {key: value for key, value in found.items() if value is not None}
        values |= {key: None for key in family.nullable if key in found and found[key] is None}
        for key, only in family.only.items():
            if values.get(key, only) != only:
                raise InputError(f"{where}: {key} = {values[key]!r} is not supported, only {only!r}")
        sizes = {letter: _size(values, key, where) for letter, key in SIZES.items()}
        sizes["K"] = _size(values, "num_key_value_heads", where, sizes["N"])
        sizes["H"] = _size(values, "head_dim", where, sizes["D"] // sizes["N"])
        chosen = {field: values[key] for field, key in family.keys.items()}
        config = cls(
            family=found["model_type"],
            **sizes,
            **family.fixed,
            **chosen,
            **_rope(values, sizes["H"], where),
            activation=_activation(values, where),
        )
        return config.checked(where)

    def checked(self, where: str) -> ModelConfig:
        """This config, if its sizes fit each other; InputError if not."""
        if self.N % self.K:
            raise InputError(f"{where}: {self.N} query heads cannot share {self.K} key-value heads evenly")
        if self.rope_dim % 2 or not 0 < self.rope_dim <= self.H:
            raise InputError(
                f"{where}: {self.rope_dim} of {self.H} coordinates of a head are rotary; expected an even number"
            )
        return self


SIZES = {
    "V": "vocab_size",
    "D": "hidden_size",
    "N": "num_attention_heads",
    "F": "intermediate_size",
    "L": "num_hidden_layers",
    "context": "max_position_embeddings",
}
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """How one model_type's config.json becomes a ModelConfig."""

    keys: Mapping[str, str]  # field: the key that holds it
    fixed: Mapping[str, Any]  # field: its value in every model of the family
    defaults: Mapping[str, Any]  # key: what its absence means
    only: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # key: the one value supported
    nullable: tuple[str, ...] = ()  # keys whose null differs from absence


_RMS = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "rope_theta": 10_000.0}

FAMILIES = {
    "llama": Family(
        keys={
            "norm_eps": "rms_norm_eps",
            "tied": "tie_word_embeddings",
            "qkv_bias": "attention_bias",
            "out_bias": "attention_bias",
            "mlp_bias": "mlp_bias",
        },
        fixed={},
        defaults=_RMS | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        keys={"norm_eps": "rms_norm_eps", "tied": "tie_word_embeddings", "window": "sliding_window"},
        fixed={},
        defaults=_RMS | {"max_position_embeddings": 131_072, "sliding_window": 4096},
        nullable=("sliding_window",),
    ),
    "phi": Family(
        keys={"norm_eps": "layer_norm_eps", "tied": "tie_word_embeddings"},
        fixed={
            "norm": "layer",
            "parallel": True,
            "gated": False,
            "qkv_bias": True,
            "out_bias": True,
            "mlp_bias": True,
            "head_bias": True,
        },
        defaults={
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu_new",
            "tie_word_embeddings": False,
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
            "max_position_embeddings": 2048,
        },
        only={"qk_layernorm": False},
    ),
}


def _family(found: Mapping[str, Any], where: str) -> Family:
    model_type = found.get("model_type")
    if model_type not in FAMILIES:
        raise InputError(f"{where}: model_type is {model_type!r}; supported are {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def _size(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: {key} is {value!r}; expected a positive whole number")
    return value


def _rope(values: Mapping[str, Any], head_width: int, where: str) -> dict[str, Any]:
    """rope_theta and rope_dim; transformers 5 keeps them in rope_parameters, older files at the top."""
    rope = values | values.get("rope_scaling", {}) | values.get("rope_parameters", {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"{where}: rope scaling {kind!r} is not supported, only 'default'")
    return {
        "rope_theta": float(rope["rope_theta"]),
        "rope_dim": int(head_width * rope.get("partial_rotary_factor", 1.0)),
    }


def _activation(values: Mapping[str, Any], where: str) -> str:
    name = values["hidden_act"]
    if name not in ACTIVATIONS:
        raise InputError(f"{where}: hidden_act is {name!r}; supported are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
