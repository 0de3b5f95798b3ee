"""Family: a table that maps the config.json of one model_type to the fields of a ModelConfig."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.hf_config import Sizes
from modjax.models.values import Values

# Keys that any config.json may have and that do not change what a decoder computes from given weights.
_WITHOUT_EFFECT = """
    _attn_implementation _attn_implementation_autoset _name_or_path architectures attention_dropout attn_implementation
    attn_pdrop auto_map bos_token_id cache_implementation chunk_size_feed_forward classifier_dropout do_sample dtype
    embd_pdrop embed_dropout eos_token_id finetuning_task gradient_checkpointing hidden_dropout id2label
    initializer_range is_decoder label2id max_length model_type num_labels output_attentions output_hidden_states
    pad_token_id prefix pretraining_tp problem_type pruned_heads resid_dropout resid_pdrop return_dict sep_token_id
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj task_specific_params
    temperature tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config transformers_version
    unsloth_version use_cache
"""
WITHOUT_EFFECT = frozenset(_WITHOUT_EFFECT.split())

# Keys that must be absent or have this value in every family.
ONLY = {
    "quantization_config": None,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "rope_interleaved": False,
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
        return WITHOUT_EFFECT.union(self.sizes.values(), used, self.defaults, ONLY, self.only, self.without_effect)

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
