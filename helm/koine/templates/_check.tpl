{{/* Values that contradict each other or lack something: one message for all, each naming the value and the remedy. */}}
{{- define "koine.check" -}}
{{- $wrong := list }}
{{- $v := .Values }}
{{- /* What each service will read. One whose config is not TOML is told of that alone. */}}
{{- $services := dict }}
{{- range $name, $fact := include "koine.facts" . | fromYaml }}
{{- $c := merge (dict "root" $) (include "koine.component" (dict "root" $ "name" $name) | fromJson) }}
{{- if $c.values.enabled }}
{{- $written := include "koine.written" $c | fromJson }}
{{- if $written.Error }}
{{- $wrong = append $wrong (printf "%s.config: is not TOML: %s" $fact.key $written.Error) }}
{{- else }}
{{- $_ := set $services $name (dict "written" $written "settings" (include "koine.settings" $c | fromJson)) }}
{{- end }}
{{- $wrong = concat $wrong (include "koine.twice" $c | fromJsonArray) }}
{{- end }}
{{- end }}
{{- $edge := dig "edge" "settings" nil $services }}
{{- if $v.edge.enabled }}
{{- if and $v.edge.auth.existingSecret $v.edge.auth.disabled }}
{{- $wrong = append $wrong "edge.auth: `existingSecret` and `disabled` contradict each other; keep one" }}
{{- end }}
{{- if $edge }}
{{- if not (or (get $edge "auth.disabled") (get $edge "auth.keys") (get $edge "auth.key_file") (get $edge "auth.jwt.issuers")) }}
{{- $wrong = append $wrong (printf "edge.auth.existingSecret: name a Secret with the API keys (kubectl -n %s create secret generic koine-keys --from-literal=%s=\"$(openssl rand -hex 32)\"), configure [edge.auth.jwt] in edge.config, or set edge.auth.disabled=true behind a gateway that authenticates" .Release.Namespace $v.edge.auth.key) }}
{{- end }}
{{- if not (or (get $edge "content_safety.endpoints") (eq (hasKey $edge "guard.policy" | ternary (get $edge "guard.policy") "default") "")) }}
{{- $wrong = append $wrong "contentSafety.enabled: false, and no edge.endpoints.contentSafety: nothing would be screened; say so with `policy = \"\"` under [edge.guard] in edge.config" }}
{{- end }}
{{- if not (or (get $edge "chat.endpoints") (get $edge "embedding.endpoints")) }}
{{- $wrong = append $wrong "edge.enabled: true, but there is neither a chat nor an embedding service to lead to; enable one or set edge.endpoints" }}
{{- end }}
{{- end }}
{{- range $service := list "chat" "embedding" "contentSafety" }}
{{- if get $v.edge.endpoints $service }}
{{- if (get $v $service).enabled }}
{{- $wrong = append $wrong (printf "edge.endpoints.%s: takes the place of the chart's own service, which nobody would ask; set %s.enabled=false or leave it empty" $service $service) }}
{{- end }}
{{- end }}
{{- end }}
{{- else if or $v.ingress.enabled $v.gateway.enabled }}
{{- $wrong = append $wrong "ingress.enabled, gateway.enabled: they lead to the edge, but edge.enabled is false" }}
{{- end }}
{{- if and (eq $v.redis.mode "external") (not $v.redis.existingSecret) }}
{{- $wrong = append $wrong "redis.existingSecret: needed for redis.mode=external; it holds the URL" }}
{{- else if and (ne $v.redis.mode "external") $v.redis.existingSecret }}
{{- $wrong = append $wrong (printf "redis.existingSecret: not used with redis.mode=%s; set mode=external or leave it empty" $v.redis.mode) }}
{{- end }}
{{- if and $v.redis.ca.existingSecret (ne $v.redis.mode "external") }}
{{- $wrong = append $wrong (printf "redis.ca.existingSecret: not used with redis.mode=%s; it is for an external Redis whose URL begins with rediss" $v.redis.mode) }}
{{- end }}
{{- if and $v.edge.enabled (ne $v.edge.service.type "LoadBalancer") (or $v.edge.service.loadBalancerClass $v.edge.service.loadBalancerSourceRanges) }}
{{- $wrong = append $wrong (printf "edge.service: loadBalancerClass and loadBalancerSourceRanges are for type LoadBalancer, not %s" $v.edge.service.type) }}
{{- end }}
{{- if ne (empty $v.monitoring.prometheusAuthModes) (empty $v.monitoring.prometheusAuthenticationRef) }}
{{- $wrong = append $wrong "monitoring.prometheusAuthenticationRef, monitoring.prometheusAuthModes: KEDA needs both or neither" }}
{{- end }}
{{- if and $v.test.existingSecret $v.edge.auth.disabled }}
{{- $wrong = append $wrong "test.existingSecret: nobody is asked for a key with edge.auth.disabled=true" }}
{{- end }}
{{- if not $v.networkPolicy.enabled }}
{{- range $value := list "clients" "collector" "redis" }}
{{- if get $v.networkPolicy $value }}
{{- $wrong = append $wrong (printf "networkPolicy.%s: closes nothing with networkPolicy.enabled=false" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- $certified := list }}
{{- range $path, $tls := dict "edge.tls" $v.edge.tls "internal.tls" $v.internal.tls }}
{{- if and $tls.existingSecret $tls.certManager }}
{{- $wrong = append $wrong (printf "%s: `existingSecret` and `certManager` contradict each other; keep one" $path) }}
{{- end }}
{{- if $tls.certManager }}{{ $certified = append $certified $path }}{{ end }}
{{- end }}
{{- if and $certified (not $v.certManager.issuerRef.name) }}
{{- $wrong = append $wrong (printf "certManager.issuerRef: needed for %s.certManager=true; name an Issuer or a ClusterIssuer" (join ".certManager=true and " $certified)) }}
{{- else if and $v.certManager.issuerRef (not $certified) }}
{{- $wrong = append $wrong "certManager.issuerRef: signs nothing; set edge.tls.certManager=true or internal.tls.certManager=true, or leave it empty" }}
{{- end }}
{{- $internal := or $v.internal.tls.existingSecret $v.internal.tls.certManager }}
{{- if and $v.internal.tls.serverName (not $internal) }}
{{- $wrong = append $wrong "internal.tls.serverName: is of no certificate; set internal.tls.existingSecret or internal.tls.certManager" }}
{{- end }}
{{- if and $v.edge.enabled (or $v.edge.tls.existingSecret $v.edge.tls.certManager) (hasKey (dig "edge" "written" dict $services) "tls") }}
{{- $wrong = append $wrong "edge.tls: edge.config has a table [edge.tls] as well; keep one" }}
{{- end }}
{{- range $name, $fact := include "koine.facts" . | fromYaml }}
{{- $door := eq $name "edge" | ternary "doors" "door" }}
{{- if and (or $internal $v.internal.token.existingSecret) (hasKey (dig $name "written" dict $services) $door) }}
{{- $wrong = append $wrong (printf "internal: %s.config has a table [%s.%s] as well; keep one" $fact.key (lower $fact.prefix) $door) }}
{{- end }}
{{- end }}
{{- range $service, $urls := $v.edge.endpoints }}
{{- range $urls }}
{{- if and $internal (hasPrefix "http://" .) }}
{{- $wrong = append $wrong (printf "edge.endpoints.%s: %s is without TLS, but internal.tls is on; begin it with https" $service .) }}
{{- else if and (not $internal) (hasPrefix "https://" .) $edge (not (get $edge "doors.tls.ca_file")) }}
{{- $wrong = append $wrong (printf "edge.endpoints.%s: %s needs internal.tls.existingSecret, or [edge.doors.tls] in edge.config" $service .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (hasPrefix "https://" $v.telemetry.otlpEndpoint) (not $v.telemetry.otlpCaFile) }}
{{- $wrong = append $wrong "telemetry.otlpCaFile: needed for an otlpEndpoint that begins with https, such as /etc/ssl/certs/ca-certificates.crt" }}
{{- else if and $v.telemetry.otlpCaFile (not (hasPrefix "https://" $v.telemetry.otlpEndpoint)) }}
{{- $wrong = append $wrong "telemetry.otlpCaFile: is for an otlpEndpoint that begins with https" }}
{{- end }}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) }}
{{- $wrong = append $wrong "gateway.parentRefs: name the gateway that the route belongs to" }}
{{- end }}
{{- if and $v.ingress.tlsSecret (not $v.ingress.host) }}
{{- $wrong = append $wrong "ingress.host: needed with ingress.tlsSecret" }}
{{- end }}
{{- range $name, $fact := include "koine.facts" . | fromYaml }}
{{- $c := include "koine.component" (dict "root" $ "name" $name) | fromJson }}
{{- $s := $c.values }}
{{- if $s.enabled }}
{{- $rolling := $s.strategy.rollingUpdate }}
{{- if and (eq $s.strategy.type "RollingUpdate") (has (toString $rolling.maxSurge) (list "0" "0%")) (has (toString $rolling.maxUnavailable) (list "0" "0%")) }}
{{- $wrong = append $wrong (printf "%s.strategy.rollingUpdate: maxSurge and maxUnavailable are both 0, so that no pod could ever be replaced" $fact.key) }}
{{- end }}
{{- $scaling := $s.autoscaling }}
{{- if ne $scaling.mode "none" }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- $wrong = append $wrong (printf "%s.autoscaling: minReplicas %v is more than maxReplicas %v" $fact.key $scaling.minReplicas $scaling.maxReplicas) }}
{{- end }}
{{- if not (or (int $scaling.cpu) (int $scaling.queue)) }}
{{- $wrong = append $wrong (printf "%s.autoscaling: nothing to scale by; set cpu or queue" $fact.key) }}
{{- end }}
{{- if and (int $scaling.cpu) (not (dig "requests" "cpu" "" $s.resources)) }}
{{- $wrong = append $wrong (printf "%s.autoscaling.cpu: is a part of resources.requests.cpu, which is not set" $fact.key) }}
{{- end }}
{{- if and (eq $scaling.mode "keda") (int $scaling.queue) (not $v.monitoring.prometheusAddress) }}
{{- $wrong = append $wrong (printf "monitoring.prometheusAddress: needed for %s.autoscaling.queue with mode=keda" $fact.key) }}
{{- end }}
{{- if and (eq $scaling.mode "keda") (int $scaling.queue) (not $v.monitoring.serviceMonitor.enabled) }}
{{- $wrong = append $wrong (printf "monitoring.serviceMonitor.enabled: needed for %s.autoscaling.queue with mode=keda, which asks for the labels that ServiceMonitors set" $fact.key) }}
{{- end }}
{{- end }}
{{- if and (eq $name "edge") (int $s.gpu.count) }}
{{- $wrong = append $wrong "edge.gpu.count: the edge computes nothing; leave it 0" }}
{{- end }}
{{- if and (ne $name "edge") (int $s.gpu.count) (eq $v.image.repository "koine") (not (or $v.image.tag $s.image.tag $s.image.digest)) }}
{{- $wrong = append $wrong (printf "%s.gpu.count: the default images are built for processors; name one that is built for GPUs in %s.image.tag" $fact.key $fact.key) }}
{{- end }}
{{- $settings := dig $name "settings" nil $services }}
{{- if and (has $name (list "embedding" "content-safety")) (int $s.gpu.count) $settings (not (get $settings "runtime.library")) }}
{{- $wrong = append $wrong (printf "%s.gpu.count: the ONNX Runtime of the catalog is built for processors; name a build for CUDA in `library` under [%s.runtime] in %s.config" $fact.key (lower $fact.prefix) $fact.key) }}
{{- end }}
{{- if and (ne $name "edge") (eq $v.models.source "volume") $s.models.pull (not $s.models.volume) }}
{{- $wrong = append $wrong (printf "%s.models.volume: needed for models.source=volume" $fact.key) }}
{{- end }}
{{- if and (ne $name "edge") (eq $v.models.source "image") $s.models.volume }}
{{- $wrong = append $wrong (printf "%s.models.volume: would hide the weights of the image; leave it empty with models.source=image" $fact.key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $wrong }}
{{- fail (printf "\nthe values have %d problem(s):\n  %s" (len $wrong) (join "\n  " $wrong)) }}
{{- end }}
{{- end }}

{{/* What a service's lists have twice, or have as well as the chart: Kubernetes would refuse it. */}}
{{- define "koine.twice" -}}
{{- $wrong := list }}
{{- $lists := dict
  "env" (dict "by" "name" "own" .values.env "chart" list)
  "secretFiles" (dict "by" "file" "own" .values.secretFiles "chart" list)
  "volumes" (dict "by" "name" "own" .values.volumes "chart" (include "koine.volumes" . | fromYamlArray))
  "volumeMounts" (dict "by" "mountPath" "own" .values.volumeMounts "chart" (include "koine.mounts" . | fromYamlArray)) }}
{{- range $value, $list := $lists }}
{{- $seen := list }}
{{- range $list.chart }}{{ $seen = append $seen (get . $list.by) }}{{ end }}
{{- range $list.own }}
{{- $key := get . $list.by }}
{{- if has $key $seen }}{{ $wrong = append $wrong (printf "%s.%s: there is a %s %s already" $.fact.key $value $list.by $key) }}{{ end }}
{{- $seen = append $seen $key }}
{{- end }}
{{- end }}
{{- $wrong | toJson }}
{{- end }}
