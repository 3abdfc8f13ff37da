{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* Leaves room for the suffixes of the services: a name has at most 63 characters. */}}
{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* What the restricted pod security standard asks of a pod, and of each container. */}}
{{- define "gateway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gateway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the pods of `helm test` have in common. */}}
{{- define "gateway.testPod" -}}
restartPolicy: Never
activeDeadlineSeconds: 300
serviceAccountName: {{ include "gateway.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "gateway.podSecurity" . | nindent 2 }}
{{- end }}

{{- define "gateway.testResources" -}}
requests:
  cpu: 50m
  memory: 32Mi
limits:
  memory: 256Mi
{{- end }}

{{/* The Secret that is mounted. */}}
{{- define "gateway.secretName" -}}
{{- if or .Values.sandbox.enabled .Values.secrets.create -}}
{{ include "gateway.fullname" . }}
{{- else -}}
{{ .Values.secrets.existingSecret }}
{{- end -}}
{{- end }}

{{/* The settings that are secret, and their keys in the Secret, as YAML: those in use. */}}
{{- define "gateway.secretKeys" -}}
{{- range $setting, $key := .Values.secrets.keys }}
{{- if $key }}
{{ $setting }}: {{ $key | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Secret with the URL or the password of the database. */}}
{{- define "gateway.journalSecretName" -}}
{{ default (include "gateway.secretName" .) .Values.journal.existingSecret }}
{{- end }}

{{/* The secret settings of the database, and their keys in the Secret, as YAML. */}}
{{- define "gateway.journalKeys" -}}
{{- if eq .Values.journal.engine "postgres" }}
{{- if not .Values.journal.url }}
journal.url: {{ .Values.journal.urlKey | quote }}
{{- end }}
{{- with .Values.journal.passwordKey }}
journal.password: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Spreads several replicas over nodes and zones, unless the values say otherwise. */}}
{{- define "gateway.spread" -}}
{{- $selector := dict "matchLabels" (merge (include "gateway.selector" . | fromYaml) (dict "app.kubernetes.io/component" "gateway")) -}}
{{- $constraints := .Values.topologySpreadConstraints -}}
{{- if and (not $constraints) (gt (int .Values.replicaCount) 1) -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" $key "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- end -}}
{{- $all := list -}}
{{- range $constraints -}}
{{- $all = append $all (merge (deepCopy .) (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{- define "gateway.listen" -}}
{{- if contains ":" .address }}[{{ .address }}]{{ else }}{{ .address }}{{ end }}:{{ .port }}
{{- end }}

{{/* All settings, as YAML: what the values say, then what the chart sets. */}}
{{- define "gateway.settings" -}}
{{- $settings := deepCopy .Values.config -}}
{{- $ours := dict
  "grpc" (dict "listen" (include "gateway.listen" (dict "address" .Values.listenAddress "port" 50051)))
  "callbacks" (dict "listen" (include "gateway.listen" (dict "address" .Values.listenAddress "port" 9001)))
  "admin" (dict "listen" (include "gateway.listen" (dict "address" .Values.listenAddress "port" 9090)))
  "journal" (dict "dir" "/var/lib/thingspace-gateway/journal")
  "thingspace" dict -}}
{{- if eq .Values.journal.engine "postgres" -}}
{{- $_ := set $ours.journal "engine" "postgres" -}}
{{- with .Values.journal.url -}}
{{- $_ := set $ours.journal "url" . -}}
{{- end -}}
{{- if .Values.journal.spool.enabled -}}
{{- $_ := set $ours.journal "spool_dir" "/var/lib/thingspace-gateway-spool/spool" -}}
{{- end -}}
{{- end -}}
{{- range $setting, $key := (merge (include "gateway.secretKeys" . | fromYaml) (include "gateway.journalKeys" . | fromYaml)) -}}
{{- $parts := splitList "." $setting -}}
{{- $_ := set (index $ours (first $parts)) (printf "%s_file" (last $parts)) (printf "/etc/thingspace-gateway/secrets/%s" $setting) -}}
{{- end -}}
{{- if .Values.grpc.tlsSecret -}}
{{- $_ := set $ours.grpc "tls_cert_file" "/etc/thingspace-gateway/grpc-tls/tls.crt" -}}
{{- $_ := set $ours.grpc "tls_key_file" "/etc/thingspace-gateway/grpc-tls/tls.key" -}}
{{- end -}}
{{- if .Values.grpc.clientCaSecret -}}
{{- $_ := set $ours.grpc "tls_client_ca_file" "/etc/thingspace-gateway/grpc-clients/ca.crt" -}}
{{- end -}}
{{- if .Values.callbacks.tlsSecret -}}
{{- $_ := set $ours.callbacks "tls_cert_file" "/etc/thingspace-gateway/tls/tls.crt" -}}
{{- $_ := set $ours.callbacks "tls_key_file" "/etc/thingspace-gateway/tls/tls.key" -}}
{{- end -}}
{{- if .Values.policy -}}
{{- $_ := set $ours "auth" (dict "policy_file" "/etc/thingspace-gateway/policy/policy.toml") -}}
{{- end -}}
{{- if .Values.sandbox.enabled -}}
{{- $_ := set $ours.thingspace "base_url" (printf "http://%s-sandbox:8080/api" (include "gateway.fullname" .)) -}}
{{- end -}}
{{- mergeOverwrite $settings $ours | toYaml -}}
{{- end }}

{{/* Settings as TOML. JSON's strings, numbers and lists are TOML's; helm's own toToml would
     write 100 as 100.0. */}}
{{- define "gateway.toml" -}}
{{- range $group, $settings := . }}
[{{ $group }}]
{{- range $key, $value := $settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end }}

{{/* What no schema can say in a sentence. */}}
{{- define "gateway.check" -}}
{{- $journal := .Values.journal -}}
{{- if eq $journal.engine "postgres" -}}
{{- if regexMatch "^[a-z]+://[^/@?]*:[^/@?]*@" $journal.url -}}
{{- fail "journal.url: contains a password, which would be in the ConfigMap; put the password in a Secret and set journal.passwordKey, or put the whole URL in a Secret and set journal.urlKey" -}}
{{- end -}}
{{- if not (or $journal.url $journal.urlKey) -}}
{{- fail "journal.url: not set, and neither is journal.urlKey; journal.engine postgres needs one of them" -}}
{{- end -}}
{{- if and (or .Values.secrets.create .Values.sandbox.enabled) (not $journal.existingSecret) (include "gateway.journalKeys" . | fromYaml) -}}
{{- fail "journal.existingSecret: not set; name the Secret with the URL or the password of the database, because the Secret that the chart creates has neither" -}}
{{- end -}}
{{- if .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim: only with journal.engine sqlite; the journal is in PostgreSQL" -}}
{{- end -}}
{{- else -}}
{{- if ne (int .Values.replicaCount) 1 -}}
{{- fail "replicaCount: only 1 is possible with journal.engine sqlite, because the embedded journal is one database on one volume that one process writes; more replicas need journal.engine postgres" -}}
{{- end -}}
{{- if or $journal.url $journal.existingSecret $journal.passwordKey $journal.caSecret $journal.spool.enabled -}}
{{- fail "journal: url, existingSecret, passwordKey, caSecret and spool.enabled need journal.engine postgres" -}}
{{- end -}}
{{- end -}}
{{- $names := include "gateway.secretKeys" . | fromYaml -}}
{{- $required := list "thingspace.app_key" "thingspace.app_secret" "thingspace.uws_username" "thingspace.uws_password" -}}
{{- range $setting := $required -}}
{{- if not (hasKey $names $setting) -}}
{{- fail (printf "secrets.keys: %s has no key, and the gateway does not start without it; name the key of the Secret that holds it" $setting) -}}
{{- end -}}
{{- end -}}
{{- if not (or (hasKey $names "callbacks.path_secret") (hasKey $names "callbacks.password") (dig "callbacks" "insecure" false .Values.config)) -}}
{{- fail "secrets.keys: neither callbacks.path_secret nor callbacks.password has a key, so anybody could write results; name one, or set config.callbacks.insecure" -}}
{{- end -}}
{{- range $pair := list (list "callbacks.username" "callbacks.password") (list "callbacks.previous_username" "callbacks.previous_password") -}}
{{- if ne (hasKey $names (first $pair)) (hasKey $names (last $pair)) -}}
{{- fail (printf "secrets.keys: %s and %s belong together: give both a key, or neither" (first $pair) (last $pair)) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $names "callbacks.previous_username") (not (hasKey $names "callbacks.username")) -}}
{{- fail "secrets.keys: callbacks.previous_username has a key and callbacks.username has none; the previous pair stands beside a present one" -}}
{{- end -}}
{{- if and .Values.grpc.clientCaSecret (not .Values.grpc.tlsSecret) -}}
{{- fail "grpc.clientCaSecret: only with grpc.tlsSecret, because clients present certificates only with TLS" -}}
{{- end -}}
{{- $callbacks := .Values.service.callbacks -}}
{{- if and $callbacks.externalTrafficPolicy (eq $callbacks.type "ClusterIP") -}}
{{- fail "service.callbacks.externalTrafficPolicy: only with service.callbacks.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- $grace := dig "shutdown" "grace" "25s" .Values.config -}}
{{- if and (regexMatch "^[0-9]+s$" $grace) (ge (trimSuffix "s" $grace | int) (int .Values.terminationGracePeriodSeconds)) -}}
{{- fail (printf "terminationGracePeriodSeconds: %d does not cover config.shutdown.grace, %s: the pod would be killed in its drain" (int .Values.terminationGracePeriodSeconds) $grace) -}}
{{- end -}}
{{- if .Values.sandbox.enabled -}}
{{- if or .Values.callbacks.tlsSecret (hasKey $names "callbacks.username") -}}
{{- fail "sandbox.enabled: not together with callbacks.tlsSecret or a key for callbacks.username: the sandbox delivers over plain http, behind the path secret alone" -}}
{{- end -}}
{{- if .Values.grpc.tlsSecret -}}
{{- fail "sandbox.enabled: not together with grpc.tlsSecret: helm test calls the gRPC port in plaintext" -}}
{{- end -}}
{{- if .Values.secrets.create -}}
{{- fail "secrets.create: not together with sandbox.enabled, which takes any credentials: real ones have no business there" -}}
{{- end -}}
{{- if dig "thingspace" "base_url" "" .Values.config -}}
{{- fail "config.thingspace.base_url: not together with sandbox.enabled, which is its own ThingSpace" -}}
{{- end -}}
{{- else if .Values.secrets.create -}}
{{- range $setting, $key := $names -}}
{{- if not (get $.Values.secrets.values $setting) -}}
{{- fail (printf "secrets.values: %s is missing; with secrets.create each setting that has a key in secrets.keys needs its value" $setting) -}}
{{- end -}}
{{- end -}}
{{- else if not .Values.secrets.existingSecret -}}
{{- fail (printf "secrets.existingSecret: not set; name a Secret with the keys %s, or set secrets.create with secrets.values, or sandbox.enabled to try things out" (values $names | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if and .Values.persistence.existingClaim (ne .Values.persistence.type "claim") -}}
{{- fail "persistence.existingClaim: set together with persistence.type emptyDir; choose one" -}}
{{- end -}}
{{- end }}
