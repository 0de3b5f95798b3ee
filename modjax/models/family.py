"""Family: a table that maps the config.json of one model_type to the fields of a ModelConfig."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.hf_config import Sizes
from modjax.models.values import Values

# Keys that any config.json may have and that do not change what a decoder computes from given weights: names and
# formats, tokens, settings of sampling, of training, of other heads and of implementations, and what tools leave.
_WITHOUT_EFFECT = """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _flash_attn_2_enabled
    _name_or_path _num_labels add_bos_token add_eos_token architectures attn_implementation auto_map bad_words_ids
    base_model_name begin_suppress_tokens bf16 bos_token bos_token_id cache_implementation chunk_size_feed_forward
    cross_attention_hidden_size custom_pipelines decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token eos_token_id exponential_decay_length_penalty
    finetuning_task flash_attn forced_bos_token_id forced_eos_token_id fp16 fp32 full_attn_mod fused_dense
    gradient_checkpointing gradient_checkpointing_kwargs id2label initializer_range interpolate_factor is_decoder
    keys_to_ignore_at_inference label2id length_penalty license max_length max_new_tokens max_sequence_length
    min_length model_max_length model_name model_type n_special name neftune_noise_alpha no_repeat_ngram_size
    num_beam_groups num_beams num_labels num_return_sequences output_attentions output_hidden_states output_past
    output_router_logits output_scores pad_token pad_token_id predict_special_tokens prefix pretraining_tp
    problem_type pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id seq_length suppress_tokens summary_activation summary_proj_to_labels summary_type summary_use_proj
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class tokenizer_model_max_length
    top_k top_p torch_dtype torchscript transformers.js_config typical_p unk_token unk_token_id unsloth_fixed
    use_bfloat16 use_cache use_flash_attention use_flash_attention_2 use_flash_attn use_return_dict xla_device
"""
WITHOUT_EFFECT = frozenset(_WITHOUT_EFFECT.split())
# Keys without effect by what they are about: dropout is for training alone, and versions are of tools.
KINDS_WITHOUT_EFFECT = re.compile(r".*(dropout.*|_pdrop|_version)")
# Keys of the format of quantised weights.
QUANTISED = ("quantization_config", "compression_config", "quantization")

# Keys that must be absent or have this value in every family.
ONLY = {
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "rope_interleaved": False,
    "lm_head_bias": False,
}


@dataclasses.dataclass(frozen=True)
class Family:
    """The keys of one model_type's config.json, and how they give the fields of a ModelConfig."""

    sizes: Mapping[str, str]  # {letter of the size: its key}
    keys: Mapping[str, tuple[str, str]]  # {field: (method of Values that reads it, key)}
    fixed: Mapping[str, Any]  # {field: its value in every model of the family}
    derived: tuple[Callable[[Values, Sizes], dict[str, Any]], ...]  # functions that return the other fields
    defaults: Mapping[str, Any]  # {key: value if it is absent}
    only: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {key: the only supported value}
    nullable: tuple[str, ...] = ()  # keys for which null does not mean the default
    without_effect: tuple[str, ...] = ()  # ignored keys, in addition to WITHOUT_EFFECT

    @property
    def known(self) -> Collection[str]:
        """All keys that are read, checked or known to have no effect."""
        used = {key for _, key in self.keys.values()}
        return WITHOUT_EFFECT.union(
            self.sizes.values(), used, self.defaults, ONLY, QUANTISED, self.only, self.without_effect
        )

    def read_sizes(self, values: Values) -> dict[str, int]:
        """{letter: size}; if not given, K is N, H is D / N and, where its key may be null, F is 4 D.

        Raises InputError for invalid sizes and for a D that N does not divide while H is not given.
        """
        optional = {"K", "H"} | ({"F"} if self.sizes["F"] in self.nullable else set())
        sizes = {
            letter: values.size(key)
            for letter, key in self.sizes.items()
            if letter not in optional or values[key] is not None
        }
        if "H" not in sizes and sizes["D"] % sizes["N"]:
            raise InputError(
                f"{values.where}: {self.sizes['D']} is {sizes['D']}; expected a multiple of {self.sizes['N']} "
                f"= {sizes['N']}, because head_dim is not given"
            )
        return {"K": sizes["N"], "H": sizes["D"] // sizes["N"], "F": 4 * sizes["D"]} | sizes


def check_unquantised(values: Values) -> None:
    """Raises InputError for a checkpoint of quantised weights; it names the method, and the model if the file does."""
    for key in QUANTISED:
        found = values.inner(key)
        if not found:
            continue
        method = found.get("quant_method") or _method(key, found)
        origin = values["_name_or_path"]
        named = f"; the file names {origin!r}" if origin and isinstance(origin, str) else ""
        raise InputError(
            f"{values.where}: the weights are quantised ({key}: {method}), which modjax does not read; take the "
            f"unquantised model{named}. To save memory, load that with quantize='nf4' or 'int8'"
        )


def _method(key: str, found: Mapping[str, Any]) -> str:
    if key == "quantization":
        return "mlx"
    return "bitsandbytes" if any(name.startswith("load_in_") for name in found) else "unknown method"
