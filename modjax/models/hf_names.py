"""Names of the decoder's parts in the Hugging Face checkpoints of each family."""

from __future__ import annotations

import re

from modjax.models.config import ModelConfig
from modjax.models.weights import AS_IS, Row, table

_BODY, _ENDS = "model.layers.{i}.", {"embed": "model.embed_tokens", "head": "lm_head", "final_norm": "model.norm"}
_ATTENTION = {f"blocks.attn.{letter}": f"{_BODY}self_attn.{letter}_proj" for letter in "qkvo"}
_MLP = {f"blocks.mlp.{name}": f"{_BODY}mlp.{name}_proj" for name in ("gate", "up", "down")}
_PRE_NORMS = {"blocks.attn_norm": _BODY + "input_layernorm", "blocks.mlp_norm": _BODY + "post_attention_layernorm"}
_QK_NORMS = {"blocks.q_norm": _BODY + "self_attn.q_norm", "blocks.k_norm": _BODY + "self_attn.k_norm"}
_LLAMA = _ENDS | _ATTENTION | _MLP | _PRE_NORMS
_NEOX, _GPT = "gpt_neox.layers.{i}.", "transformer.h.{i}."
_GPT_COMMON = {
    "embed": "transformer.wte",
    "position_embed": "transformer.wpe",
    "head": "lm_head",
    "final_norm": "transformer.ln_f",
    "blocks.attn_norm": _GPT + "ln_1",
    "blocks.mlp_norm": _GPT + "ln_2",
}
_GPT_MLP = {"blocks.mlp.fc1": _GPT + "mlp.c_fc", "blocks.mlp.fc2": _GPT + "mlp.c_proj"}

_OLMO2 = (
    _ENDS
    | _ATTENTION
    | _MLP
    | _QK_NORMS
    | {
        "blocks.attn_post_norm": _BODY + "post_attention_layernorm",
        "blocks.mlp_post_norm": _BODY + "post_feedforward_layernorm",
    }
)
_GEMMA2 = (
    _ENDS
    | _ATTENTION
    | _MLP
    | {
        "blocks.attn_norm": _BODY + "input_layernorm",
        "blocks.attn_post_norm": _BODY + "post_attention_layernorm",
        "blocks.mlp_norm": _BODY + "pre_feedforward_layernorm",
        "blocks.mlp_post_norm": _BODY + "post_feedforward_layernorm",
    }
)
_COHERE = _ENDS | _ATTENTION | _MLP | {"blocks.attn_norm": _BODY + "input_layernorm"}

# {family: {part of the decoder: its module in the checkpoint}}, sites in the order of the forward pass.
MODULES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "ministral3": _LLAMA,
    "smollm3": _LLAMA,
    "granite": _LLAMA,
    "phi": _ENDS
    | _ATTENTION
    | {
        "final_norm": "model.final_layernorm",
        "blocks.attn_norm": _BODY + "input_layernorm",
        "blocks.q_norm": _BODY + "self_attn.q_layernorm",
        "blocks.k_norm": _BODY + "self_attn.k_layernorm",
        "blocks.attn.o": _BODY + "self_attn.dense",
        "blocks.mlp.fc1": _BODY + "mlp.fc1",
        "blocks.mlp.fc2": _BODY + "mlp.fc2",
    },
    "phi3": _ENDS
    | _PRE_NORMS
    | {
        "blocks.attn.qkv": _BODY + "self_attn.qkv_proj",
        "blocks.attn.o": _BODY + "self_attn.o_proj",
        "blocks.mlp.gate_up": _BODY + "mlp.gate_up_proj",
        "blocks.mlp.down": _BODY + "mlp.down_proj",
    },
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | _QK_NORMS,
    "gpt_neox": {
        "embed": "gpt_neox.embed_in",
        "head": "embed_out",
        "final_norm": "gpt_neox.final_layer_norm",
        "blocks.attn_norm": _NEOX + "input_layernorm",
        "blocks.mlp_norm": _NEOX + "post_attention_layernorm",
        "blocks.attn.qkv": _NEOX + "attention.query_key_value",
        "blocks.attn.o": _NEOX + "attention.dense",
        "blocks.mlp.fc1": _NEOX + "mlp.dense_h_to_4h",
        "blocks.mlp.fc2": _NEOX + "mlp.dense_4h_to_h",
    },
    "gpt_neo": _GPT_COMMON
    | {f"blocks.attn.{letter}": f"{_GPT}attn.attention.{letter}_proj" for letter in "qkv"}
    | {"blocks.attn.o": _GPT + "attn.attention.out_proj"}
    | _GPT_MLP,
    "gpt2": _GPT_COMMON | {"blocks.attn.qkv": _GPT + "attn.c_attn", "blocks.attn.o": _GPT + "attn.c_proj"} | _GPT_MLP,
    "olmo": _ENDS | _ATTENTION | _MLP,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2 | _QK_NORMS,
    "stablelm": _LLAMA,
    "starcoder2": _ENDS
    | _ATTENTION
    | _PRE_NORMS
    | {"blocks.mlp.fc1": _BODY + "mlp.c_fc", "blocks.mlp.fc2": _BODY + "mlp.c_proj"},
    "cohere": _COHERE | _QK_NORMS,
    "cohere2": _COHERE,
}
# Within a multimodal model, the text decoder has a prefix.
MODULES |= {
    family: {part: re.sub(r"^model\.", "model.language_model.", path) for part, path in MODULES[text].items()}
    for family, text in (("gemma3", "gemma3_text"), ("mistral3", "mistral"))
}
# {beginning of a name: what transformers 4.52 and later say}, in multimodal checkpoints and their adapters.
OLDER = {"language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head"}
VISION = r"(model\.)?(vision_tower|multi_modal_projector)\..*"  # tensors of multimodal checkpoints that are not read
# GPT-2's linear maps are Conv1D modules, which store weights as [I, O], like our kernels.
TRANSFORMS = {
    "gpt2": {f"{part}.kernel": AS_IS for part in MODULES["gpt2"] if part.startswith(("blocks.attn.", "blocks.mlp."))}
}


def current(name: str) -> str:
    """The name that the current version of transformers gives to the module or tensor of this name."""
    for older, newer in OLDER.items():
        if name.startswith(older):
            return newer + name.removeprefix(older)
    return name


def rows(config: ModelConfig) -> dict[str, Row]:
    """{leaf path: Row}: the tensor of a checkpoint of this family that fills each leaf of the decoder."""
    modules = MODULES[config.family]
    found = table(modules, TRANSFORMS.get(config.family))
    found["tied_bias"] = Row(f"{modules['head']}.bias", AS_IS)
    if config.learned_positions:
        found["position_embed"] = Row(f"{modules['position_embed']}.weight", AS_IS)
    return found
