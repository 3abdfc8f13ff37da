{{/* The settings that are secret, and their keys in the Secret, as YAML: those in use. */}}
{{- define "gateway.secretKeys" -}}
{{- range $setting, $key := .Values.secrets.keys }}
{{- if $key }}
{{ $setting }}: {{ $key | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The secret settings of the database, and their keys in the Secret, as YAML. */}}
{{- define "gateway.journalKeys" -}}
{{- if include "gateway.postgres" . }}
{{- if not .Values.journal.url }}
journal.url: {{ .Values.journal.urlKey | quote }}
{{- end }}
{{- with .Values.journal.passwordKey }}
journal.password: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gateway.listen" -}}
{{- if contains ":" .address }}[{{ .address }}]{{ else }}{{ .address }}{{ end }}:{{ .port }}
{{- end }}

{{/* Settings that follow from `expose` and `mesh`. The settings in `config` override them. */}}
{{- define "gateway.derivedSettings" -}}
{{- $callbacks := dict -}}
{{- with include "gateway.publicUrl" . -}}
{{- $_ := set $callbacks "public_url" . -}}
{{- end -}}
{{- if has .Values.expose.callbacks.type (list "ingress" "httpRoute") -}}
{{- $_ := set $callbacks "trusted_hops" 1 -}}
{{- end -}}
{{- $auth := dict -}}
{{- if include "gateway.authMode" (dict "root" . "mode" "mesh") -}}
{{- $mesh := .Values.mesh.type -}}
{{- if eq $mesh "istio" -}}
{{- /* The sidecar calls the gateway from these addresses. */ -}}
{{- $auth = dict "mesh_header" "x-forwarded-client-cert" "mesh_trusted_cidrs" (list "127.0.0.6/32" "::6/128") -}}
{{- else if eq $mesh "ambient" -}}
{{- $auth = dict "mesh_header" "x-forwarded-client-cert" "mesh_trusted_cidrs" .Values.mesh.podCidrs -}}
{{- else if eq $mesh "linkerd" -}}
{{- /* The environment sets the trusted address, which is that of the pod. */ -}}
{{- $auth = dict "mesh_header" "l5d-client-id" -}}
{{- end -}}
{{- end -}}
{{- dict "callbacks" $callbacks "auth" $auth | toYaml -}}
{{- end }}

{{/* Settings that only the chart sets: ports, paths and files. */}}
{{- define "gateway.ownSettings" -}}
{{- $address := .Values.listenAddress -}}
{{- $own := dict
  "grpc" (dict "listen" (include "gateway.listen" (dict "address" $address "port" 50051)))
  "callbacks" (dict "listen" (include "gateway.listen" (dict "address" $address "port" 9001)))
  "admin" (dict "listen" (include "gateway.listen" (dict "address" $address "port" 9090)))
  "journal" (dict "dir" "/var/lib/thingspace-gateway/journal")
  "thingspace" dict -}}
{{- if .Values.console.enabled -}}
{{- $_ := set $own "console" (dict "listen" (include "gateway.listen" (dict "address" $address "port" 8080))) -}}
{{- end -}}
{{- if include "gateway.postgres" . -}}
{{- $_ := set $own.journal "engine" "postgres" -}}
{{- with .Values.journal.url -}}
{{- $_ := set $own.journal "url" . -}}
{{- end -}}
{{- if include "gateway.spool" . -}}
{{- $_ := set $own.journal "spool_dir" "/var/lib/thingspace-gateway-spool/spool" -}}
{{- end -}}
{{- end -}}
{{- range $setting, $key := (merge (include "gateway.secretKeys" . | fromYaml) (include "gateway.journalKeys" . | fromYaml)) -}}
{{- $parts := splitList "." $setting -}}
{{- $_ := set (index $own (first $parts)) (printf "%s_file" (last $parts)) (printf "/etc/thingspace-gateway/secrets/%s" $setting) -}}
{{- end -}}
{{- if include "gateway.tlsSecret" (dict "root" . "port" "grpc") -}}
{{- $_ := set $own.grpc "tls_cert_file" "/etc/thingspace-gateway/grpc-tls/tls.crt" -}}
{{- $_ := set $own.grpc "tls_key_file" "/etc/thingspace-gateway/grpc-tls/tls.key" -}}
{{- end -}}
{{- if .Values.grpc.clientCaSecret -}}
{{- $_ := set $own.grpc "tls_client_ca_file" "/etc/thingspace-gateway/grpc-clients/ca.crt" -}}
{{- end -}}
{{- if include "gateway.tlsSecret" (dict "root" . "port" "callbacks") -}}
{{- $_ := set $own.callbacks "tls_cert_file" "/etc/thingspace-gateway/tls/tls.crt" -}}
{{- $_ := set $own.callbacks "tls_key_file" "/etc/thingspace-gateway/tls/tls.key" -}}
{{- end -}}
{{- if include "gateway.policyConfigMap" . -}}
{{- $_ := set $own "auth" (dict "policy_file" "/etc/thingspace-gateway/policy/policy.toml") -}}
{{- end -}}
{{- if .Values.sandbox.enabled -}}
{{- $_ := set $own.thingspace "base_url" (printf "http://%s-sandbox:8080/api" (include "gateway.fullname" .)) -}}
{{- end -}}
{{- toYaml $own -}}
{{- end }}

{{/* All settings, as YAML. */}}
{{- define "gateway.settings" -}}
{{- $derived := include "gateway.derivedSettings" . | fromYaml -}}
{{- $own := include "gateway.ownSettings" . | fromYaml -}}
{{- mergeOverwrite $derived (deepCopy .Values.config) $own | toYaml -}}
{{- end }}

{{/* Settings as TOML. JSON's strings, numbers and lists are TOML's; helm's own toToml would
     write 100 as 100.0. */}}
{{- define "gateway.toml" -}}
{{- range $group, $settings := . }}
{{- if $settings }}
[{{ $group }}]
{{- range $key, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}
{{- end }}
