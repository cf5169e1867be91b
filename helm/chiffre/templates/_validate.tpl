{{/* What a schema cannot say: values that do not go together, in sentences, before anything is applied. */}}
{{- define "chiffre.validate" -}}
{{- $problems := concat (include "chiffre.nameProblems" . | fromJsonArray) (include "chiffre.modelProblems" . | fromJsonArray) -}}
{{- $problems = concat $problems (include "chiffre.modeProblems" . | fromJsonArray) (include "chiffre.scaleProblems" . | fromJsonArray) -}}
{{- if $problems }}
{{- fail (printf "\n%s" (join "\n" $problems)) }}
{{- end }}
{{- end }}

{{/* The host names RELEASE-predictor-NAMESPACE and latest-RELEASE-predictor are made of labels of at most 63 characters. */}}
{{- define "chiffre.nameProblems" -}}
{{- $problems := list -}}
{{- $name := .Release.Name -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- $problems = append $problems (printf "The release's name %q must consist of lower case letters, digits and dashes and start with a letter, as KServe asks of an InferenceService." $name) -}}
{{- end -}}
{{- $most := min 46 (sub 52 (len .Release.Namespace)) | int -}}
{{- if gt (len $name) $most -}}
{{- $problems = append $problems (printf "The release's name %q has %d characters; in the namespace %q it may have %d, so that the host name RELEASE-predictor-NAMESPACE stays within the 63 characters of DNS." $name (len $name) .Release.Namespace $most) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}

{{- define "chiffre.modelProblems" -}}
{{- $problems := list -}}
{{- $uri := .Values.model.uri -}}
{{- $forms := "mlflow://NAME/VERSION, mlflow://runs/RUN_ID/bundle or pvc://CLAIM/PATH" -}}
{{- if not $uri -}}
{{- $problems = append $problems (printf "model.uri is missing: it says which model is served, %s." $forms) -}}
{{- else if hasPrefix "mlflow://runs/" $uri -}}
{{- if not (regexMatch "^mlflow://runs/[A-Za-z0-9][A-Za-z0-9_-]*/bundle$" $uri) -}}
{{- $problems = append $problems (printf "model.uri %q: expected mlflow://runs/RUN_ID/bundle for the bundle of a run." $uri) -}}
{{- end -}}
{{- else if hasPrefix "mlflow://" $uri -}}
{{- if not (regexMatch "^mlflow://[^/@?#]+/[1-9][0-9]*$" $uri) -}}
{{- $problems = append $problems (printf "model.uri %q: expected mlflow://NAME/VERSION with the number of a version. An alias may move, and pods of one revision would then serve different models; look its version up first." $uri) -}}
{{- end -}}
{{- else if not (regexMatch "^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9_.-]+)*/?$" $uri) -}}
{{- $problems = append $problems (printf "model.uri %q: expected %s." $uri $forms) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}

{{/* Options that the other mode would ignore without a word. */}}
{{- define "chiffre.modeProblems" -}}
{{- $problems := list -}}
{{- $values := .Values -}}
{{- $knative := dict "canary.percent" $values.canary.percent "scale.window" $values.scale.window "progressDeadlineSeconds" $values.progressDeadlineSeconds -}}
{{- $standard := dict "shutdown.preStopSeconds" $values.shutdown.preStopSeconds "podDisruptionBudget.maxUnavailable" $values.podDisruptionBudget.maxUnavailable -}}
{{- range $name, $value := ternary $standard $knative (eq .Values.mode "Knative") -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $problems = append $problems (printf "%s has no effect in %s mode; leave it null, or set mode to %s." $name $values.mode (ternary "Standard" "Knative" (eq $values.mode "Knative"))) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.feedback.enabled (eq .Values.protocol "grpc") -}}
{{- $problems = append $problems "feedback.enabled has no effect where protocol is grpc, which has no feedback; set it to false, or protocol to rest." -}}
{{- end -}}
{{- $metrics := ternary (list "concurrency" "rps") (list "cpu" "memory") (eq .Values.mode "Knative") -}}
{{- $metric := include "chiffre.metric" . -}}
{{- if not (has $metric $metrics) -}}
{{- $problems = append $problems (printf "scale.metric %q is not a metric of %s mode, which scales by %s." $metric .Values.mode (join " or " $metrics)) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}

{{- define "chiffre.scaleProblems" -}}
{{- $problems := list -}}
{{- $min := include "chiffre.minReplicas" . | int -}}
{{- if and (eq .Values.mode "Standard") (eq $min 0) -}}
{{- $problems = append $problems "scale.min is 0, which Standard mode does not know; set it to 1 or more, or mode to Knative." -}}
{{- end -}}
{{- if gt $min (int .Values.scale.max) -}}
{{- $problems = append $problems (printf "scale.min is %d, more than scale.max, which is %d." $min (int .Values.scale.max)) -}}
{{- end -}}
{{- if gt (int .Values.slo.latencyMilliseconds.p95) (int .Values.slo.latencyMilliseconds.p99) -}}
{{- $problems = append $problems "slo.latencyMilliseconds.p95 is more than slo.latencyMilliseconds.p99." -}}
{{- end -}}
{{- if and .Values.monitoring.rules.kind (not (include "chiffre.bucket" .Values.slo.latencyMilliseconds.p99)) -}}
{{- $problems = append $problems (printf "slo.latencyMilliseconds.p99 is %d, beyond the last bound of the server's histogram, 10000: no rule could tell whether it is kept." (int .Values.slo.latencyMilliseconds.p99)) -}}
{{- end -}}
{{- if and .Values.networkPolicy.create (hasPrefix "mlflow://" .Values.model.uri) (not .Values.networkPolicy.mlflowCidrs) (not (include "chiffre.mlflow" . | fromYaml).namespace) -}}
{{- $problems = append $problems (printf "networkPolicy.mlflowCidrs is empty, and %s is no Service of the cluster (NAME.NAMESPACE.svc...): the policy would keep the pods from it." .Values.mlflow.trackingUri) -}}
{{- end -}}
{{- toJson $problems -}}
{{- end }}
