{{/* The parts that several templates share. */}}

{{/* Labels that stay the same from release to release: KServe passes them on to the pods, and a change would make a revision. */}}
{{- define "chiffre.labels" -}}
{{ include "chiffre.selector" . }}
app.kubernetes.io/part-of: chiffre
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "chiffre.selector" -}}
app.kubernetes.io/name: chiffre
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "chiffre.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "chiffre.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary .Release.Name "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* What a container needs under the restricted Pod Security Standard; the numbers are the image's. */}}
{{- define "chiffre.securityContext" -}}
runAsUser: 10001
runAsGroup: 10001
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* A value, or where it is null the one of the mode: (list value knative standard root). */}}
{{- define "chiffre.either" -}}
{{- $value := index . 0 -}}
{{- if kindIs "invalid" $value -}}
{{- $value = ternary (index . 1) (index . 2) (eq (index . 3).Values.mode "Knative") -}}
{{- end -}}
{{- /* YAML's numbers arrive as floats, and a large one would be written 1e+06. */ -}}
{{- if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end -}}
{{- end }}

{{- define "chiffre.metric" -}}
{{ include "chiffre.either" (list .Values.scale.metric "concurrency" "cpu" .) }}
{{- end }}

{{- define "chiffre.target" -}}
{{- $default := get (dict "concurrency" 32 "rps" 500 "cpu" 80 "memory" 80) (include "chiffre.metric" .) -}}
{{ include "chiffre.either" (list .Values.scale.target $default $default .) }}
{{- end }}

{{- define "chiffre.minReplicas" -}}
{{ include "chiffre.either" (list .Values.scale.min 0 2 .) }}
{{- end }}

{{- define "chiffre.shadowRequests" -}}
{{ include "chiffre.either" (list .Values.shadow.requests 64 0 .) }}
{{- end }}

{{- define "chiffre.drainSeconds" -}}
{{ include "chiffre.either" (list .Values.shutdown.drainSeconds 0 2 .) }}
{{- end }}

{{- define "chiffre.preStopSeconds" -}}
{{ include "chiffre.either" (list .Values.shutdown.preStopSeconds 0 5 .) }}
{{- end }}

{{/*
How long a pod may take to end. Knative's queue-proxy holds a pod until it saw no request for 30 s; the server kills its workers 3 s
after it asked them to stop.
*/}}
{{- define "chiffre.endSeconds" -}}
{{- $before := ternary 30 (int (include "chiffre.preStopSeconds" .)) (eq .Values.mode "Knative") -}}
{{ add $before (int (include "chiffre.drainSeconds" .)) (int .Values.shutdown.graceSeconds) 5 }}
{{- end }}

{{/* The port that the service speaks at; Knative takes one only, and gRPC by this name. */}}
{{- define "chiffre.port" -}}
{{- if eq .Values.protocol "grpc" -}}
name: h2c
containerPort: 8081
{{- else -}}
name: http1
containerPort: 8080
{{- end }}
protocol: TCP
{{- end }}

{{/* Host and port of MLflow as YAML, with its namespace where it is a Service. */}}
{{- define "chiffre.mlflow" -}}
{{- $url := urlParse .Values.mlflow.trackingUri -}}
{{- $host := regexReplaceAll ":[0-9]+$" $url.host "" -}}
port: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- $labels := splitList "." $host }}
{{- if or (eq (len $labels) 1) (and (ge (len $labels) 3) (eq (index $labels 2) "svc")) }}
namespace: {{ if eq (len $labels) 1 }}{{ .Release.Namespace }}{{ else }}{{ index $labels 1 }}{{ end }}
{{- end }}
{{- end }}
