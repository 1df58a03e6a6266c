{{/* TLS and the token: which Secrets a pod reads, and the options that name their files. Secrets are read again when they change. */}}

{{/* Whether the edge speaks HTTPS; empty for no. */}}
{{- define "koine.edgeTls" -}}
{{- with .root.Values.edge.tls }}{{ if or .existingSecret .certManager }}true{{ end }}{{ end }}
{{- end }}

{{/* Whether the edge and the services speak TLS with each other. */}}
{{- define "koine.internalTls" -}}
{{- with .root.Values.internal.tls }}{{ if or .existingSecret .certManager }}true{{ end }}{{ end }}
{{- end }}

{{/* What the port of a service speaks. */}}
{{- define "koine.appProtocol" -}}
{{- if eq .name "edge" }}{{ ternary "https" "http" (eq (include "koine.edgeTls" .) "true") }}
{{- else }}{{ ternary "https" "kubernetes.io/h2c" (eq (include "koine.internalTls" .) "true") }}
{{- end }}
{{- end }}

{{/* The volumes of a pod with their paths. */}}
{{- define "koine.locks" -}}
{{- if and (eq .name "edge") (include "koine.edgeTls" .) }}
edge-tls: /etc/koine-tls
{{- end }}
{{- if include "koine.internalTls" . }}
internal-tls: /etc/koine-internal
{{- end }}
{{- if .root.Values.internal.token.existingSecret }}
token: /etc/koine-token
{{- end }}
{{- if and (eq .name "edge") .root.Values.redis.ca.existingSecret }}
redis-ca: /etc/koine-redis
{{- end }}
{{- end }}

{{/* The Secret behind a volume: an existing one, or the one that cert-manager writes. */}}
{{- define "koine.lockSecret" -}}
{{- if eq .volume "token" }}{{ .root.Values.internal.token.existingSecret }}
{{- else if eq .volume "redis-ca" }}{{ .root.Values.redis.ca.existingSecret }}
{{- else if eq .volume "edge-tls" }}{{ .root.Values.edge.tls.existingSecret | default (printf "%s-edge-tls" (include "koine.fullname" .root)) }}
{{- else }}{{ .root.Values.internal.tls.existingSecret | default (printf "%s-internal-tls" (include "koine.fullname" .root)) }}
{{- end }}
{{- end }}

{{- define "koine.lockEnv" -}}
{{- $door := eq .name "edge" | ternary "EDGE__DOORS" (printf "%s__DOOR" .fact.prefix) }}
{{- if and (eq .name "edge") (include "koine.edgeTls" .) }}
- { name: EDGE__TLS__CERTIFICATE_FILE, value: /etc/koine-tls/tls.crt }
- { name: EDGE__TLS__KEY_FILE, value: /etc/koine-tls/tls.key }
{{- end }}
{{- if include "koine.internalTls" . }}
- { name: {{ $door }}__TLS__{{ eq .name "edge" | ternary "CA_FILE" "CLIENT_CA_FILE" }}, value: /etc/koine-internal/ca.crt }
- { name: {{ $door }}__TLS__CERTIFICATE_FILE, value: /etc/koine-internal/tls.crt }
- { name: {{ $door }}__TLS__KEY_FILE, value: /etc/koine-internal/tls.key }
{{- with .root.Values.internal.tls.serverName }}
{{- if eq $.name "edge" }}
- { name: EDGE__DOORS__TLS__SERVER_NAME, value: {{ . }} }
{{- end }}
{{- end }}
{{- end }}
{{- if .root.Values.internal.token.existingSecret }}
- { name: {{ $door }}__TOKEN_FILE, value: /etc/koine-token/token }
{{- end }}
{{- if and (eq .name "edge") .root.Values.redis.ca.existingSecret }}
- { name: EDGE__STATE__REDIS_CA_FILE, value: /etc/koine-redis/ca.crt }
{{- end }}
{{- end }}

{{/* The names by which the edge and the services know each other, one a line. */}}
{{- define "koine.internalNames" -}}
{{- $names := list }}
{{- range $component, $fact := include "koine.facts" . | fromYaml }}
{{- if (get $.Values $fact.key).enabled }}{{ $names = append $names (printf "%s-%s.%s.svc" (include "koine.fullname" $) $component $.Release.Namespace) }}{{ end }}
{{- end }}
{{- join "\n" $names }}
{{- end }}

{{/* A Certificate of cert-manager. Takes root, name and names. */}}
{{- define "koine.certificate" -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "koine.metadata" (dict "root" .root "name" .component "fullname" .fullname) | nindent 2 }}
spec:
  secretName: {{ .fullname }}
  issuerRef:
    {{- toYaml .root.Values.certManager.issuerRef | nindent 4 }}
  dnsNames:
    {{- toYaml .names | nindent 4 }}
  usages:
    {{- toYaml .usages | nindent 4 }}
  privateKey: { algorithm: ECDSA, size: 256, rotationPolicy: Always }
{{- end }}
