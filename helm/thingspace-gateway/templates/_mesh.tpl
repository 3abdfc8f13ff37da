{{/* Labels and annotations of the pods of the gateway for the mesh.

     Callbacks and the admin port bypass a sidecar: ThingSpace, the kubelet and Prometheus call from outside the
     mesh, and a sidecar hides the address of the caller. The database has TLS of its own. */}}

{{- define "gateway.meshLabels" -}}
{{- if eq .Values.mesh.type "istio" }}
sidecar.istio.io/inject: "true"
{{- else if eq .Values.mesh.type "ambient" }}
istio.io/dataplane-mode: ambient
{{- end }}
{{- end }}

{{- define "gateway.meshAnnotations" -}}
{{- $database := include "gateway.databasePorts" . | fromYamlArray | join "," -}}
{{- if eq .Values.mesh.type "istio" }}
traffic.sidecar.istio.io/excludeInboundPorts: "9001,9090"
{{- with $database }}
traffic.sidecar.istio.io/excludeOutboundPorts: {{ . | quote }}
{{- end }}
# The sidecar starts before the gateway and ends after it.
sidecar.istio.io/nativeSidecar: "true"
proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
{{- else if eq .Values.mesh.type "linkerd" }}
linkerd.io/inject: enabled
config.linkerd.io/skip-inbound-ports: "9001,9090"
{{- with $database }}
config.linkerd.io/skip-outbound-ports: {{ . | quote }}
{{- end }}
# The proxy starts before the gateway and ends after it. Linkerd renamed the annotation in 2.19.
config.alpha.linkerd.io/proxy-enable-native-sidecar: "true"
config.beta.linkerd.io/proxy-enable-native-sidecar: "true"
{{- end }}
{{- end }}

{{/* Pods that the mesh must not change: tests, the sandbox and maintenance. */}}
{{- define "gateway.noMeshLabels" -}}
{{- if eq .Values.mesh.type "istio" }}
sidecar.istio.io/inject: "false"
{{- else if eq .Values.mesh.type "ambient" }}
istio.io/dataplane-mode: none
{{- end }}
{{- end }}

{{- define "gateway.noMeshAnnotations" -}}
{{- if eq .Values.mesh.type "linkerd" }}
linkerd.io/inject: disabled
{{- end }}
{{- end }}

{{- define "gateway.meshNamespace" -}}
{{ .Values.mesh.controlPlaneNamespace | default (ternary "linkerd" "istio-system" (eq .Values.mesh.type "linkerd")) }}
{{- end }}
