{{/* A peer of a NetworkPolicy: the pods of a component of this release. Arguments: root, component. */}}
{{- define "gateway.peer" -}}
{{- dict "podSelector" (dict "matchLabels" (include "gateway.componentSelector" . | fromYaml)) | toYaml -}}
{{- end }}

{{/* The connections that the gateway opens, as rules of a NetworkPolicy. */}}
{{- define "gateway.egressRules" -}}
# DNS. OpenShift's servers listen on 5353.
- ports:
    {{- range $port := list 53 5353 }}
    - {port: {{ $port }}, protocol: UDP}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
# ThingSpace, the database, the collector and the keys of the token issuer.
- ports:
    {{- range include "gateway.egressPorts" . | fromYamlArray }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- if .Values.sandbox.enabled }}
- ports:
    - {port: 8080, protocol: TCP}
  to:
    - {{ include "gateway.peer" (dict "root" . "component" "sandbox") | nindent 6 | trim }}
{{- end }}
{{- if eq .Values.mesh.type "ambient" }}
- ports:
    - {port: 15008, protocol: TCP}
{{- end }}
{{- if ne .Values.mesh.type "none" }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ include "gateway.meshNamespace" . | quote }}
{{- end }}
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}
