"""Operations that a step needs, by the formulas of its products."""

from modjax.models.config import ModelConfig


def flops(config: ModelConfig, tokens: int, targets: int, pairs: int, remat: bool = False) -> float:
    """Operations of the model, forward and backward through the frozen base; those of adapters are not counted.

    tokens: number of tokens that are read. targets: those that are predicted. pairs: of a query and a key it reads.
    remat: count those that recompute blocks too.
    """
    weights = config.L * sum(inputs * outputs for inputs, outputs in config.sites.values())
    heads = config.L * config.N * config.H
    again = 2 * weights * tokens + 4 * heads * pairs if remat else 0
    return 4 * weights * tokens + 4 * config.D * config.V * targets + 12 * heads * pairs + again
