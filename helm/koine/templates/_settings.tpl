{{/* What a service will read: its config with the variables of its pod laid over it, as the binaries do. Checks and NetworkPolicies
look at this data and never at the text. */}}

{{/* Puts every option below `table` into the dictionary `into` by its full name; a table is there under its own name too. */}}
{{- define "koine.flatten" -}}
{{- range $key, $value := .table }}
{{- $path := printf "%s%s" $.prefix $key }}
{{- $_ := set $.into $path $value }}
{{- if kindIs "map" $value }}
{{- include "koine.flatten" (dict "table" $value "prefix" (printf "%s." $path) "into" $.into) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The options in the config of a service, as JSON; `Error` where it is not TOML. Takes what koine.component gives. */}}
{{- define "koine.written" -}}
{{- $file := fromToml .values.config }}
{{- $into := dict }}
{{- if kindIs "string" $file.Error }}{{ $_ := set $into "Error" $file.Error }}
{{- else }}
{{- $table := get $file (lower .fact.prefix) }}
{{- if kindIs "map" $table }}{{ include "koine.flatten" (dict "table" $table "prefix" "" "into" $into) }}{{ end }}
{{- end }}
{{- $into | toJson }}
{{- end }}

{{/* The same with the variables. What another object holds cannot be known here: it is the text `elsewhere`. */}}
{{- define "koine.settings" -}}
{{- $into := include "koine.written" . | fromJson }}
{{- $prefix := printf "%s__" .fact.prefix }}
{{- range include "koine.environment" . | fromYamlArray }}
{{- if hasPrefix $prefix .name }}
{{- $path := trimPrefix $prefix .name | lower | replace "__" "." }}
{{- $value := .valueFrom | empty | ternary (.value | default "") "elsewhere" }}
{{- $read := fromToml (printf "v = %s" $value) }}
{{- if hasKey $read "v" }}{{ $value = $read.v }}{{ end }}
{{- $_ := set $into $path $value }}
{{- if kindIs "map" $value }}{{ include "koine.flatten" (dict "table" $value "prefix" (printf "%s." $path) "into" $into) }}{{ end }}
{{- end }}
{{- end }}
{{- $into | toJson }}
{{- end }}

{{/* The variables of a pod as a list: what the chart sets, but for names that the operator's own list has. Takes chart and own. */}}
{{- define "koine.variables" -}}
{{- $names := list }}
{{- range .own }}{{ $names = append $names .name }}{{ end }}
{{- $all := list }}
{{- range .chart }}{{ if not (has .name $names) }}{{ $all = append $all . }}{{ end }}{{ end }}
{{- concat $all .own | toYaml }}
{{- end }}

{{- define "koine.environment" -}}
{{- include "koine.variables" (dict "chart" (include "koine.env" . | fromYamlArray) "own" .values.env) }}
{{- end }}

{{/* The port that a URL leads to; nothing where it is no URL. */}}
{{- define "koine.port" -}}
{{- $host := regexReplaceAll "^[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*).*$" . "${1}" }}
{{- $usual := dict "http" 80 "https" 443 "redis" 6379 "rediss" 6379 }}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (get $usual (regexFind "^[a-z]+" (regexFind "^[a-z]+://" .))) }}
{{- end }}

{{/* Ports that the URLs in the settings of a service lead to, as JSON, each list by whom the ways are limited in networkPolicy:
`collector`, `redis`, or `others`. A port that an egress rule of the operator names is left to that rule. */}}
{{- define "koine.ways" -}}
{{- $s := include "koine.settings" . | fromJson }}
{{- $ways := dict "collector" (list (get $s "service.telemetry.otlp_endpoint")) "redis" list "others" list }}
{{- $urls := list }}
{{- if eq .name "edge" }}
{{- $redis := get $s "state.redis_url" }}
{{- if eq $redis "elsewhere" }}{{ $redis = printf "redis://elsewhere:%v" .root.Values.redis.port }}{{ end }}
{{- if ne $redis (include "koine.trialRedis" .root) }}{{ $_ := set $ways "redis" (list $redis) }}{{ end }}
{{- $issuers := get $s "auth.jwt.issuers" }}
{{- if and $issuers (kindIs "slice" $issuers) }}{{ $urls = append $urls (get $s "auth.jwt.jwks_url" | default (first $issuers)) }}{{ end }}
{{- range $name := list "chat" "embedding" "content-safety" }}
{{- $endpoints := get $s (printf "%s.endpoints" (snakecase $name)) }}
{{- if kindIs "slice" $endpoints }}{{ $urls = concat $urls (without $endpoints (include "koine.address" (dict "root" $.root "name" $name))) }}{{ end }}
{{- end }}
{{- else if kindIs "slice" (get $s "remote") }}
{{- range get $s "remote" }}
{{- if kindIs "map" . }}{{ if kindIs "slice" .base_urls }}{{ $urls = concat $urls .base_urls }}{{ end }}{{ end }}
{{- end }}
{{- end }}
{{- range .values.env }}
{{- if regexMatch "(?i)^(https?|all)_proxy$" .name }}{{ $urls = append $urls .value }}{{ end }}
{{- end }}
{{- if eq (include "koine.pulls" .) "true" }}
{{- /* The index of packages and the model hub, where they are when nothing else is said. */}}
{{- $urls = append $urls "https://weights" }}
{{- range .root.Values.models.env }}{{ $urls = concat $urls (regexFindAll `[a-z]+://[^\s"',\]]+` (.value | default "") -1) }}{{ end }}
{{- end }}
{{- $_ := set $ways "others" $urls }}
{{- $named := list }}
{{- range .values.egress }}{{ range .ports }}{{ $named = append $named (toString .port) }}{{ end }}{{ end }}
{{- $open := dict }}
{{- range $whom, $urls := $ways }}
{{- $ports := list }}
{{- range $urls }}
{{- $port := kindIs "string" . | ternary (include "koine.port" (toString .)) "" }}
{{- if and $port (not (has $port $named)) }}{{ $ports = append $ports (int $port) }}{{ end }}
{{- end }}
{{- $_ := set $open $whom (uniq $ports) }}
{{- end }}
{{- $open | toJson }}
{{- end }}
