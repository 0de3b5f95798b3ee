"""The report of one experiment: a self-contained HTML page and the plain-text table of the command line.

Both are drawn from `results`, a plain dictionary that survives JSON unchanged. Every key is optional, and
a section whose key is absent or empty is left out. Losses are in nats per target token; `exact_match`,
`rougeL` and `routing_accuracy` are fractions in [0, 1] and are shown as percentages; times are in seconds.
A number that is None, NaN or infinite is shown as an en dash.

    title, subtitle   str
    facts             {label: value}: the headline, such as model, tasks, steps, rank, device, wall-clock
    methods           [{name, note, in_distribution: SCORES, held_out: SCORES, routing_accuracy,
                        seconds: {train, build, evaluate, compile, token}, bytes: {experts, temporary, peak}}]
                      SCORES is {loss, exact_match, rougeL, examples, intervals: {metric: [low, high]}};
                      a method that failed is {name, error}, what it failed of
    paired            [{part: "in_distribution" | "held_out", metric, names: [M],
                        difference: [M][M], low: [M][M], high: [M][M], below: [M][M]}]; the row's score less the
                      column's, the ends of its interval, and the share of resamples in which it is below 0
    tasks             [{name, family, held_out: bool, cluster: int | None,
                        loss: {method: float}, exact_match: {method: float}, rougeL: {method: float}}]
    curves            [{name, steps: [int], loss: {expert: [float]},
                        validation: {steps: [int], loss: {expert: [float]}}}], one for each library trained
    similarity        {names: [E], matrix: [E][E], labels: [E], families: [E], adjusted_rand: float}
    analysis          [{name, experts: [E], sites: [S], examples, tokens, accuracy, use: [L][S][E],
                        entropy: [L][S], effective: [L][S], tokens_right: [L][S] | None,
                        examples_right: [L][S] | None}], one for each router; see `modjax.eval.Analysis`
    routing           [{library, text, tokens: [T], experts: [E], weights: [L][T][E], expected: str | None}];
                      tokens are decoded strings, weights are means over the sites of a layer
    stages            [{name, seconds}]
    config            the resolved configuration, nested as it was given

An expert takes the colour of its cluster where `similarity` or `tasks` places its name in one, or where it is
called "cluster 3" or "mbc-3".
"""

from modjax.report.page import write
from modjax.report.table import text_table

__all__ = ["text_table", "write"]
