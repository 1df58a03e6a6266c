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
    - ports:
        {{- range .root.Values.networkPolicy.dnsPorts }}
        - { port: {{ . }}, protocol: UDP }
        - { port: {{ . }}, protocol: TCP }
        {{- end }}
    {{- $ways := include "koine.ways" . | fromJson }}
    {{- if $ways.collector }}
    # Traces.
    - ports: [{ port: {{ first $ways.collector }}, protocol: TCP }]
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
    {{- end }}
    {{- if $ways.redis }}
    - ports: [{ port: {{ first $ways.redis }}, protocol: TCP }]
      {{- with .root.Values.networkPolicy.redis }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- if $ways.others }}
    # Where weights come from, and the servers that config and variables name.
    - ports:
        {{- range $ways.others }}
        - { port: {{ . }}, protocol: TCP }
        {{- end }}
    {{- end }}
    {{- with .values.egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
