"""The report of one experiment: a self-contained HTML page and the plain-text table of the command line.

Both show `results`, a plain dictionary that JSON leaves unchanged. Every key is optional, and a section whose key is
absent or empty is left out. METRIC is the name of a metric of `modjax.metrics.METRICS`: `loss` is in nats per
target token; `exact_match`, `rouge_l` and `routing_accuracy` are fractions in [0, 1], shown in percent. Times are in
seconds. A number that is None, NaN or infinite is shown as an en dash.

    title, subtitle   str
    facts             {label: value}: the headline, such as model, tasks, steps, rank, device, wall-clock time
    claims            [{claim, text, figure, metric: METRIC, value, low, high, limit: float,
                        verdict: "held" | "not held" | "undecided" | "not measured"}]; the figure that decides a claim,
                      the ends of its interval, and the limit that it lies above if the claim holds
    methods           [{name, note, in_distribution: SCORES, held_out: SCORES, routing_accuracy,
                        zero_shot: {accuracy, intervals}, benchmarks: {name: accuracy},
                        seconds: {train, build, evaluate, compile, token}, bytes: {experts, temporary, peak}}]
                      SCORES is {METRIC: float, examples: int, intervals: {METRIC: [low, high]}};
                      a method that failed is {name, error: its message}
    resampled         what the intervals of methods are about; by default examples resampled within their tasks
    failed            {library: {expert: step}}: the experts whose loss or gradient was not finite, and the step
    paired            [{part: "in_distribution" | "held_out", metric: METRIC, names: [M],
                        difference: [M][M], low: [M][M], high: [M][M], below: [M][M]}]; the row's score minus the
                      column's, the ends of its interval, and the share of resamples in which it is below 0
    tasks             [{name, family, held_out: bool, cluster: int | None, METRIC: {method: float}}]
    curves            [{name, steps: [int], loss: {expert: [float]},
                        validation: {steps: [int], loss: {expert: [float]}}}], one per trained library
    similarity        {experts: [E], similarity: [E][E], labels: [E], families: [E], adjusted_rand: float}
    analysis          [{name, experts: [E], sites: [S], examples, tokens, accuracy, use: [L][S][E],
                        entropy: [L][S], effective: [L][S], tokens_right: [L][S] | None,
                        examples_right: [L][S] | None}], one per router; see `modjax.eval.Analysis`
    routing           [{library, text, tokens: [T], experts: [E], weights: [L][T][E], expected: str | None}];
                      tokens are decoded strings, weights are means over the sites of a layer
    stages            [{name, seconds}]
    config            the resolved configuration, nested

An expert has the colour of its cluster if `similarity` or `tasks` assigns its name to one, or if it is called
"cluster 3" or "mbc-3".
"""

from modjax.report.page import write
from modjax.report.table import text_table

__all__ = ["text_table", "write"]
