{{/* Names, labels and the facts of each service. Everything else of a service is in _workload.tpl. */}}

{{- define "koine.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{/* What every name begins with: 40 characters at most, for the longest ending leaves no more of the 63 that a Service may have.
What is cut is replaced by a digest, so that two long names never become one. */}}
{{- define "koine.fullname" -}}
{{- $name := include "koine.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- $full = .Values.fullnameOverride | default $full }}
{{- if le (len $full) 40 }}{{ $full }}
{{- else }}{{ printf "%s-%s" ($full | trunc 31 | trimSuffix "-" | trimSuffix ".") ($full | sha256sum | trunc 8) }}
{{- end }}
{{- end }}

{{/* What the code decides: the values' key, ports, prefix of variables, and the metric that says how much waits. */}}
{{- define "koine.facts" -}}
edge:           { key: edge,          port: 8080,  portName: http, admin: 9080, prefix: EDGE,           signal: edge_in_flight_requests }
chat:           { key: chat,          port: 50051, portName: grpc, admin: 9051, prefix: CHAT,           signal: chat_waiting_sequences }
embedding:      { key: embedding,     port: 50052, portName: grpc, admin: 9052, prefix: EMBEDDING,      signal: onnx_queue_tokens }
content-safety: { key: contentSafety, port: 50053, portName: grpc, admin: 9053, prefix: CONTENT_SAFETY, signal: onnx_queue_tokens }
{{- end }}

{{/* Everything about the service `name` as JSON: facts, and its values laid over `defaults`. */}}
{{- define "koine.component" -}}
{{- $fact := get (include "koine.facts" . | fromYaml) .name }}
{{- $values := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (get .root.Values $fact.key)) }}
{{- dict "name" .name "fullname" (printf "%s-%s" (include "koine.fullname" .root) .name) "fact" $fact "values" $values | toJson }}
{{- end }}

{{/* Labels that never change: selectors are made of them. Takes root and name. */}}
{{- define "koine.selector" -}}
app.kubernetes.io/name: {{ include "koine.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "koine.labels" -}}
{{ include "koine.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: koine
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "koine.metadata" -}}
name: {{ .fullname }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "koine.labels" . | nindent 2 }}
{{- end }}

{{/* The image of `name`; `image` has an optional digest and tag of its own. */}}
{{- define "koine.image" -}}
{{- $base := printf "%s/%s" .root.Values.image.repository .name }}
{{- if .image.digest }}{{ $base }}@{{ .image.digest }}
{{- else }}{{ $base }}:{{ .image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Addresses of a model service for the edge, as TOML. Takes root, own (the list in edge.endpoints) and name. */}}
{{- define "koine.endpoints" -}}
{{- if .own }}{{ .own | toJson }}
{{- else }}{{ list (include "koine.address" .) | compact | toJson }}
{{- end }}
{{- end }}

{{/* Where the chart's own model service is; nothing where it is not installed. */}}
{{- define "koine.address" -}}
{{- $c := include "koine.component" . | fromJson }}
{{- if $c.values.enabled }}{{ printf "%s://%s.%s.svc:%v" (eq (include "koine.internalTls" .) "true" | ternary "https" "http") $c.fullname .root.Release.Namespace $c.fact.port }}{{ end }}
{{- end }}

{{/* Where the Redis for trials is. */}}
{{- define "koine.trialRedis" -}}
redis://{{ include "koine.fullname" . }}-redis.{{ .Release.Namespace }}.svc:6379
{{- end }}

{{/* Whether the init container fetches weights for a service; empty for no. */}}
{{- define "koine.pulls" -}}
{{- if and (ne .name "edge") (eq .root.Values.models.source "pull") }}{{ if .values.models.pull }}true{{ end }}{{ end }}
{{- end }}
