"""Model families that modjax does not support, told by the names of their modules, for messages alone."""

import re
from collections.abc import Iterable

# {name: regular expression of a module's path, of which any part may match}; the first that matches applies.
PATTERNS = {
    "a Stable Diffusion or CLIP model": r"to_[qkv]$|to_out\.0$|text_model\.encoder\.|transformer_blocks\.",
    "the vision part of a multimodal model": r"vision|visual|mm_projector|multi_modal_projector",
    "a multimodal model": r"^(model\.)?language_model\.",
    "a mixture of experts": r"\.experts?\b|block_sparse_moe|shared_expert|\.router\b|mlp\.gate$",
    "OPT": r"decoder\.layers\.\d+\.(self_attn\.(out|[qkv])_proj|fc[12])$",
    "BLOOM or Falcon": r"\bh\.\d+\.(self_attention\.|mlp\.dense_)|word_embeddings",
    "ChatGLM": r"(encoder\.layers|^transformer\.layers)\.\d+\.(self_attention|attention|mlp)\.",
    "MPT or DBRX": r"\bblocks\.\d+\.(attn|ffn|norm_attn_norm)\.",
    "GPT-J": r"\bh\.\d+\.(attn\.([qkv]|out)_proj|mlp\.fc_(in|out))$",
    "CodeGen": r"\bh\.\d+\.attn\.qkv_proj$",
    "Qwen 1": r"\bh\.\d+\.mlp\.w[12]$",
    "Phi of Microsoft's own code": r"\.mixer\.(Wqkv|out_proj)$",
    "Baichuan": r"\.W_pack$",
    "InternLM2": r"\.attention\.w(qkv|o)$|\.feed_forward\.w[123]$",
    "DeepSeek's latent attention": r"\.(kv_a_proj_with_mqa|kv_b_proj|q_a_proj|q_b_proj)$",
    "a gated delta net": r"\.linear_attn\.",
    "a state space model": r"\.mixer\.(in|x|dt|out)_proj$|\bmamba\b",
    "RWKV": r"\.(attention|feed_forward)\.(key|value|receptance|output)$",
    "T5": r"\bblock\.\d+\.layer\.\d+\.",
    "BERT": r"encoder\.layer\.\d+\.",
    "an encoder-decoder model": r"\b(encoder|decoder)\.layers\.\d+\.",
}


def name_of(modules: Iterable[str]) -> str | None:
    """The name of the family that one of these modules seems to belong to; None if there is none."""
    modules = list(modules)
    return next((name for name, pattern in PATTERNS.items() if any(re.search(pattern, one) for one in modules)), None)
