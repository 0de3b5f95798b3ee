"""Keys of a config.json that many families share, and what their absence means."""

SIZES = {
    "V": "vocab_size",
    "D": "hidden_size",
    "N": "num_attention_heads",
    "F": "intermediate_size",
    "L": "num_hidden_layers",
    "context": "max_position_embeddings",
    "K": "num_key_value_heads",
    "H": "head_dim",
}
RMS = {"norm_eps": ("number", "rms_norm_eps"), "tied": ("flag", "tie_word_embeddings")}
QKV_AND_OUT = {"qkv_bias": ("flag", "attention_bias"), "out_bias": ("flag", "attention_bias")}
ROPE_DEFAULTS = {
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 1.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "original_max_position_embeddings": None,
}
RMS_DEFAULTS = ROPE_DEFAULTS | {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False}
