{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* Leaves room for the suffixes of the services: a name has at most 63 characters. */}}
{{- define "gateway.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "gateway.name" .) -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if contains (include "gateway.name" .) .Release.Name -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- $name | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{/* The name of the Deployment or StatefulSet. A trial with a sandbox has a name of its own, so that a
     release that is later used with ThingSpace does not get the volume of the trial. */}}
{{- define "gateway.workloadName" -}}
{{- if .Values.sandbox.enabled -}}
{{- /* Kubernetes appends a hash to the name in a label, which has at most 63 characters. */ -}}
{{ include "gateway.fullname" . | trunc 46 | trimSuffix "-" }}-trial
{{- else -}}
{{ include "gateway.fullname" . }}
{{- end -}}
{{- end }}

{{/* Not empty if the command of the maintenance Job reads standard input. */}}
{{- define "gateway.maintenanceInput" -}}
{{- $args := .Values.maintenance.args -}}
{{- if and (has "-" $args) (or (has "restore" $args) (has "import" $args) (has "check" $args)) -}}true{{- end -}}
{{- end }}

{{/* A Job cannot be changed, so each revision of the release has one of its own. */}}
{{- define "gateway.maintenanceName" -}}
{{ include "gateway.fullname" . | trunc 44 | trimSuffix "-" }}-maintenance-{{ .Release.Revision }}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The labels that select the pods of a component. Arguments: root, component. */}}
{{- define "gateway.componentSelector" -}}
{{ include "gateway.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels that select the pods of the gateway. */}}
{{- define "gateway.podSelector" -}}
{{ include "gateway.componentSelector" (dict "root" . "component" "gateway") }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of a pod: without the version of the chart, which restarts no pod. Arguments: root, component. */}}
{{- define "gateway.podLabels" -}}
{{ omit (include "gateway.labels" .root | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by" | toYaml }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The metadata of an object. Arguments: root, suffix or name, component, labels, annotations. */}}
{{- define "gateway.metadata" -}}
name: {{ .name | default (printf "%s%s" (include "gateway.fullname" .root) (.suffix | default "")) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- $labels := include "gateway.labels" .root | fromYaml }}
  {{- with .component }}
  {{- $_ := set $labels "app.kubernetes.io/component" . }}
  {{- end }}
  {{- mergeOverwrite $labels (.labels | default dict) | toYaml | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The image, with the registry of the values. */}}
{{- define "gateway.image" -}}
{{- $repository := .Values.image.repository -}}
{{- $registry := .Values.image.registry | default .Values.global.imageRegistry -}}
{{- if $registry -}}
{{- $parts := splitList "/" $repository -}}
{{- /* The first part is a registry if it can be a host. */ -}}
{{- if and (gt (len $parts) 1) (or (contains "." (first $parts)) (contains ":" (first $parts)) (eq (first $parts) "localhost")) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" $registry) (join "/" $parts) -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "gateway.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{- define "gateway.secretName" -}}
{{- /* A Secret of the chart has a name of its own, which is not that of the user's Secret. */ -}}
{{- if .Values.sandbox.enabled -}}
{{ include "gateway.fullname" . }}-trial
{{- else if .Values.secrets.create -}}
{{ include "gateway.fullname" . }}-credentials
{{- else -}}
{{ .Values.secrets.existingSecret }}
{{- end -}}
{{- end }}

{{/* The Secret with the URL or the password of the database. */}}
{{- define "gateway.journalSecretName" -}}
{{ default (include "gateway.secretName" .) .Values.journal.existingSecret }}
{{- end }}

{{/* The ConfigMap with the policy. Empty: none. */}}
{{- define "gateway.policyConfigMap" -}}
{{- if .Values.policy -}}
{{ include "gateway.fullname" . }}-policy
{{- else -}}
{{ .Values.policyConfigMap }}
{{- end -}}
{{- end }}
