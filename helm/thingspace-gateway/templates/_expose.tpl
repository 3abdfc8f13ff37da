{{/* The fields of a load balancer's service. Arguments: root, type, ranges. */}}
{{- define "gateway.loadBalancer" -}}
{{- if eq .type "LoadBalancer" }}
{{- with .root.Values.service.loadBalancerClass }}
loadBalancerClass: {{ . | quote }}
{{- end }}
{{- with .ranges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Annotations of the Ingress for gRPC: HTTP/2 to the gateway, a long time-out of streams, and messages as
     large as the gateway accepts. A client resumes a watch that the proxy cuts. */}}
{{- define "gateway.ingressAnnotations" -}}
{{- if eq .Values.expose.ingress.controller "nginx" }}
nginx.ingress.kubernetes.io/backend-protocol: GRPC
nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"
nginx.ingress.kubernetes.io/proxy-send-timeout: "3600"
nginx.ingress.kubernetes.io/proxy-body-size: {{ dig "grpc" "max_message_bytes" 16777216 .Values.config | int64 | quote }}
{{- else if eq .Values.expose.ingress.controller "contour" }}
projectcontour.io/response-timeout: infinity
{{- end }}
{{- end }}

{{/* Annotations of the service for gRPC, for controllers that read the protocol there. */}}
{{- define "gateway.ingressServiceAnnotations" -}}
{{- if eq .Values.expose.ingress.controller "traefik" }}
traefik.ingress.kubernetes.io/service.serversscheme: h2c
{{- else if eq .Values.expose.ingress.controller "contour" }}
projectcontour.io/upstream-protocol.h2c: grpc
{{- end }}
{{- end }}

{{/* An Ingress. Arguments: root, port, servicePort, annotations. */}}
{{- define "gateway.ingress" -}}
{{- $expose := index .root.Values.expose .port -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "gateway.metadata" (dict "root" .root "suffix" (printf "-%s" .port) "annotations" (mergeOverwrite (.annotations | default dict) (deepCopy $expose.annotations))) | nindent 2 }}
spec:
  {{- with .root.Values.expose.ingress.className }}
  ingressClassName: {{ . | quote }}
  {{- end }}
  tls:
    - hosts: [{{ $expose.host | quote }}]
      secretName: {{ include "gateway.exposedCertificate" . | quote }}
  rules:
    - host: {{ $expose.host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ include "gateway.fullname" .root }}-{{ .port }}
                port:
                  number: {{ .servicePort }}
{{- end }}

{{/* The Gateway of the routes. */}}
{{- define "gateway.gatewayName" -}}
{{ .Values.expose.gateway.name | default (include "gateway.fullname" .) }}
{{- end }}

{{- define "gateway.parentRefs" -}}
{{- $gateway := .root.Values.expose.gateway -}}
- group: gateway.networking.k8s.io
  kind: Gateway
  name: {{ include "gateway.gatewayName" .root }}
  {{- if not $gateway.create }}
  {{- with $gateway.namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  {{- end }}
  {{- with ternary .port $gateway.sectionName $gateway.create }}
  sectionName: {{ . | quote }}
  {{- end }}
{{- end }}

{{/* The start of a route. Arguments: root, port, kind. */}}
{{- define "gateway.route" -}}
{{- $expose := index .root.Values.expose .port -}}
apiVersion: gateway.networking.k8s.io/v1
kind: {{ .kind }}
metadata:
  {{- include "gateway.metadata" (dict "root" .root "suffix" (printf "-%s" .port) "annotations" $expose.annotations) | nindent 2 }}
spec:
  parentRefs: {{- include "gateway.parentRefs" . | nindent 4 }}
  hostnames: [{{ $expose.host | quote }}]
{{- end }}

{{/* The ports of exposed hosts whose TLS ends in the chart's own objects. */}}
{{- define "gateway.certificatePorts" -}}
{{- $ports := list -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- $type := (index $.Values.expose $port).type -}}
{{- if or (has $type (list "ingress" "loadBalancer")) (and (ne $type "none") $.Values.expose.gateway.create) -}}
{{- $ports = append $ports $port -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end }}

{{/* A port is exposed by a route. Arguments: root, port. */}}
{{- define "gateway.routed" -}}
{{- if hasSuffix "Route" (index .root.Values.expose .port).type }}true{{ end -}}
{{- end }}

{{/* The object whose address the host of an exposed port has. Arguments: root, port. */}}
{{- define "gateway.exposedBy" -}}
{{- $type := (index .root.Values.expose .port).type -}}
{{- if eq $type "loadBalancer" -}}
the service {{ include "gateway.fullname" .root }}-{{ .port }}
{{- else if eq $type "ingress" -}}
the Ingress {{ include "gateway.fullname" .root }}-{{ .port }}
{{- else -}}
the Gateway {{ include "gateway.gatewayName" .root }}
{{- end -}}
{{- end }}
