{{/* Refuses values that no schema can refuse, with a sentence that says what to do. */}}
{{- define "gateway.check" -}}
{{- include "gateway.checkNames" . -}}
{{- include "gateway.checkJournal" . -}}
{{- include "gateway.checkReplicas" . -}}
{{- include "gateway.checkSecrets" . -}}
{{- include "gateway.checkSandbox" . -}}
{{- include "gateway.checkAuthentication" . -}}
{{- include "gateway.checkExposure" . -}}
{{- include "gateway.checkSettings" . -}}
{{- include "gateway.checkPods" . -}}
{{- include "gateway.checkEffects" . -}}
{{- include "gateway.checkLifecycle" . -}}
{{- end }}

{{- define "gateway.checkJournal" -}}
{{- $journal := .Values.journal -}}
{{- if include "gateway.postgres" . -}}
{{- if or (regexMatch "^[a-z]+://[^/@?]*:[^/@?]*@" $journal.url) (regexMatch "[?&](ssl)?password=" $journal.url) -}}
{{- fail "journal.url: contains a password, which would be in the ConfigMap; put the password in a Secret and set journal.passwordKey, or put the whole URL in a Secret and set journal.urlKey" -}}
{{- end -}}
{{- include "gateway.checkDatabaseUrl" . -}}
{{- if not (or $journal.url $journal.urlKey) -}}
{{- fail "journal.url: not set, and neither is journal.urlKey; journal.engine postgres needs one of them" -}}
{{- end -}}
{{- if and (or .Values.secrets.create .Values.sandbox.enabled) (not $journal.existingSecret) (include "gateway.journalKeys" . | fromYaml) -}}
{{- fail "journal.existingSecret: not set; name the Secret with the URL or the password of the database, because the Secret that the chart creates has neither" -}}
{{- end -}}
{{- if .Values.persistence.existingClaim -}}
{{- fail "persistence.existingClaim: only with journal.engine sqlite; the journal is in PostgreSQL" -}}
{{- end -}}
{{- include "gateway.checkSpool" . -}}
{{- else -}}
{{- if or $journal.url $journal.existingSecret $journal.passwordKey $journal.caSecret $journal.spool.enabled -}}
{{- fail "journal: url, existingSecret, passwordKey, caSecret and spool.enabled need journal.engine postgres" -}}
{{- end -}}
{{- if and (eq .Values.persistence.type "emptyDir") (not .Values.sandbox.enabled) -}}
{{- fail "persistence.type: emptyDir only with sandbox.enabled, because without the journal a repeated call changes the plans again; use claim" -}}
{{- end -}}
{{- if and .Values.persistence.existingClaim (include "gateway.temporary" .) -}}
{{- fail "persistence.existingClaim: not together with persistence.type emptyDir or sandbox.enabled, which use no claim; remove one of them" -}}
{{- end -}}
{{- end -}}
{{- include "gateway.checkClaim" . -}}
{{- end }}

