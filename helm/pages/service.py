"""How the service does: requests, latency, the error budget, and what goes on in the server."""

from helm.pages.panel import RATE, Page, Panel, R

_ASKED = f'chiffre_requests_total{{{R},route=~"predict|infer"}}'


def _quantiles(metric: str, selector: str) -> tuple[tuple[str, str], ...]:
    rate = f"sum by (le) (rate({metric}_bucket{{{selector}}}{RATE}))"
    return tuple((f"histogram_quantile({q}, {rate})", f"p{100 * q:.0f}") for q in (0.5, 0.95, 0.99))


PAGE = Page(
    name="service",
    title="Chiffre: service",
    rows={
        "Requests": (
            Panel(
                title="Predictions asked for",
                description="By protocol, a second.",
                queries=((f"sum by (protocol) (rate({_ASKED}{RATE}))", "{{protocol}}"),),
                unit="reqps",
            ),
            Panel(
                title="Answers that are none",
                description="By status, a second: requests that were wrong, and what the server failed at.",
                queries=((f'sum by (status) (rate(chiffre_requests_total{{{R},status!~"200|OK"}}{RATE}))', "{{status}}"),),
                unit="reqps",
            ),
            Panel(
                title="Firing alerts",
                description="Of this release; each has a page in docs/runbooks.",
                queries=((f'sum by (alertname, severity) (ALERTS{{{R},alertstate="firing"}})', "{{alertname}}"),),
                kind="table",
            ),
        ),
        "Latency": (
            Panel(
                title="From request to answer",
                description="In the server; from zero pods a request waits at Knative's activator before.",
                queries=_quantiles("chiffre_request_duration_seconds", R),
                unit="s",
            ),
            Panel(
                title="Answers by how long they took",
                description="Requests in each bucket of the latency histogram.",
                queries=((f"sum by (le) (increase(chiffre_request_duration_seconds_bucket{{{R}}}{RATE}))", "{{le}}"),),
                unit="s",
                kind="heatmap",
            ),
            Panel(
                title="Share of answers later than the objective",
                description="By objective (slo.latencyMilliseconds), over 5 minutes and an hour.",
                queries=(
                    (f"chiffre:slow:ratio5m{{{R}}}", "{{objective}}, 5 min"),
                    (f"chiffre:slow:ratio1h{{{R}}}", "{{objective}}, 1 h"),
                ),
                unit="percentunit",
            ),
        ),
        "Error budget": (
            Panel(
                title="Share of requests that failed",
                description="5xx, UNAVAILABLE, INTERNAL and RESOURCE_EXHAUSTED, over the windows that the alerts look at.",
                queries=tuple((f"chiffre:failures:ratio{window}{{{R}}}", window) for window in ("5m", "1h", "6h", "1d", "3d")),
                unit="percentunit",
                width=16,
            ),
            Panel(
                title="Failed requests",
                description="In the 5 minutes before.",
                queries=((f"chiffre:failures:increase5m{{{R}}}", "failed"), (f"chiffre:asked:increase5m{{{R}}}", "all")),
            ),
        ),
        "Inside the server": (
            Panel(
                title="In flight",
                description="Requests that are not answered yet, by pod.",
                queries=((f"chiffre_requests_in_flight{{{R}}}", "{{pod}}"),),
            ),
            Panel(
                title="Waiting for a batch",
                description="From a decoded request to the batch that took it.",
                queries=_quantiles("chiffre_queue_seconds", R),
                unit="s",
            ),
            Panel(
                title="Images of a batch",
                description="On average.",
                queries=(
                    (
                        f"sum(rate(chiffre_batch_images_sum{{{R}}}{RATE})) / sum(rate(chiffre_batch_images_count{{{R}}}{RATE}))",
                        "images",
                    ),
                ),
            ),
            Panel(
                title="What serves",
                description="Pods by version of the model, engine and run.",
                queries=((f"count by (version, engine, run_id) (chiffre_model_info{{{R}}})", "version {{version}}, {{engine}}"),),
                width=12,
            ),
            Panel(
                title="Phases of the start",
                description="The slowest of the pods that are there.",
                queries=((f"max by (phase) (chiffre_startup_seconds{{{R}}})", "{{phase}}"),),
                unit="s",
                width=12,
            ),
        ),
    },
)
