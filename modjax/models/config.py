"""ModelConfig: the sizes of a decoder, and the options in which the families differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.families import FAMILIES
from modjax.models.families.multimodal import MULTIMODAL
from modjax.models.family import KINDS_WITHOUT_EFFECT, ONLY, check_unquantised
from modjax.models.values import Values
from modjax.ops.rope import Rope, Scaling


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The sizes and options of one decoder; hashable, so it can be a static argument of a jitted function."""

    family: str  # a key of FAMILIES or MULTIMODAL, which decides how a checkpoint names its tensors
    V: int  # vocabulary
    D: int  # model width
    N: int  # query heads
    K: int  # key-value heads; divides N
    H: int  # head width
    F: int  # MLP width
    L: int  # layers
    context: int  # longest sequence trained on, in tokens
    norm: str = "rms"  # "rms", "rms_offset" (scale - 1 is stored), "layer", "layer_scale" (no bias), "layer_plain"
    norm_eps: float = 1e-5  # added to the mean square, or variance, under the square root
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    rope_dim: int = 0  # rotated dimensions per head; even, at most H
    window: int | None = None  # tokens that a query may read, its own included; None for all earlier ones
    tied: bool = False  # the output head is the transposed embedding
    parallel: bool = False  # attention and MLP both read the layer's input and are summed
    gated: bool = True  # the MLP has gate, up and down maps; if False, fc1 and fc2
    activation: str = "silu"  # a key of modjax.models.block.ACTIVATE
    qkv_bias: bool = False  # biases on attn.q, attn.k, attn.v
    out_bias: bool = False  # a bias on attn.o
    mlp_bias: bool = False  # biases on every linear map of the MLP
    head_bias: bool = False  # a bias on the logits
    rope_scaling: Scaling | None = None  # None: frequencies are not scaled
    learned_positions: bool = False  # a learned embedding of each of the `context` positions is added to the token's
    local: tuple[bool, ...] | None = None  # per layer: whether `window` applies; None: in all layers
    fused_qkv: str | None = None  # one attn.qkv: "stacked", outputs [q, k, v]; "interleaved", [q, k, v] per head
    fused_mlp: bool = False  # one mlp.gate_up, outputs [gate, up]
    two_norms: bool = False  # if parallel: attention and MLP have a norm each; if False, they share one
    pre_norm: bool = True  # the inputs of attention and MLP are normalised
    post_norm: bool = False  # the outputs of attention and MLP are normalised before they are added
    # Norm of queries and keys before rotation: "head", per head; "each_head", that with a scale for each head; "full",
    # over all heads.
    qk_norm: str | None = None
    embed_scale: float = 1.0  # factor on token embeddings
    attn_scale: float | None = None  # factor on attention scores; None: 1 / sqrt(H)
    inverse_layer_scale: bool = False  # attention scores of layer i, counted from 1, are also divided by i
    attn_softcap: float | None = None  # c: attention scores s become c tanh(s / c)
    logit_softcap: float | None = None  # the same for logits
    rope_adjacent: bool = False  # dimensions 2 i and 2 i + 1 are rotated together; if False, i and i + rope_dim / 2
    rotary: tuple[bool, ...] | None = None  # per layer: whether queries and keys are rotated; None: in all layers
    local_rope: Rope | None = None  # rotary embedding of local layers; None: that of the other layers
    position_scale: tuple[float, int] | None = None  # (b, n): queries at p are scaled by 1 + b log(1 + floor(p / n))
    qkv_clip: float | None = None  # c: queries, keys and values are clipped to [-c, c]
    residual_scale: float = 1.0  # factor on what attention and MLP add to the hidden state
    logit_scale: float = 1.0  # factor on logits

    @property
    def sites(self) -> dict[str, tuple[int, int]]:
        """{site: (input width, output width)} of a block's linear maps, in the order of the forward pass."""
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

    @property
    def reach(self) -> int:
        """The longest sequence that the model can read, in tokens: `context`, or what YaRN extends it to."""
        scaling = self.rope_scaling
        if scaling is None or scaling.kind != "yarn":
            return self.context
        return max(self.context, int(scaling.factor * scaling.original))

    def bias(self, site: str) -> bool:
        """Whether the linear map at this site has a bias."""
        if site.startswith("mlp."):
            return self.mlp_bias
        return self.out_bias if site == "attn.o" else self.qkv_bias

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The rotary embedding of each layer; None for a layer without."""
        everywhere, nowhere = (True,) * self.L, (False,) * self.L
        rotary = self.rotary or (everywhere if self.rope_dim else nowhere)
        own = self.local if self.local_rope and self.local else nowhere
        rope = Rope(self.rope_theta, self.rope_scaling)
        ropes = (self.local_rope if local else rope for local in own)
        return tuple(rope if rotated else None for rope, rotated in zip(ropes, rotary, strict=True))

    @property
    def original(self) -> int | None:
        """With longrope, the tokens up to which an example has other rotary factors than longer ones; else None."""
        scaling = self.rope_scaling
        return scaling.original if scaling and scaling.kind == "longrope" else None

    @classmethod
    def from_hf(cls, found: Mapping[str, Any], where: str) -> ModelConfig:
        """The config that a Hugging Face config.json describes; for a multimodal model, that of its text decoder.

        found: content of the file; where: its path, for messages.
        Raises InputError naming file and key for missing or invalid sizes and for unsupported values; warns about keys
        that are unknown and may have an effect.
        """
        model_type = found.get("model_type")
        if not isinstance(model_type, str) or model_type not in {*FAMILIES, *MULTIMODAL}:
            raise InputError(
                f"{where}: model_type is {model_type!r}; supported are {', '.join([*FAMILIES, *MULTIMODAL])}"
            )
        if model_type in MULTIMODAL:
            text = MULTIMODAL[model_type].text(found, where)
            return dataclasses.replace(cls.from_hf(text, f"{where}: text_config"), family=model_type)
        family = FAMILIES[model_type]
        values = Values(found, family.defaults, family.nullable, where)
        check_unquantised(values)
        values.warn_of_unknown(family.known, KINDS_WITHOUT_EFFECT)
        for key, only in (ONLY | family.only).items():
            values.require(key, only)
        sizes = family.read_sizes(values)
        chosen = {field: getattr(values, how)(key) for field, (how, key) in family.keys.items()}
        derived = {field: value for derive in family.derived for field, value in derive(values, sizes).items()}
        return cls(family=model_type, **sizes, **family.fixed, **chosen, **derived).checked(where)

    def checked(self, where: str) -> ModelConfig:
        """This config, after a check that its sizes are consistent; raises InputError if not."""
        if self.N % self.K:
            raise InputError(f"{where}: {self.N} query heads; expected a multiple of the {self.K} key-value heads")
        in_range = 0 < self.rope_dim <= self.H or (self.learned_positions and not self.rope_dim)
        if self.rope_dim % 2 or not in_range:
            raise InputError(
                f"{where}: {self.rope_dim} rotary dimensions per head; expected an even number from 2 to {self.H}"
            )
        return self
