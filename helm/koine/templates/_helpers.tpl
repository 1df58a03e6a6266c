{{/* Names, labels and the facts of each service. Everything else of a service is in _workload.tpl. */}}

{{- define "koine.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}
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
app.kubernetes.io/name: {{ .root.Chart.Name }}
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

{{- define "koine.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "koine.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: { drop: [ALL] }
{{- end }}

{{/* Addresses of a model service for the edge, as TOML. Takes root, own (the list in edge.endpoints) and name. */}}
{{- define "koine.endpoints" -}}
{{- $c := include "koine.component" . | fromJson }}
{{- if .own }}{{ .own | toJson }}
{{- else if $c.values.enabled }}{{ list (printf "%s://%s.%s.svc:%v" (eq (include "koine.internalTls" .) "true" | ternary "https" "http") $c.fullname .root.Release.Namespace $c.fact.port) | toJson }}
{{- else }}[]
{{- end }}
{{- end }}
