{{/* Values that follow from others. Each is empty if it is false. */}}

{{- define "gateway.postgres" -}}
{{- if eq .Values.journal.engine "postgres" }}true{{ end -}}
{{- end }}

{{- define "gateway.spool" -}}
{{- if and (include "gateway.postgres" .) .Values.journal.spool.enabled }}true{{ end -}}
{{- end }}

{{/* Only pods with a volume claim, and the one pod of an embedded journal, need a StatefulSet. */}}
{{- define "gateway.stateful" -}}
{{- if or (not (include "gateway.postgres" .)) (and (include "gateway.spool" .) (eq .Values.journal.spool.type "claim")) }}true{{ end -}}
{{- end }}

{{/* The journal is in an emptyDir. */}}
{{- define "gateway.temporary" -}}
{{- if or .Values.sandbox.enabled (eq .Values.persistence.type "emptyDir") }}true{{ end -}}
{{- end }}

{{/* The volume claim of each pod, in YAML: name, size, class. Empty: none. */}}
{{- define "gateway.claim" -}}
{{- if and (include "gateway.spool" .) (eq .Values.journal.spool.type "claim") -}}
{{- dict "name" "spool" "size" .Values.journal.spool.size "class" .Values.journal.spool.storageClass | toYaml -}}
{{- else if not (or (include "gateway.postgres" .) (include "gateway.temporary" .) .Values.persistence.existingClaim) -}}
{{- dict "name" "journal" "size" .Values.persistence.size "class" .Values.persistence.storageClass | toYaml -}}
{{- end -}}
{{- end }}

{{/* Several pods can run at a time. */}}
{{- define "gateway.several" -}}
{{- $replicas := ternary .Values.autoscaling.maxReplicas .Values.replicaCount .Values.autoscaling.enabled -}}
{{- if gt (int $replicas) 1 }}true{{ end -}}
{{- end }}

{{/* The modes of authentication, as a list in YAML. */}}
{{- define "gateway.authModes" -}}
{{- $modes := dig "auth" "mode" "" .Values.config -}}
{{- if kindIs "string" $modes }}{{ $modes = splitList "," (nospace $modes) }}{{ end -}}
{{- without $modes "none" "" | toYaml -}}
{{- end }}

{{/* Clients are authenticated. */}}
{{- define "gateway.authenticated" -}}
{{- if include "gateway.authModes" . | fromYamlArray }}true{{ end -}}
{{- end }}

{{/* A mode of authentication is on. Arguments: root, mode. */}}
{{- define "gateway.authMode" -}}
{{- if has .mode (include "gateway.authModes" .root | fromYamlArray) }}true{{ end -}}
{{- end }}

{{/* A size of a volume in bytes: the API server writes 1024Gi as 1Ti. */}}
{{- define "gateway.bytes" -}}
{{- $units := dict "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{ mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[A-Za-z]+$" .) | default 1 | int64) }}
{{- end }}

{{/* The bytes of a spool's volume beyond `journal.spool_max_bytes`: for the write-ahead log, about 4 MiB, other files
     and directories. */}}
{{- define "gateway.spoolMargin" -}}
16777216
{{- end }}

{{/* The Secret with the certificate of an exposed host. Arguments: root, port. */}}
{{- define "gateway.exposedCertificate" -}}
{{- if .root.Values.expose.certificate.enabled -}}
{{ include "gateway.fullname" .root }}-{{ .port }}-tls
{{- else -}}
{{ (index .root.Values.expose .port).tlsSecret }}
{{- end -}}
{{- end }}

{{/* The Secret with which a port of the gateway serves TLS. Arguments: root, port. */}}
{{- define "gateway.tlsSecret" -}}
{{- $own := (index .root.Values .port).tlsSecret -}}
{{- if $own -}}
{{ $own }}
{{- else if eq (index .root.Values.expose .port).type "loadBalancer" -}}
{{ include "gateway.exposedCertificate" . }}
{{- end -}}
{{- end }}

{{/* The type of a service. Arguments: root, port. */}}
{{- define "gateway.serviceType" -}}
{{- if eq (index .root.Values.expose .port).type "loadBalancer" -}}
LoadBalancer
{{- else -}}
{{ (index .root.Values.service .port).type }}
{{- end -}}
{{- end }}

{{/* A port is exposed over a proxy. Arguments: root, port. */}}
{{- define "gateway.proxied" -}}
{{- if not (has (index .root.Values.expose .port).type (list "none" "loadBalancer")) }}true{{ end -}}
{{- end }}

{{/* The port of the callbacks' public address. */}}
{{- define "gateway.publicPort" -}}
{{- $expose := .Values.expose.callbacks -}}
{{ $expose.port | default (ternary .Values.service.callbacks.port 443 (eq $expose.type "loadBalancer")) | int }}
{{- end }}

