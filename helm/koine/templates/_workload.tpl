{{/* All that one service is made of, once for the four. Takes root and name; renders nothing when the service is off. */}}
{{- define "koine.workload" -}}
{{- $c := include "koine.component" . | fromJson }}
{{- if $c.values.enabled }}
{{- $ctx := merge (dict "root" .root) $c }}
{{- range $part := list "account" "config" "service" "deployment" "disruption" "autoscaler" "scaledobject" "policy" "monitor" }}
{{- with include (printf "koine.%s" $part) $ctx | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "koine.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{- define "koine.config" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
data:
  # The number says how deep the text is indented, whatever its first line looks like.
  koine.toml: |2
    {{- .values.config | default "# Nothing said: the defaults hold.\n" | nindent 4 }}
{{- end }}

{{- define "koine.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
  {{- with dig "service" "annotations" dict .values }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if eq .name "edge" }}
  type: {{ .values.service.type }}
  {{- with .values.service.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with .values.service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- else }}
  # Headless: the edge sees every pod and spreads its calls itself, since one connection carries many.
  clusterIP: None
  {{- end }}
  selector:
    {{- include "koine.selector" . | nindent 4 }}
  ports:
    - name: {{ .fact.portName }}
      port: {{ eq .name "edge" | ternary (dig "service" "port" 0 .values) .fact.port }}
      targetPort: {{ .fact.portName }}
      protocol: TCP
      appProtocol: {{ include "koine.appProtocol" . }}
---
# Metrics are never on the Service that clients reach.
apiVersion: v1
kind: Service
metadata:
  {{- include "koine.metadata" (merge (dict "fullname" (printf "%s-admin" .fullname)) .) | nindent 2 }}
    # The label `job` in Prometheus.
    koine/job: koine-{{ .name }}
spec:
  clusterIP: None
  # Metrics are of most interest while a pod is not ready.
  publishNotReadyAddresses: true
  selector:
    {{- include "koine.selector" . | nindent 4 }}
  ports:
    - { name: admin, port: {{ .fact.admin }}, targetPort: admin, protocol: TCP }
{{- end }}

{{- define "koine.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
spec:
  {{- if eq .values.autoscaling.mode "none" }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  progressDeadlineSeconds: {{ .values.progressDeadlineSeconds }}
  strategy:
    {{- eq .values.strategy.type "RollingUpdate" | ternary .values.strategy (pick .values.strategy "type") | toYaml | nindent 4 }}
  selector:
    matchLabels:
      {{- include "koine.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "koine.labels" . | nindent 8 }}
        {{- with .values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ .values.config | sha256sum }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ .fullname }}
      automountServiceAccountToken: false
      # No variables of other Services: ours are options.
      enableServiceLinks: false
      # The delay, the drain, and ten seconds to close and to send the last traces; variables may have made them longer.
      {{- $s := include "koine.settings" . | fromJson }}
      {{- $delay := divf (get $s "service.drain_delay_ms") 1000 | ceil | int }}
      {{- $drain := divf (get $s "service.drain_timeout_ms") 1000 | ceil | int }}
      terminationGracePeriodSeconds: {{ add (max .values.drainDelaySeconds $delay) (max .values.drainSeconds $drain) 10 }}
      securityContext:
        {{- toYaml .values.podSecurityContext | nindent 8 }}
      {{- with .root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- include "koine.placement" . | nindent 6 }}
      {{- if include "koine.pulls" . }}
      initContainers:
        {{- include "koine.pull" . | nindent 8 }}
      {{- end }}
      containers:
        {{- include "koine.container" . | nindent 8 }}
      volumes:
        {{- include "koine.volumes" . | nindent 8 }}
        {{- with .values.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* Which nodes take a pod, and how much it matters. */}}
{{- define "koine.nodes" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where the pods of a service go. */}}
{{- define "koine.placement" -}}
{{- include "koine.nodes" .values }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $anyway := "ScheduleAnyway" }}
{{- $spread := .values.topologySpread | default (list (dict "maxSkew" 1 "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" $anyway) (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" $anyway)) }}
topologySpreadConstraints:
  {{- range $spread }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        {{- include "koine.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* Fetches the weights and checks their sha256; does nothing where they are complete. */}}
{{- define "koine.pull" -}}
- name: models
  image: {{ include "koine.image" (dict "root" .root "name" "models" "image" .root.Values.models.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    {{- concat (list "models" "pull") .values.models.pull | toYaml | nindent 4 }}
  env:
    {{- $chart := list (dict "name" "STANDALONE__MODELS__DIR" "value" "/models") (dict "name" "HOME" "value" "/tmp") }}
    {{- include "koine.variables" (dict "chart" $chart "own" .root.Values.models.env) | nindent 4 }}
  resources:
    {{- toYaml .root.Values.models.resources | nindent 4 }}
  securityContext:
    {{- toYaml .values.containerSecurityContext | nindent 4 }}
  volumeMounts:
    - { name: models, mountPath: /models }
    - { name: tmp, mountPath: /tmp }
{{- end }}

{{- define "koine.container" -}}
- name: {{ .name }}
  image: {{ include "koine.image" (dict "root" .root "name" .name "image" .values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  env:
    {{- include "koine.environment" . | nindent 4 }}
  ports:
    - { name: {{ .fact.portName }}, containerPort: {{ .fact.port }}, protocol: TCP }
    - { name: admin, containerPort: {{ .fact.admin }}, protocol: TCP }
  # Alive as soon as the process is; ready when models are loaded and, for the edge, every service has answered.
  startupProbe:
    httpGet: { path: /livez, port: admin }
    periodSeconds: 2
    failureThreshold: 30
  livenessProbe:
    httpGet: { path: /livez, port: admin }
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  readinessProbe:
    httpGet: { path: /readyz, port: admin }
    periodSeconds: 5
    timeoutSeconds: 3
    failureThreshold: 2
  resources:
    {{- $gpu := dict }}
    {{- if int .values.gpu.count }}
    {{- $_ := set $gpu .values.gpu.resource (int .values.gpu.count) }}
    {{- end }}
    {{- merge (dict "limits" (merge (deepCopy $gpu) (dig "limits" dict .values.resources)) "requests" (merge (deepCopy $gpu) (dig "requests" dict .values.resources))) .values.resources | toYaml | nindent 4 }}
  securityContext:
    {{- toYaml .values.containerSecurityContext | nindent 4 }}
  volumeMounts:
    {{- include "koine.mounts" . | nindent 4 }}
    {{- with .values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "koine.mounts" -}}
- { name: config, mountPath: /etc/koine, readOnly: true }
{{- if and (eq .name "edge") (dig "auth" "existingSecret" "" .values) }}
- { name: keys, mountPath: /etc/koine-keys, readOnly: true }
{{- end }}
{{- range $volume, $path := include "koine.locks" . | fromYaml }}
- { name: {{ $volume }}, mountPath: {{ $path }}, readOnly: true }
{{- end }}
{{- if .values.secretFiles }}
- { name: secrets, mountPath: /etc/koine-secrets, readOnly: true }
{{- end }}
{{- if and (ne .name "edge") (ne .root.Values.models.source "image") }}
- { name: models, mountPath: /models, readOnly: true }
{{- end }}
{{- end }}

{{/* What the chart decides, as the options' variables: they win over the file. */}}
{{- define "koine.env" -}}
{{- $p := .fact.prefix }}
- { name: KOINE_CONFIG, value: /etc/koine/koine.toml }
- { name: {{ $p }}__SERVICE__LISTEN, value: "0.0.0.0:{{ .fact.port }}" }
- { name: {{ $p }}__SERVICE__ADMIN_LISTEN, value: "0.0.0.0:{{ .fact.admin }}" }
- { name: {{ $p }}__SERVICE__DRAIN_DELAY_MS, value: "{{ mul .values.drainDelaySeconds 1000 }}" }
- { name: {{ $p }}__SERVICE__DRAIN_TIMEOUT_MS, value: "{{ mul .values.drainSeconds 1000 }}" }
- { name: {{ $p }}__SERVICE__TELEMETRY__LOG_FORMAT, value: {{ .root.Values.telemetry.logFormat }} }
{{- with .root.Values.telemetry.otlpEndpoint }}
- { name: {{ $p }}__SERVICE__TELEMETRY__OTLP_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- with .root.Values.telemetry.otlpCaFile }}
- { name: {{ $p }}__SERVICE__TELEMETRY__OTLP_TLS__CA_FILE, value: {{ . | quote }} }
{{- end }}
{{- include "koine.lockEnv" . }}
# Who a trace or a line of log is from.
- { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
- { name: POD_NAMESPACE, valueFrom: { fieldRef: { fieldPath: metadata.namespace } } }
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),service.instance.id=$(POD_NAME)
{{- if eq .name "edge" }}
{{- if .values.auth.disabled }}
- { name: EDGE__AUTH__DISABLED, value: "true" }
{{- else if .values.auth.existingSecret }}
- { name: EDGE__AUTH__KEY_FILE, value: /etc/koine-keys/{{ .values.auth.key }} }
{{- end }}
- { name: EDGE__CHAT__ENDPOINTS, value: {{ include "koine.endpoints" (dict "root" .root "own" .values.endpoints.chat "name" "chat") | squote }} }
- { name: EDGE__EMBEDDING__ENDPOINTS, value: {{ include "koine.endpoints" (dict "root" .root "own" .values.endpoints.embedding "name" "embedding") | squote }} }
- { name: EDGE__CONTENT_SAFETY__ENDPOINTS, value: {{ include "koine.endpoints" (dict "root" .root "own" .values.endpoints.contentSafety "name" "content-safety") | squote }} }
{{- if eq .root.Values.redis.mode "trial" }}
- { name: EDGE__STATE__REDIS_URL, value: {{ include "koine.trialRedis" .root | quote }} }
{{- else if eq .root.Values.redis.mode "external" }}
- name: EDGE__STATE__REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ .root.Values.redis.existingSecret }}, key: {{ .root.Values.redis.key }} } }
{{- end }}
{{- else }}
- { name: {{ $p }}__MODELS__DIR, value: /models }
- { name: {{ $p }}__MODELS__OFFLINE, value: "true" }
{{- if dig "requests" "cpu" "" .values.resources }}
# As many threads as processors were asked for, rounded up: without this a pod takes those of the whole node.
- name: {{ eq .name "chat" | ternary "CHAT__ENGINE__THREADS" (printf "%s__RUNTIME__THREADS" $p) }}
  valueFrom: { resourceFieldRef: { containerName: {{ .name }}, resource: requests.cpu, divisor: "1" } }
{{- end }}
{{- if and (int .values.gpu.count) (eq .name "chat") }}
- { name: CHAT__ENGINE__GPU_LAYERS, value: "{{ .values.gpu.layers }}" }
{{- else if int .values.gpu.count }}
- { name: {{ $p }}__RUNTIME__DEVICE, value: cuda }
{{- end }}
{{- end }}
{{- end }}

{{- define "koine.volumes" -}}
- name: config
  configMap: { name: {{ .fullname }} }
{{- if and (eq .name "edge") (dig "auth" "existingSecret" "" .values) }}
- name: keys
  secret:
    secretName: {{ .values.auth.existingSecret }}
    defaultMode: 0440
    items: [{ key: {{ .values.auth.key }}, path: {{ .values.auth.key }} }]
{{- end }}
{{- range $volume, $path := include "koine.locks" . | fromYaml }}
- name: {{ $volume }}
  secret:
    secretName: {{ include "koine.lockSecret" (dict "root" $.root "volume" $volume) }}
    defaultMode: 0440
    {{- if eq $volume "token" }}
    items: [{ key: {{ $.root.Values.internal.token.key }}, path: token }]
    {{- else if eq $volume "redis-ca" }}
    items: [{ key: {{ $.root.Values.redis.ca.key }}, path: ca.crt }]
    {{- else }}
    items: [{ key: tls.crt, path: tls.crt }, { key: tls.key, path: tls.key }{{ if eq $volume "internal-tls" }}, { key: ca.crt, path: ca.crt }{{ end }}]
    {{- end }}
{{- end }}
{{- with .values.secretFiles }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: { name: {{ .secret }}, items: [{ key: {{ .key }}, path: {{ .file }} }] }
      {{- end }}
{{- end }}
{{- if and (ne .name "edge") (ne .root.Values.models.source "image") }}
- name: models
  {{- .values.models.volume | default (dict "emptyDir" (dict "sizeLimit" .values.models.sizeLimit)) | toYaml | nindent 2 }}
{{- if include "koine.pulls" . }}
- name: tmp
  emptyDir: { sizeLimit: {{ .values.models.sizeLimit }} }
{{- end }}
{{- end }}
{{- end }}

{{- define "koine.disruption" -}}
{{- if .values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready serves nobody, so it may always go.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "koine.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "koine.monitor" -}}
{{- if .root.Values.monitoring.serviceMonitor.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "koine.metadata" . | nindent 2 }}
    {{- with .root.Values.monitoring.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # The label `job` is koine-edge, koine-chat and so on: dashboards and alerts count on it.
  jobLabel: koine/job
  selector:
    matchLabels:
      {{- include "koine.selector" . | nindent 6 }}
      koine/job: koine-{{ .name }}
  namespaceSelector: { matchNames: [{{ .root.Release.Namespace }}] }
  endpoints:
    - port: admin
      path: /metrics
      interval: {{ .root.Values.monitoring.serviceMonitor.interval }}
{{- end }}
{{- end }}
