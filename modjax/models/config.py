"""What a decoder is made of: its sizes, and the choices in which the families differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.families import FAMILIES
from modjax.models.family import ONLY
from modjax.models.values import Values
from modjax.ops.rope import Scaling


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The sizes and choices of one decoder; hashable, so it can be a static part of a traced program."""

    family: str  # whose names the weights have, one of FAMILIES
    V: int  # vocabulary
    D: int  # model width
    N: int  # query heads
    K: int  # key-value heads; divides N
    H: int  # head width
    F: int  # MLP width
    L: int  # layers
    context: int  # longest sequence trained on, in tokens
    norm: str = "rms"  # "rms", "rms_offset" (scales kept as their distance from 1), "layer"
    norm_eps: float = 1e-5  # added to the (mean) square under the root
    rope_theta: float = 10_000.0  # base of the rotary wavelengths
    rope_dim: int = 0  # rotated coordinates of each head; even, at most H
    window: int | None = None  # tokens a query reads, itself included; None for all before it
    tied: bool = False  # the head is the embedding's transpose
    parallel: bool = False  # attention and MLP both read the layer's input and are summed
    gated: bool = True  # gate, up, down; else fc1, fc2
    activation: str = "silu"  # a key of modjax.models.block.ACTIVATE
    qkv_bias: bool = False  # biases on attn.q, attn.k, attn.v
    out_bias: bool = False  # a bias on attn.o
    mlp_bias: bool = False  # biases on every linear map of the MLP
    head_bias: bool = False  # a bias on the logits
    rope_scaling: Scaling | None = None  # None: the plain wavelengths
    learned_positions: bool = False  # an embedding of each position up to `context` is added to the token's
    local: tuple[bool, ...] | None = None  # whether `window` holds in a layer; None: in all of them
    fused_qkv: str | None = None  # "stacked", one attn.qkv of rows [q, k, v]; "interleaved", [q, k, v] of each head
    fused_mlp: bool = False  # one mlp.gate_up of rows [gate, up]
    two_norms: bool = False  # where parallel: the MLP has a norm of its own and does not read attention's
    pre_norm: bool = True  # attention and MLP read normed inputs
    post_norm: bool = False  # what attention and MLP give is normed before it is added
    qk_norm: str | None = None  # of queries and keys before rotation: "head", each by itself; "full", all as one
    embed_scale: float = 1.0  # what embeddings are multiplied by
    attn_scale: float | None = None  # what scores are multiplied by; None: 1 / sqrt(H)
    inverse_layer_scale: bool = False  # the scores of layer i, counted from 1, are divided by i
    attn_softcap: float | None = None  # scores go through c tanh(. / c)
    logit_softcap: float | None = None  # likewise logits

    @property
    def sites(self) -> dict[str, tuple[int, int]]:
        """{site: (input width, output width)} of a block's linear maps, in the order of their use."""
        query, key = self.N * self.H, self.K * self.H
        heads = {"attn.qkv": query + 2 * key} if self.fused_qkv else {"attn.q": query, "attn.k": key, "attn.v": key}
        if not self.gated:
            wide, last = {"mlp.fc1": self.F}, "mlp.fc2"
        elif self.fused_mlp:
            wide, last = {"mlp.gate_up": 2 * self.F}, "mlp.down"
        else:
            wide, last = {"mlp.gate": self.F, "mlp.up": self.F}, "mlp.down"
        attention = {site: (self.D, width) for site, width in heads.items()} | {"attn.o": (query, self.D)}
        return attention | {site: (self.D, width) for site, width in wide.items()} | {last: (self.F, self.D)}

    def bias(self, site: str) -> bool:
        """Whether the linear map at this site has a bias."""
        if site.startswith("mlp."):
            return self.mlp_bias
        return self.out_bias if site == "attn.o" else self.qkv_bias

    @classmethod
    def from_hf(cls, found: Mapping[str, Any], where: str) -> ModelConfig:
        """The config that a Hugging Face config.json describes.

        found: the file's content; where: its path, for the messages.
        Raises InputError naming file and key for a missing or impossible size and for anything not supported; warns of
        keys that are not known to be without effect.
        """
        model_type = found.get("model_type")
        if not isinstance(model_type, str) or model_type not in FAMILIES:
            raise InputError(f"{where}: model_type is {model_type!r}; supported are {', '.join(FAMILIES)}")
        family = FAMILIES[model_type]
        values = Values(found, family.defaults, family.nullable, where)
        values.warn_of_unknown(family.known)
        for key, only in (ONLY | family.only).items():
            values.require(key, only)
        sizes = family.read_sizes(values)
        chosen = {field: getattr(values, how)(key) for field, (how, key) in family.keys.items()}
        derived = {field: value for derive in family.derived for field, value in derive(values, sizes).items()}
        return cls(family=model_type, **sizes, **family.fixed, **chosen, **derived).checked(where)

    def checked(self, where: str) -> ModelConfig:
        """This config, if its sizes fit each other; InputError if not."""
        if self.N % self.K:
            raise InputError(f"{where}: {self.N} query heads cannot share {self.K} key-value heads evenly")
        turned = 0 < self.rope_dim <= self.H or (self.learned_positions and not self.rope_dim)
        if self.rope_dim % 2 or not turned:
            raise InputError(
                f"{where}: {self.rope_dim} of {self.H} coordinates of a head are rotary; expected an even number"
            )
        return self
