{{/* What adds and removes pods: an HPA, or KEDA's ScaledObject, by processor use and by the service's own signal. */}}
{{- define "koine.autoscaler" -}}
{{- $scaling := .values.autoscaling }}
{{- if eq $scaling.mode "hpa" }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ .fullname }} }
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    {{- if int $scaling.cpu }}
    - type: Resource
      resource: { name: cpu, target: { type: Utilization, averageUtilization: {{ $scaling.cpu }} } }
    {{- end }}
    {{- if int $scaling.queue }}
    - type: Pods
      pods:
        metric: { name: {{ .fact.signal }} }
        target: { type: AverageValue, averageValue: {{ $scaling.queue | quote }} }
    {{- end }}
  {{- with $scaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "koine.scaledobject" -}}
{{- $scaling := .values.autoscaling }}
{{- if eq $scaling.mode "keda" }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ .fullname }} }
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  # No `fallback`: while Prometheus is away the HPA keeps as many pods as there are.
  {{- with $scaling.behavior }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml . | nindent 8 }}
  {{- end }}
  triggers:
    {{- if int $scaling.cpu }}
    - type: cpu
      metricType: Utilization
      metadata: { value: {{ $scaling.cpu | quote }} }
    {{- end }}
    {{- if int $scaling.queue }}
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: {{ .root.Values.monitoring.prometheusAddress | quote }}
        query: {{ printf "sum(%s{namespace=%q,service=%q})" .fact.signal .root.Release.Namespace (printf "%s-admin" .fullname) | squote }}
        threshold: {{ $scaling.queue | quote }}
        {{- with .root.Values.monitoring.prometheusAuthModes }}
        authModes: {{ . | quote }}
      authenticationRef:
        {{- toYaml $.root.Values.monitoring.prometheusAuthenticationRef | nindent 8 }}
        {{- end }}
    {{- end }}
{{- end }}
{{- end }}
