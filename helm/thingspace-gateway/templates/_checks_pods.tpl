{{/* Refuses parts of pods that bypass the other checks. */}}
{{- define "gateway.checkPods" -}}
{{- include "gateway.checkEnvironment" . -}}
{{- include "gateway.checkMeshMetadata" . -}}
{{- include "gateway.checkMaintenance" . -}}
{{- end }}

{{- define "gateway.checkEnvironment" -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "TSGW_" .name -}}
{{- fail (printf "extraEnv: %s is a setting of the gateway, which would bypass the checks of the chart, and could put a secret into the pod; use config, or secrets for a credential" .name) -}}
{{- else if has .name (list "POD_NAME" "POD_NAMESPACE") -}}
{{- fail (printf "extraEnv: %s is set by the chart, and a name must be unique; use another name" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Labels and annotations that would take the pods out of their mesh, or ports out of its proxy. */}}
{{- define "gateway.checkMeshMetadata" -}}
{{- if ne .Values.mesh.type "none" -}}
{{- $protected := list "istio.io/dataplane-mode" "sidecar.istio.io/inject" "linkerd.io/inject" "config.linkerd.io/skip-inbound-ports" "traffic.sidecar.istio.io/excludeInboundPorts" "traffic.sidecar.istio.io/includeInboundPorts" -}}
{{- range $value := list "podLabels" "podAnnotations" "commonLabels" "commonAnnotations" -}}
{{- range $key := keys (index $.Values $value) -}}
{{- if has $key $protected -}}
{{- fail (printf "%s: %s is set by mesh.type %s, and without it clients could bypass the mesh and forge their identity; remove it, or set mesh.type to none" $value $key $.Values.mesh.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkMaintenance" -}}
{{- $maintenance := .Values.maintenance -}}
{{- if $maintenance.enabled -}}
{{- if .Values.sandbox.enabled -}}
{{- fail "maintenance.enabled: not together with sandbox.enabled, whose journal is lost when its pod stops" -}}
{{- end -}}
{{- if and (has "-" $maintenance.args) (or (has "backup" $maintenance.args) (has "export" $maintenance.args)) -}}
{{- fail "maintenance.args: - would write the journal, with identifiers of devices and results, to the log of the container; set maintenance.backupClaim, and a file in /backup in place of -" -}}
{{- end -}}
{{- if and (not $maintenance.backupClaim) (regexMatch "(^| |=)/backup/" (join " " $maintenance.args)) -}}
{{- fail "maintenance.backupClaim: not set; maintenance.args has a file in /backup, where this volume claim is mounted" -}}
{{- end -}}
{{- end -}}
{{- end }}
