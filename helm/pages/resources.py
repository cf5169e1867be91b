"""What the service runs on: pods, processors, memory, and Knative's scale."""

from helm.pages.panel import RATE, Page, Panel, R

# kube-state-metrics and the kubelet know pods by their names alone, Knative its service.
_PODS = 'namespace="$namespace",pod=~"$release-predictor-.+"'
_CONTAINER = f'{_PODS},container="kserve-container"'
_KNATIVE = 'k8s_namespace_name="$namespace",kn_service_name="$release-predictor"'

# The queue-proxies count under the same name.
_ACTIVATOR = f'http_server_request_duration_seconds_count{{{_KNATIVE},container_name=""}}'

PAGE = Page(
    name="resources",
    title="Chiffre: resources",
    rows={
        "Pods": (
            Panel(
                title="Pods by phase",
                description="What ended is in no phase that counts.",
                queries=((f"sum by (phase) (kube_pod_status_phase{{{_PODS}}})", "{{phase}}"),),
            ),
            Panel(
                title="Ready pods",
                description="Beside those that are there, and those that answer Prometheus.",
                queries=(
                    (f"chiffre:pods:ready{{{R}}}", "ready"),
                    (f"chiffre:pods:count{{{R}}}", "there"),
                    (f"sum(up{{{R}}})", "answer"),
                ),
            ),
            Panel(
                title="Starts and ends",
                description="Restarts of the server's container, and of processes within it, in the 30 minutes before.",
                queries=(
                    (f"sum by (pod) (increase(kube_pod_container_status_restarts_total{{{_CONTAINER}}}[30m]))", "{{pod}}"),
                    (f"sum by (pod) (increase(chiffre_worker_restarts_total{{{R}}}[30m]))", "{{pod}}, processes"),
                ),
            ),
            Panel(
                title="Why containers ended",
                description="The last time, by reason.",
                queries=((f"sum by (reason) (kube_pod_container_status_last_terminated_reason{{{_CONTAINER}}})", "{{reason}}"),),
            ),
            Panel(
                title="From a pod's creation to its readiness",
                description="By the second, pods of the last 10 minutes.",
                queries=((f"chiffre:start:seconds{{{R}}}", "mean"),),
                unit="s",
            ),
            Panel(
                title="Deployments",
                description="Replicas that are available and wanted.",
                queries=tuple(
                    (f'sum({metric}{{namespace="$namespace",deployment=~"$release-predictor.*"}})', legend)
                    for metric, legend in (
                        ("kube_deployment_status_replicas_available", "available"),
                        ("kube_deployment_spec_replicas", "wanted"),
                    )
                ),
            ),
        ),
        "Processors and memory": (
            Panel(
                title="Processors",
                description="Used by the server, and its limit.",
                queries=(
                    (f"chiffre:cpu:rate5m{{{R}}}", "{{pod}}"),
                    (f'max(kube_pod_container_resource_limits{{{_CONTAINER},resource="cpu"}})', "limit"),
                    (f'max(kube_pod_container_resource_requests{{{_CONTAINER},resource="cpu"}})', "request"),
                ),
            ),
            Panel(
                title="Held back by the limit",
                description="Share of the scheduler's periods in which the server had to wait.",
                queries=((f"chiffre:cpu_throttled:ratio5m{{{R}}}", "{{pod}}"),),
                unit="percentunit",
            ),
            Panel(
                title="Memory",
                description="The working set, which the kernel holds against the limit.",
                queries=(
                    (f"max by (pod) (container_memory_working_set_bytes{{{_CONTAINER}}})", "{{pod}}"),
                    (f'max(kube_pod_container_resource_limits{{{_CONTAINER},resource="memory"}})', "limit"),
                ),
                unit="bytes",
            ),
        ),
        "Knative": (
            Panel(
                title="Scale",
                description="Pods that the autoscaler wants, and has, by revision.",
                queries=(
                    (f"sum by (kn_revision_name) (kn_revision_pods_desired{{{_KNATIVE}}})", "{{kn_revision_name}}, wanted"),
                    (f"sum by (kn_revision_name) (kn_revision_pods_count{{{_KNATIVE}}})", "{{kn_revision_name}}"),
                ),
            ),
            Panel(
                title="Requests at once in a pod",
                description="As the autoscaler averages them, and what it holds them to; over 0, panic mode scales fast.",
                queries=(
                    (f"max(kn_revision_concurrency_stable{{{_KNATIVE}}})", "at once"),
                    (f"max(kn_revision_concurrency_target{{{_KNATIVE}}})", "target"),
                    (f"max(kn_revision_panic_mode{{{_KNATIVE}}})", "panic mode"),
                ),
            ),
            Panel(
                title="Waiting outside the server",
                description="At the activator, which holds requests while there is no pod, and in the pods' queue-proxies.",
                queries=(
                    (f"sum(kn_revision_request_concurrency{{{_KNATIVE}}})", "activator"),
                    (f"sum(kn_serving_queue_depth{{{_KNATIVE}}})", "queue-proxy"),
                ),
            ),
            Panel(
                title="What the activator answered",
                description="By status, a second.",
                queries=((f"sum by (http_response_status_code) (rate({_ACTIVATOR}{RATE}))", "{{http_response_status_code}}"),),
                unit="reqps",
            ),
        ),
    },
)
