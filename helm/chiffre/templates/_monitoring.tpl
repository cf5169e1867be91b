{{/* What rules and scraping are made of. */}}

{{/*
Bounds of the latency histogram's buckets in seconds: LATENCY_BUCKETS in serving/metrics.py, which a test holds to be the same.
*/}}
{{- define "chiffre.latencyBuckets" -}}
[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 2.5, 10]
{{- end }}

{{/*
The bucket that counts the requests within so many milliseconds, as a selector; between two bounds the greater, so that no alert
is about requests that were within the objective. Prometheus 3 writes a whole number with ".0". Empty beyond the last.
*/}}
{{- define "chiffre.bucket" -}}
{{- $found := dict -}}
{{- range include "chiffre.latencyBuckets" . | fromJsonArray -}}
{{- if and (not $found.le) (ge (mulf . 1000) (float64 $)) -}}
{{- $_ := set $found "le" (toString .) -}}
{{- end -}}
{{- end -}}
{{- with $found.le -}}
{{- if contains "." . }}le="{{ . }}"{{ else }}le=~"{{ . }}(\\.0)?"{{ end -}}
{{- end -}}
{{- end }}

{{/*
The pods' names, which is all that the kubelet and kube-state-metrics know them by: of a revision's Deployment in Knative mode, of
KServe's own in Standard mode.
*/}}
{{- define "chiffre.pods" -}}
{{ .Release.Name }}-predictor-{{ ternary "[0-9]{5,}-deployment-[a-z0-9]+-[a-z0-9]+" "[a-z0-9]+-[a-z0-9]+" (eq .Values.mode "Knative") }}
{{- end }}

{{/*
What share of requests may fail (list budget root) before a budget of the whole window burns so fast that hours of it take a part
of all: 2 % in 1 hour and 5 % in 6 wake somebody, 10 % in 1 day and in 3 do not (The Site Reliability Workbook, chapter 5). A burn
that the window bears is no alert, however short the window, and the share stays one that can be reached.
*/}}
{{- define "chiffre.burns" -}}
{{- $days := index . 1 -}}
{{- $budget := index . 0 -}}
{{- $rates := dict "1h" (mulf 0.02 24 $days) "6h" (mulf 0.05 4 $days) "1d" (mulf 0.1 $days) "3d" (divf (mulf 0.1 $days) 3) -}}
{{- $shares := dict -}}
{{- range $hours, $rate := $rates -}}
{{- $_ := set $shares $hours (minf 0.9 (mulf $budget (maxf 1 $rate))) -}}
{{- end -}}
{{- toJson $shares -}}
{{- end }}

{{/* What stands for the release in rules/*.yaml. */}}
{{- define "chiffre.tokens" -}}
{{- $slo := .Values.slo -}}
{{- $name := .Release.Name -}}
{{- $tokens := dict
  "$release" (printf "namespace=%q,inferenceservice=%q" .Release.Namespace $name)
  "$pods" (printf "namespace=%q,pod=~%q" .Release.Namespace (include "chiffre.pods" .))
  "$service" (printf "k8s_namespace_name=%q,kn_service_name=%q" .Release.Namespace (printf "%s-predictor" $name))
  "$namespace" .Release.Namespace
  "$inferenceservice" $name
  "$runbooks" .Values.monitoring.rules.runbooks
  "$availability" (toString $slo.availability)
  "$windowDays" (toString $slo.windowDays)
  "$coldStartSeconds" (toString $slo.coldStartSeconds)
  "$leastPods" (include "chiffre.minReplicas" .)
  "$mostPods" (toString .Values.scale.max)
-}}
{{- $budgets := dict "availability" (subf 1 $slo.availability) -}}
{{- range $name, $milliseconds := $slo.latencyMilliseconds -}}
{{- $_ := set $budgets $name (subf 1 (divf (trimPrefix "p" $name | float64) 100)) -}}
{{- $_ := set $tokens (printf "$%s_seconds" $name) (toString (divf $milliseconds 1000)) -}}
{{- $_ := set $tokens (printf "$%s_bucket" $name) (include "chiffre.bucket" $milliseconds) -}}
{{- end -}}
{{- range $name, $budget := $budgets -}}
{{- range $hours, $share := include "chiffre.burns" (list $budget $slo.windowDays) | fromJson -}}
{{- $_ := set $tokens (printf "$%s_burn_%s" $name $hours) (toString $share) -}}
{{- end -}}
{{- end -}}
{{- toJson $tokens -}}
{{- end }}

{{/*
The groups of rules/*.yaml by the name of their file. Tokens are replaced in JSON, where each of them is in a string; a longer one
first, since another may begin like it.
*/}}
{{- define "chiffre.ruleGroups" -}}
{{- $tokens := include "chiffre.tokens" . | fromJson -}}
{{- $groups := dict -}}
{{- range $path, $_ := .Files.Glob "rules/*.yaml" -}}
{{- $group := $.Files.Get $path | fromYaml -}}
{{- with $group.Error }}{{ fail (printf "%s: %s" $path .) }}{{ end -}}
{{- $text := toJson $group -}}
{{- range keys $tokens | sortAlpha | reverse -}}
{{- $text = replace . (get $tokens . | toJson | trimPrefix "\"" | trimSuffix "\"") $text -}}
{{- end -}}
{{- $_ := set $groups (base $path) (fromJson $text) -}}
{{- end -}}
{{- toJson $groups -}}
{{- end }}

{{/*
From the pods that Prometheus finds to targets, in the operator's words. The server's container has one port, gRPC's at times, and
under Knative by another name; metrics are REST's.
*/}}
{{- define "chiffre.relabelings" -}}
- action: keep
  sourceLabels: [__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice, __meta_kubernetes_pod_container_name]
  regex: {{ .Release.Name }};kserve-container
- action: drop
  sourceLabels: [__meta_kubernetes_pod_phase]
  regex: Pending|Succeeded|Failed
- sourceLabels: [__address__]
  regex: (.+):[0-9]+
  targetLabel: __address__
  replacement: $1:8080
- sourceLabels: [__meta_kubernetes_namespace]
  targetLabel: namespace
- sourceLabels: [__meta_kubernetes_pod_name]
  targetLabel: pod
- sourceLabels: [__meta_kubernetes_pod_label_serving_kserve_io_inferenceservice]
  targetLabel: inferenceservice
- sourceLabels: [__meta_kubernetes_pod_label_serving_knative_dev_revision]
  targetLabel: revision
{{- end }}

{{- define "chiffre.monitoringLabels" -}}
{{ include "chiffre.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The same in Prometheus' own words. */}}
{{- define "chiffre.scrapeConfig" -}}
scrape_configs:
  - job_name: {{ .Release.Namespace }}/{{ .Release.Name }}
    scrape_interval: {{ .Values.monitoring.scrape.intervalSeconds | int }}s
    kubernetes_sd_configs:
      - role: pod
        namespaces:
          names: [{{ .Release.Namespace }}]
    relabel_configs:
      {{- include "chiffre.relabelings" . | replace "sourceLabels" "source_labels" | replace "targetLabel" "target_label" | nindent 6 }}
{{- end }}
