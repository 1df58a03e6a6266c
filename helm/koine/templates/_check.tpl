{{/* Values that contradict each other or lack something: one message for all, each naming the value and the remedy. */}}
{{- define "koine.check" -}}
{{- $wrong := list }}
{{- $v := .Values }}
{{- $config := (include "koine.component" (dict "root" . "name" "edge") | fromJson).values.config }}
{{- if $v.edge.enabled }}
{{- if and $v.edge.auth.existingSecret $v.edge.auth.disabled }}
{{- $wrong = append $wrong "edge.auth: `existingSecret` and `disabled` contradict each other; keep one" }}
{{- else if not (or $v.edge.auth.existingSecret $v.edge.auth.disabled (contains "[edge.auth.jwt" $config)) }}
{{- $wrong = append $wrong (printf "edge.auth.existingSecret: name a Secret with the API keys (kubectl -n %s create secret generic koine-keys --from-literal=%s=\"$(openssl rand -hex 32)\"), configure [edge.auth.jwt] in edge.config, or set edge.auth.disabled=true behind a gateway that authenticates" .Release.Namespace $v.edge.auth.key) }}
{{- end }}
{{- if not (or $v.contentSafety.enabled $v.edge.endpoints.contentSafety (regexMatch `(?m)^\s*policy\s*=\s*""` $config)) }}
{{- $wrong = append $wrong "contentSafety.enabled: false, and no edge.endpoints.contentSafety: nothing would be screened; say so with `policy = \"\"` under [edge.guard] in edge.config" }}
{{- end }}
{{- if not (or $v.chat.enabled $v.embedding.enabled $v.edge.endpoints.chat $v.edge.endpoints.embedding) }}
{{- $wrong = append $wrong "edge.enabled: true, but there is neither a chat nor an embedding service to lead to; enable one or set edge.endpoints" }}
{{- end }}
{{- range $service := list "chat" "embedding" "contentSafety" }}
{{- if get $v.edge.endpoints $service }}
{{- if (get $v $service).enabled }}
{{- $wrong = append $wrong (printf "edge.endpoints.%s: takes the place of the chart's own service, which nobody would ask; set %s.enabled=false or leave it empty" $service $service) }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not (concat (default list $v.edge.egress) $v.defaults.egress)) }}
{{- $wrong = append $wrong (printf "edge.egress: the edge's NetworkPolicy closes the way to edge.endpoints.%s; open it there" $service) }}
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
{{- if and $v.edge.enabled (or $v.edge.tls.existingSecret $v.edge.tls.certManager) (regexMatch `(?m)^\s*\[edge\.tls\]` $config) }}
{{- $wrong = append $wrong "edge.tls: edge.config has a table [edge.tls] as well; keep one" }}
{{- end }}
{{- range $name, $fact := include "koine.facts" . | fromYaml }}
{{- $c := (include "koine.component" (dict "root" $ "name" $name) | fromJson).values }}
{{- $door := eq $name "edge" | ternary "edge.doors" (printf "%s.door" (lower $fact.prefix)) }}
{{- if and $c.enabled (or $internal $v.internal.token.existingSecret) (regexMatch (printf `(?m)^\s*\[%s[].]` ($door | replace "." "\\.")) $c.config) }}
{{- $wrong = append $wrong (printf "internal: %s.config has a table [%s] as well; keep one" $fact.key $door) }}
{{- end }}
{{- end }}
{{- range $service, $urls := $v.edge.endpoints }}
{{- range $urls }}
{{- if and $internal (hasPrefix "http://" .) }}
{{- $wrong = append $wrong (printf "edge.endpoints.%s: %s is without TLS, but internal.tls is on; begin it with https" $service .) }}
{{- else if and (not $internal) (hasPrefix "https://" .) (not (contains "[edge.doors.tls]" $config)) }}
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
{{- end }}
{{- if and (eq $name "edge") (int $s.gpu.count) }}
{{- $wrong = append $wrong "edge.gpu.count: the edge computes nothing; leave it 0" }}
{{- end }}
{{- if and (ne $name "edge") (int $s.gpu.count) (eq $v.image.repository "koine") (not (or $v.image.tag $s.image.tag $s.image.digest)) }}
{{- $wrong = append $wrong (printf "%s.gpu.count: the default images are built for processors; name one that is built for GPUs in %s.image.tag" $fact.key $fact.key) }}
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
