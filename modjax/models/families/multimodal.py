"""Models that read images too: their files hold a text decoder of one of the families, which alone is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.values import Values

_VISION = ("vision_config", "text_config", "image_token_id", "image_token_index", "processor_class")


@dataclasses.dataclass(frozen=True)
class Multimodal:
    """A model_type whose config.json describes its text decoder under text_config."""

    texts: Mapping[str, str]  # {model_type of text_config: its architecture in transformers}, the default one first
    without_effect: Collection[str]  # keys beside text_config that do not change the text decoder
    only: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {key of text_config: the only supported value}

    def text(self, found: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The config.json of the text decoder alone. Raises InputError for a text_config that is not supported."""
        given = found.get("text_config")
        if not isinstance(given, dict):
            raise InputError(f"{where}: text_config is {given!r}; expected an object")
        model_type, known = given.get("model_type", next(iter(self.texts))), ", ".join(self.texts)
        if not isinstance(model_type, str) or model_type not in self.texts:
            raise InputError(f"{where}: text_config: model_type is {model_type!r}; supported are {known}")
        for key, only in self.only.items():
            Values(given, {}, (), f"{where}: text_config").require(key, only)
        beside = {key: value for key, value in found.items() if key not in self.without_effect}
        # transformers looks at this key beside text_config, not in it.
        tied = {"tie_word_embeddings": found.get("tie_word_embeddings", True)}
        named = {"model_type": model_type, "architectures": [self.texts[model_type]]}
        return beside | given | tied | named


MULTIMODAL = {
    "gemma3": Multimodal(
        texts={"gemma3_text": "Gemma3ForCausalLM"},
        only={"final_logit_softcapping": None},  # transformers leaves it out here
        without_effect=(*_VISION, "boi_token_index", "eoi_token_index", "mm_tokens_per_image"),
    ),
    "mistral3": Multimodal(
        texts={"mistral": "MistralForCausalLM", "ministral3": "Ministral3ForCausalLM"},
        without_effect=(
            *_VISION,
            "multimodal_projector_bias",
            "projector_hidden_act",
            "spatial_merge_size",
            "vision_feature_layer",
        ),
    ),
}
