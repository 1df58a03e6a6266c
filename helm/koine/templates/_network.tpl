{{/* Who may talk to whom: clients to the edge, the edge to the services, nobody else to anybody. */}}
{{- define "koine.policy" -}}
{{- if .root.Values.networkPolicy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "koine.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - ports: [{ port: {{ .fact.portName }}, protocol: TCP }]
      {{- if ne .name "edge" }}
      from:
        - podSelector:
            matchLabels:
              {{- include "koine.selector" (dict "root" .root "name" "edge") | nindent 14 }}
      {{- else if .root.Values.networkPolicy.clients }}
      from:
        {{- toYaml .root.Values.networkPolicy.clients | nindent 8 }}
        - podSelector:
            matchLabels:
              {{- include "koine.selector" (dict "root" .root "name" "test") | nindent 14 }}
      {{- end }}
    - ports: [{ port: admin, protocol: TCP }]
      from:
        {{- toYaml .root.Values.networkPolicy.monitoring | nindent 8 }}
  egress:
    # Names.
    - ports: [{ port: 53, protocol: UDP }, { port: 53, protocol: TCP }]
    {{- if .root.Values.telemetry.otlpEndpoint }}
    # Traces.
    - ports: [{ port: {{ regexFind "[0-9]+$" (trimSuffix "/" .root.Values.telemetry.otlpEndpoint) | default "4317" }}, protocol: TCP }]
      {{- with .root.Values.networkPolicy.collector }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- if eq .name "edge" }}
    {{- range $name := list "chat" "embedding" "content-safety" }}
    {{- $c := include "koine.component" (dict "root" $.root "name" $name) | fromJson }}
    {{- if $c.values.enabled }}
    - ports: [{ port: {{ $c.fact.port }}, protocol: TCP }]
      to:
        - podSelector:
            matchLabels:
              {{- include "koine.selector" (dict "root" $.root "name" $name) | nindent 14 }}
    {{- end }}
    {{- end }}
    {{- if eq .root.Values.redis.mode "trial" }}
    - ports: [{ port: 6379, protocol: TCP }]
      to:
        - podSelector:
            matchLabels:
              {{- include "koine.selector" (dict "root" .root "name" "redis") | nindent 14 }}
    {{- else if eq .root.Values.redis.mode "external" }}
    - ports: [{ port: {{ .root.Values.redis.port }}, protocol: TCP }]
      {{- with .root.Values.networkPolicy.redis }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- else if and (eq .root.Values.models.source "pull") .values.models.pull }}
    # Weights, fetched by the init container.
    - ports: [{ port: 443, protocol: TCP }]
    {{- end }}
    {{- with .values.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
