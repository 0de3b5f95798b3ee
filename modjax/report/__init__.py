"""The report of one experiment: a self-contained HTML page and the plain-text table of the command line.

Both are drawn from `results`, a plain dictionary that survives JSON unchanged. Every key is optional, and
a section whose key is absent or empty is left out. Losses are in nats per target token; `exact_match`,
`rougeL` and `routing_accuracy` are fractions in [0, 1] and are shown as percentages; times are in seconds.
A number that is None, NaN or infinite is shown as an en dash.

    title, subtitle   str
    facts             {label: value}: the headline, such as model, tasks, steps, rank, device, wall-clock
    methods           [{name, note, in_distribution: SCORES, held_out: SCORES,
                        seconds: {train, evaluate}, routing_accuracy}]
                      SCORES is {loss, exact_match, rougeL, examples}
    tasks             [{name, family, held_out: bool, cluster: int | None,
                        loss: {method: float}, exact_match: {method: float}, rougeL: {method: float}}]
    curves            [{name, steps: [int], loss: {expert: [float]},
                        validation: {steps: [int], loss: {expert: [float]}}}], one for each library trained
    similarity        {names: [E], matrix: [E][E], labels: [E], families: [E], adjusted_rand: float}
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
