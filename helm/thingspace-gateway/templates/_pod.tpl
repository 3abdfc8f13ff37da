{{- define "gateway.podSecurity" -}}
{{- $security := deepCopy .Values.podSecurityContext -}}
{{- if include "gateway.openshift" . -}}
{{- $security = omit $security "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{- toYaml $security -}}
{{- end }}

{{- define "gateway.containerSecurity" -}}
{{- $security := deepCopy .Values.containerSecurityContext -}}
{{- if include "gateway.openshift" . -}}
{{- $security = omit $security "runAsUser" "runAsGroup" -}}
{{- end -}}
{{- toYaml $security -}}
{{- end }}

{{/* The fields that all pods have. */}}
{{- define "gateway.podCommon" -}}
serviceAccountName: {{ include "gateway.serviceAccount" . }}
automountServiceAccountToken: false
# Avoids environment variables for each service of the namespace.
enableServiceLinks: false
{{- $pull := list }}
{{- range concat .Values.imagePullSecrets .Values.global.imagePullSecrets }}
{{- $pull = append $pull (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- with $pull | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- include "gateway.podSecurity" . | nindent 2 }}
{{- end }}

{{/* The fields that decide on which nodes the pods of the gateway run. */}}
{{- define "gateway.placement" -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "schedulerName" "hostAliases" "dnsPolicy" "dnsConfig" }}
{{- with index $.Values $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{/* Spreads several replicas over nodes and zones, unless the values say otherwise. */}}
{{- define "gateway.spread" -}}
{{- $selector := dict "matchLabels" (include "gateway.podSelector" . | fromYaml) -}}
{{- $constraints := .Values.topologySpreadConstraints -}}
{{- if and (not $constraints) (include "gateway.several" .) -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" $key "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- end -}}
{{- $all := list -}}
{{- range $constraints -}}
{{- $all = append $all (ternary . (set (deepCopy .) "labelSelector" $selector) (hasKey . "labelSelector")) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* A probe on the admin port, which has no TLS and bypasses a mesh. */}}
{{- define "gateway.probe" -}}
{{- $fields := omit . "path" "enabled" -}}
httpGet:
  path: {{ .path }}
  port: admin
{{- with $fields }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.env" -}}
- name: TSGW_CONFIG
  value: /etc/thingspace-gateway/gateway.toml
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- $names := list }}
{{- range .Values.extraEnv }}{{ $names = append $names .name }}{{ end }}
{{- if not (has "OTEL_RESOURCE_ATTRIBUTES" $names) }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)
{{- end }}
{{- if and (eq .Values.mesh.type "linkerd") (include "gateway.authMode" (dict "root" . "mode" "mesh")) (not (dig "auth" "mesh_trusted_cidrs" "" .Values.config)) }}
# The proxy runs in the pod of the gateway, so its calls come from the address of the pod.
- name: TSGW_AUTH__MESH_TRUSTED_CIDRS
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.volumeMounts" -}}
# Without subPath, which would hide later changes of the Secret.
- name: settings
  mountPath: /etc/thingspace-gateway
  readOnly: true
# With PostgreSQL, it has only the admin socket.
- name: journal
  mountPath: /var/lib/thingspace-gateway
{{- if include "gateway.spool" . }}
- name: spool
  mountPath: /var/lib/thingspace-gateway-spool
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A source of the volume `settings`: a Secret's certificate and key. Arguments: secret, directory. */}}
{{- define "gateway.certificateFiles" -}}
- secret:
    name: {{ .secret | quote }}
    items:
      - key: tls.crt
        path: {{ .directory }}/tls.crt
      - key: tls.key
        path: {{ .directory }}/tls.key
{{- end }}

{{/* The settings, the credentials and the certificates. */}}
{{- define "gateway.settingsVolume" -}}
- name: settings
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "gateway.fullname" . }}
      - secret:
          name: {{ include "gateway.secretName" . }}
          items:
            {{- range $setting, $key := (include "gateway.secretKeys" . | fromYaml) }}
            - key: {{ $key | quote }}
              path: secrets/{{ $setting }}
            {{- end }}
      {{- with (include "gateway.journalKeys" . | fromYaml) }}
      - secret:
          name: {{ include "gateway.journalSecretName" $ }}
          items:
            {{- range $setting, $key := . }}
            - key: {{ $key | quote }}
              path: secrets/{{ $setting }}
            {{- end }}
      {{- end }}
      {{- if and (include "gateway.postgres" .) .Values.journal.caSecret }}
      - secret:
          name: {{ .Values.journal.caSecret | quote }}
          items:
            - key: ca.crt
              path: postgres/ca.crt
      {{- end }}
      {{- with include "gateway.tlsSecret" (dict "root" . "port" "grpc") }}
      {{- include "gateway.certificateFiles" (dict "secret" . "directory" "grpc-tls") | nindent 6 }}
      {{- end }}
      {{- with .Values.grpc.clientCaSecret }}
      - secret:
          name: {{ . | quote }}
          items:
            - key: ca.crt
              path: grpc-clients/ca.crt
      {{- end }}
      {{- with include "gateway.policyConfigMap" . }}
      - configMap:
          name: {{ . }}
          items:
            - key: policy.toml
              path: policy/policy.toml
      {{- end }}
      {{- with include "gateway.tlsSecret" (dict "root" . "port" "callbacks") }}
      {{- include "gateway.certificateFiles" (dict "secret" . "directory" "tls") | nindent 6 }}
      {{- end }}
{{- end }}

{{/* The fields that the pods of `helm test` share. */}}
{{- define "gateway.testPod" -}}
restartPolicy: Never
activeDeadlineSeconds: 300
{{ include "gateway.podCommon" . }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "gateway.testResources" -}}
requests:
  cpu: 50m
  memory: 32Mi
limits:
  memory: 256Mi
{{- end }}
