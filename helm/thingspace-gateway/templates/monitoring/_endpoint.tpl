{{/* An endpoint that Prometheus scrapes. The alerts select its job. Arguments: port, values. */}}
{{- define "gateway.scrapeEndpoint" -}}
{{- $job := dict "targetLabel" "job" "replacement" "thingspace-gateway" -}}
{{- $endpoint := dict "port" .port "path" "/metrics" "interval" .values.interval -}}
{{- $relabelings := append (.values.endpoint.relabelings | default list) $job -}}
{{- mergeOverwrite $endpoint (deepCopy .values.endpoint) (dict "relabelings" $relabelings) | toYaml -}}
{{- end }}
