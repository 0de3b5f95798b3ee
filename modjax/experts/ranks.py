"""The rank of each expert in each layer: as recorded from its file, if its factors still agree."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.experts.info import ExpertInfo
from modjax.ops.lora import LoRA


def ranks(loras: Mapping[str, LoRA], infos: Sequence[ExpertInfo]) -> dict[str, np.ndarray]:
    """{site: int[L,E]}; see `Library.ranks`."""
    used_LE = {site: np.asarray(_used_rows(lora)) for site, lora in loras.items()}
    columns = [_of_expert(info, {site: used_LE[site][:, e] for site in used_LE}) for e, info in enumerate(infos)]
    return {site: np.stack([column[site] for column in columns], axis=1) for site in loras}


@jax.jit
def _used_rows(lora):
    """int32[L,E]: the number of rows up to the last one in which A or B is not zero."""
    used_LER = jnp.any(lora.a != 0, axis=-1) | jnp.any(lora.b != 0, axis=-1)
    rows_R = jnp.arange(1, used_LER.shape[2] + 1)
    return jnp.max(jnp.where(used_LER, rows_R[None, None], 0), axis=-1)


def _of_expert(info, used):
    """{site: int[L]} of one expert.

    used: {site: int[L]}, the number of rows up to the last one that is not zero.
    """
    filed = dict(info.ranks)
    recorded = {site: np.asarray(filed.get(site, np.zeros(len(rows))), int) for site, rows in used.items()}
    if filed and all(
        recorded[site].shape == rows.shape and (recorded[site] >= rows).all() for site, rows in used.items()
    ):
        return recorded
    untrained = not any(rows.any() for rows in used.values())
    return {site: np.where((rows > 0) | untrained, np.maximum(info.rank, rows), 0) for site, rows in used.items()}