{{/* Parts of the URL that the gateway does not accept, and a certificate that only one of the URL and the volume has. */}}
{{- define "gateway.checkDatabaseUrl" -}}
{{- $url := .Values.journal.url -}}
{{- $file := "/etc/thingspace-gateway/postgres/ca.crt" -}}
{{- $root := regexFind "[?&]sslrootcert=[^&]*" $url | regexFind "[^=]*$" | replace "%2F" "/" | replace "%2f" "/" -}}
{{- $mode := regexFind "[?&]sslmode=[^&]*" $url | regexFind "[^=]*$" -}}
{{- if and $url .Values.journal.caSecret (ne $root $file) -}}
{{- fail (printf "journal.caSecret: has no effect, because journal.url does not name its file; add sslrootcert=%s to the URL" $file) -}}
{{- end -}}
{{- if and (hasPrefix (dir $file) $root) (not .Values.journal.caSecret) -}}
{{- fail (printf "journal.caSecret: not set; journal.url names %s, which does not exist without it: name the Secret whose key ca.crt has the CA certificate" $root) -}}
{{- end -}}
{{- if not (has $mode (list "" "disable" "require" "verify-full")) -}}
{{- fail (printf "journal.url: sslmode=%s is not accepted, because TLS always verifies the server; use verify-full, or disable" $mode) -}}
{{- end -}}
{{- range include "gateway.databasePorts" . | fromYamlArray -}}
{{- if or (lt (int .) 1) (gt (int .) 65535) -}}
{{- fail (printf "journal.url: %v is no port; use one from 1 to 65535" .) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A spool that fits its volume: the kubelet evicts a pod whose emptyDir is larger than its limit. */}}
{{- define "gateway.checkSpool" -}}
{{- if .Values.journal.spool.enabled -}}
{{- $bound := include "gateway.setting" (dict "root" . "name" "journal.spool_max_bytes") | int64 -}}
{{- $needed := add $bound (include "gateway.spoolMargin" . | int64) -}}
{{- if lt (include "gateway.bytes" .Values.journal.spool.size | trim | int64) $needed -}}
{{- fail (printf "journal.spool.size: %s is too small for config.journal.spool_max_bytes, %d, and 16 MiB for the files of its database, so acknowledged callbacks could be lost; set at least %dMi, or lower config.journal.spool_max_bytes" .Values.journal.spool.size $bound (div (add $needed 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Kubernetes rejects changes of `volumeClaimTemplates` with a message that names no fix. */}}
{{- define "gateway.checkClaim" -}}
{{- $name := include "gateway.workloadName" . -}}
{{- $existing := lookup "apps/v1" "StatefulSet" .Release.Namespace $name -}}
{{- if and $existing (include "gateway.stateful" .) -}}
{{- $old := dict -}}
{{- range dig "spec" "volumeClaimTemplates" list $existing -}}
{{- $size := dig "spec" "resources" "requests" "storage" "" . -}}
{{- $old = dict "name" .metadata.name "size" $size "mode" (dig "spec" "accessModes" list . | join ",") "class" (dig "spec" "storageClassName" "" .) "bytes" (include "gateway.bytes" $size) -}}
{{- end -}}
{{- $mounted := "" -}}
{{- range dig "spec" "template" "spec" "volumes" list $existing -}}
{{- if eq .name "journal" }}{{ $mounted = dig "persistentVolumeClaim" "claimName" "" . }}{{ end -}}
{{- end -}}
{{- $new := include "gateway.claim" . | fromYaml -}}
{{- $section := ternary "journal.spool" "persistence" (not (empty (include "gateway.postgres" .))) -}}
{{- if $new }}{{ $_ := set (set $new "mode" .Values.persistence.accessMode) "bytes" (include "gateway.bytes" $new.size) }}{{ end -}}
{{- if and $mounted (ne $mounted .Values.persistence.existingClaim) -}}
{{- fail (printf "persistence.existingClaim: this release uses the volume claim %s; set persistence.existingClaim to %s, because a gateway with another journal sends repeated calls again. To use another claim on purpose, follow \"Restore a backup\" in the chart's README" $mounted $mounted) -}}
{{- else if and (get $old "name") (ne $old.name (get $new "name")) -}}
{{- fail (printf "persistence, journal: these values no longer have the volume claim template %s of the StatefulSet %s, which Kubernetes does not change; set the previous values. To change them on purpose, stop the gateway first, which keeps the claim: kubectl --namespace %s delete statefulset %s --cascade=foreground; a gateway with another journal sends repeated calls again" $old.name $name .Release.Namespace $name) -}}
{{- else if and $old $new (ne (omit $old "size" | toJson) (omit $new "size" | toJson)) -}}
{{- fail (printf "persistence, journal.spool: the volume claim template %s of the StatefulSet %s has the size %s, the access mode %s and the storage class %q (\"\" is the default class), which Kubernetes does not change; set these values in %s.size, persistence.accessMode and %s.storageClass, or follow \"Enlarge the volume\" in the chart's README" $old.name $name $old.size $old.mode $old.class $section $section) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkReplicas" -}}
{{- $postgres := include "gateway.postgres" . -}}
{{- if and (not $postgres) (ne (int .Values.replicaCount) 1) -}}
{{- fail "replicaCount: only 1 is possible with journal.engine sqlite, because the embedded journal is one database on one volume that one process writes; more replicas need journal.engine postgres" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if not $postgres -}}
{{- fail "autoscaling.enabled: only with journal.engine postgres, because the embedded journal has one replica" -}}
{{- end -}}
{{- if include "gateway.stateful" . -}}
{{- fail "autoscaling.enabled: not together with journal.spool.type claim, because the callbacks in the spool of a removed pod would wait for its return; use journal.spool.type emptyDir, or no spool" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas: more than autoscaling.maxReplicas; lower it, or raise autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (dig "requests" "cpu" "" .Values.resources) -}}
{{- fail "autoscaling.enabled: needs resources.requests.cpu, of which autoscaling.targetCPUUtilizationPercentage is a part" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkSecrets" -}}
{{- $names := include "gateway.secretKeys" . | fromYaml -}}
{{- $required := list "thingspace.app_key" "thingspace.app_secret" "thingspace.uws_username" "thingspace.uws_password" -}}
{{- range $setting := $required -}}
{{- if not (hasKey $names $setting) -}}
{{- fail (printf "secrets.keys: %s has no key, and the gateway does not start without it; name the key of the Secret that holds it" $setting) -}}
{{- end -}}
{{- end -}}
{{- if not (or (hasKey $names "callbacks.path_secret") (hasKey $names "callbacks.password") (dig "callbacks" "insecure" false .Values.config)) -}}
{{- fail "secrets.keys: neither callbacks.path_secret nor callbacks.password has a key, so every host that reaches the listener could deliver results; name one, or set config.callbacks.insecure" -}}
{{- end -}}
{{- range $pair := list (list "callbacks.username" "callbacks.password") (list "callbacks.previous_username" "callbacks.previous_password") -}}
{{- if ne (hasKey $names (first $pair)) (hasKey $names (last $pair)) -}}
{{- fail (printf "secrets.keys: %s and %s belong together: give both a key, or neither" (first $pair) (last $pair)) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $names "callbacks.previous_username") (not (hasKey $names "callbacks.username")) -}}
{{- fail "secrets.keys: callbacks.previous_username has a key and callbacks.username has none; the previous pair is only used beside a current one" -}}
{{- end -}}
{{- if .Values.secrets.create -}}
{{- include "gateway.checkSecretValues" . -}}
{{- else if .Values.secrets.values -}}
{{- fail "secrets.values: only with secrets.create, which writes them to a Secret; set it, or remove them" -}}
{{- else if not (or .Values.sandbox.enabled .Values.secrets.existingSecret) -}}
{{- fail (printf "secrets.existingSecret: not set; name a Secret with the keys %s, or set secrets.create with secrets.values, or sandbox.enabled to try the gateway" (values $names | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end }}

{{/* The values of the Secret that the chart creates. */}}
{{- define "gateway.checkSecretValues" -}}
{{- $names := include "gateway.secretKeys" . | fromYaml -}}
{{- $values := .Values.secrets.values -}}
{{- if not (has .Values.secrets.existingSecret (list "" "thingspace-gateway")) -}}
{{- fail "secrets.existingSecret: not together with secrets.create, whose Secret the pods use; remove one of them" -}}
{{- end -}}
{{- range $setting, $key := $names -}}
{{- if not (get $values $setting) -}}
{{- fail (printf "secrets.values: %s is missing; with secrets.create each setting that has a key in secrets.keys needs its value" $setting) -}}
{{- end -}}
{{- end -}}
{{- range $setting, $value := $values -}}
{{- if not (hasKey $names $setting) -}}
{{- fail (printf "secrets.values: %s has no key in secrets.keys, so it would not be in the Secret; name its key there, or remove the value" $setting) -}}
{{- end -}}
{{- if and (hasPrefix "callbacks." $setting) (regexMatch "(username|password)$" $setting) (gt (len $value) 40) -}}
{{- fail (printf "secrets.values: %s has more than 40 characters, which ThingSpace does not accept; shorten it" $setting) -}}
{{- end -}}
{{- end -}}
{{- with get $values "callbacks.path_secret" -}}
{{- if not (regexMatch "^[A-Za-z0-9._~-]{16,128}$" .) -}}
{{- fail "secrets.values: callbacks.path_secret must have 16 to 128 letters, digits, -, _, . or ~, and the gateway does not start with another; use the output of openssl rand -hex 24" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkSandbox" -}}
{{- if .Values.sandbox.enabled -}}
{{- if or (ne .Values.expose.callbacks.type "none") (ne .Values.expose.grpc.type "none") -}}
{{- fail "expose: not together with sandbox.enabled, which has no authentication; use kubectl port-forward" -}}
{{- end -}}
{{- if or (include "gateway.tlsSecret" (dict "root" . "port" "callbacks")) (index .Values.secrets.keys "callbacks.username") -}}
{{- fail "sandbox.enabled: not together with callbacks.tlsSecret or a key for callbacks.username: the sandbox delivers over plain http, with the path secret alone" -}}
{{- end -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- if ne (index $.Values.service $port).type "ClusterIP" -}}
{{- fail (printf "service.%s.type: only ClusterIP with sandbox.enabled, which has no authentication; use kubectl port-forward" $port) -}}
{{- end -}}
{{- end -}}
{{- if ne .Values.mesh.type "none" -}}
{{- fail (printf "mesh.type: %s not together with sandbox.enabled, because the pods of the sandbox and of helm test are not in the mesh, which would refuse their connections; set mesh.type to none" .Values.mesh.type) -}}
{{- end -}}
{{- if .Values.grpc.tlsSecret -}}
{{- fail "sandbox.enabled: not together with grpc.tlsSecret: helm test calls the gRPC port in plaintext" -}}
{{- end -}}
{{- if .Values.secrets.create -}}
{{- fail "secrets.create: not together with sandbox.enabled, which accepts any credentials: do not give it real ones" -}}
{{- end -}}
{{- if dig "thingspace" "base_url" "" .Values.config -}}
{{- fail "config.thingspace.base_url: not together with sandbox.enabled, because the sandbox replaces ThingSpace; remove config.thingspace.base_url" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkNames" -}}
{{- $name := include "gateway.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "fullnameOverride: the name of the release makes %s the name of the Services, which must begin with a letter and have only lower-case letters, digits and dashes; set fullnameOverride" $name) -}}
{{- end -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if or (hasKey $.Values.commonLabels $label) (hasKey $.Values.podLabels $label) -}}
{{- fail (printf "commonLabels, podLabels: %s is set by the chart, which selects the pods by it; use another label, or nameOverride" $label) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "podMonitor.enabled: not together with serviceMonitor.enabled, because Prometheus would scrape each pod twice; choose one" -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkLifecycle" -}}
{{- if and (eq .Values.listenAddress "0.0.0.0") (has "IPv6" .Values.service.ipFamilies) -}}
{{- fail "listenAddress: 0.0.0.0 has no IPv6, which service.ipFamilies names; set listenAddress to \"::\"" -}}
{{- end -}}
{{- $period := include "gateway.terminationGracePeriod" . | int -}}
{{- $needed := add (include "gateway.preStopSleep" . | int) (include "gateway.shutdownGrace" . | int) -}}
{{- if ge $needed $period -}}
{{- fail (printf "terminationGracePeriodSeconds: %d does not cover config.shutdown.grace and preStopSleepSeconds, %d s together: the pod would be killed in its shutdown; set at least %d, or 0 to derive it" $period $needed (add $needed 5)) -}}
{{- end -}}
{{- end }}