{{/* The address that ThingSpace calls. */}}
{{- define "gateway.publicUrl" -}}
{{- $expose := .Values.expose.callbacks -}}
{{- if ne $expose.type "none" -}}
{{- $port := include "gateway.publicPort" . -}}
https://{{ $expose.host }}{{ if ne $port "443" }}:{{ $port }}{{ end }}
{{- else -}}
{{ dig "callbacks" "public_url" "" .Values.config | trimSuffix "/" }}
{{- end -}}
{{- end }}

{{/* ThingSpace calls a port. */}}
{{- define "gateway.calledByThingSpace" -}}
{{- $port := int . -}}
{{- if or (eq $port 80) (eq $port 443) (and (ge $port 9001) (le $port 9006)) (and (ge $port 50551) (le $port 50559)) (and (ge $port 28200) (le $port 28220)) }}true{{ end -}}
{{- end }}

{{/* The policy for external traffic to the service for callbacks. */}}
{{- define "gateway.externalTrafficPolicy" -}}
{{- if .Values.service.callbacks.externalTrafficPolicy -}}
{{ .Values.service.callbacks.externalTrafficPolicy }}
{{- else if and (ne (include "gateway.serviceType" (dict "root" . "port" "callbacks")) "ClusterIP") (dig "callbacks" "allow_cidrs" list .Values.config) -}}
Local
{{- end -}}
{{- end }}

{{/* A duration of the settings in a form that the chart reads, such as 25s or 1m30s. */}}
{{- define "gateway.isDuration" -}}
{{- if regexMatch "^([0-9]+(ms|s|m|h|d))+$" . }}true{{ end -}}
{{- end }}

{{- define "gateway.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $total = add $total (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{ $total }}
{{- end }}

{{- define "gateway.preStopSleep" -}}
{{- $seconds := int .Values.preStopSleepSeconds -}}
{{- if ge $seconds 0 }}{{ $seconds }}{{ else }}{{ ternary 5 0 (eq .Values.journal.engine "postgres") }}{{ end -}}
{{- end }}

{{- define "gateway.shutdownGrace" -}}
{{ div (add (include "gateway.setting" (dict "root" . "name" "shutdown.grace") | include "gateway.milliseconds" | int64) 999) 1000 }}
{{- end }}

{{- define "gateway.terminationGracePeriod" -}}
{{- $needed := add (include "gateway.preStopSleep" . | int) (include "gateway.shutdownGrace" . | int) 5 -}}
{{ .Values.terminationGracePeriodSeconds | default $needed }}
{{- end }}

{{- define "gateway.urlPort" -}}
{{- $url := urlParse . -}}
{{ regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) }}
{{- end }}

{{/* The ports of the database, as a list in YAML. */}}
{{- define "gateway.databasePorts" -}}
{{- if and (include "gateway.postgres" .) .Values.journal.url -}}
{{- $ports := list -}}
{{- $authority := .Values.journal.url | regexFind "^[a-z]+://[^/?]*" -}}
{{- range $host := splitList "," (splitList "@" (regexReplaceAll "^[a-z]+://" $authority "") | last) -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" $host | trimPrefix ":" | default "5432" | int) -}}
{{- end -}}
{{- with regexFind "[?&]port=[0-9,]+" .Values.journal.url -}}
{{- $ports = list -}}
{{- range regexFindAll "[0-9]+" . -1 }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- end -}}
{{- concat $ports .Values.networkPolicy.egress.databasePorts | uniq | toYaml -}}
{{- else if include "gateway.postgres" . -}}
{{- .Values.networkPolicy.egress.databasePorts | default (list 5432) | toYaml -}}
{{- else -}}
[]
{{- end -}}
{{- end }}

{{/* True if OpenShift assigns the IDs of the user and the groups. */}}
{{- define "gateway.openshift" -}}
{{- $openshift := toString .Values.openshift -}}
{{- if or (eq $openshift "true") (and (eq $openshift "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}true{{ end -}}
{{- end }}

{{/* The TCP ports that the gateway opens connections to, as a list in YAML. */}}
{{- define "gateway.egressPorts" -}}
{{- $ports := list 443 -}}
{{- $settings := .Values.config -}}
{{- $urls := list (dig "thingspace" "base_url" "" $settings) (dig "auth" "jwt_jwks_url" "" $settings) (dig "telemetry" "otlp_endpoint" "" $settings) -}}
{{- range .Values.extraEnv -}}
{{- if and (hasPrefix "OTEL_EXPORTER_OTLP" .name) (hasSuffix "ENDPOINT" .name) -}}
{{- $urls = append $urls (get . "value") -}}
{{- end -}}
{{- end -}}
{{- range compact $urls -}}
{{- $ports = append $ports (include "gateway.urlPort" . | int) -}}
{{- end -}}
{{- $ports = concat $ports (include "gateway.databasePorts" . | fromYamlArray) -}}
{{- $whole := list -}}
{{- range $ports }}{{ $whole = append $whole (int .) }}{{ end -}}
{{- $whole | uniq | toYaml -}}
{{- end }}
