{{/* Refuses values that have no effect without others. */}}
{{- define "gateway.checkEffects" -}}
{{- include "gateway.checkExposeEffects" . -}}
{{- include "gateway.checkServiceEffects" . -}}
{{- if eq .Values.mesh.type "none" -}}
{{- range $name := list "clients" "podCidrs" "controlPlaneNamespace" -}}
{{- if index $.Values.mesh $name -}}
{{- fail (printf "mesh.%s: has no effect with mesh.type none; set mesh.type, or remove it" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $alerts := list -}}
{{- range (.Files.Get "monitoring/alerts.yaml" | fromYaml).groups -}}
{{- range .rules }}{{ $alerts = append $alerts (get . "alert") }}{{ end -}}
{{- end -}}
{{- range .Values.prometheusRule.disabled -}}
{{- if not (has . $alerts) -}}
{{- fail (printf "prometheusRule.disabled: %s is no alert of the chart, so it has no effect; the names are %s" . (sortAlpha $alerts | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkExposeEffects" -}}
{{- $expose := .Values.expose -}}
{{- $isRouted := false -}}
{{- $isProxied := false -}}
{{- $types := list -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- $one := index $expose $port -}}
{{- $types = append $types $one.type -}}
{{- if include "gateway.routed" (dict "root" $ "port" $port) }}{{ $isRouted = true }}{{ end -}}
{{- if include "gateway.proxied" (dict "root" $ "port" $port) }}{{ $isProxied = true }}{{ end -}}
{{- if eq $one.type "none" -}}
{{- range $name := list "host" "port" "tlsSecret" "sourceRanges" "annotations" -}}
{{- if get $one $name -}}
{{- fail (printf "expose.%s.%s: has no effect with expose.%s.type none; set the type, or remove it" $port $name $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $one.type "loadBalancer") $one.annotations -}}
{{- fail (printf "expose.%s.annotations: has no effect with expose.%s.type loadBalancer; use service.%s.annotations" $port $port $port) -}}
{{- end -}}
{{- if and $one.tlsSecret (not (has $port (include "gateway.certificatePorts" $ | fromYamlArray))) -}}
{{- fail (printf "expose.%s.tlsSecret: has no effect with an existing Gateway, which has its own certificate; remove it, or set expose.gateway.create" $port) -}}
{{- end -}}
{{- end -}}
{{- $unused := dict
  "gateway" (ternary list (list "name" "namespace" "sectionName" "className" "annotations") $isRouted)
  "ingress" (ternary list (list "className" "controller") (has "ingress" $types)) -}}
{{- range $group, $names := $unused -}}
{{- range $name := $names -}}
{{- if index $expose $group $name -}}
{{- fail (printf "expose.%s.%s: has no effect, because no port is exposed over %s; set expose.callbacks.type or expose.grpc.type, or remove it" $group $name (ternary "a route" "an Ingress" (eq $group "gateway"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $expose.gateway.envoyGateway (not (include "gateway.routed" (dict "root" . "port" "grpc"))) -}}
{{- fail "expose.gateway.envoyGateway: has no effect without a route for gRPC; set expose.grpc.type to grpcRoute or httpRoute, or remove it" -}}
{{- end -}}
{{- if and $isRouted (not $expose.gateway.create) (or $expose.gateway.className $expose.gateway.annotations) -}}
{{- fail "expose.gateway: className and annotations have no effect with an existing Gateway; set expose.gateway.create, or remove them" -}}
{{- end -}}
{{- if and $expose.gateway.sectionName $expose.gateway.create -}}
{{- fail "expose.gateway.sectionName: has no effect with expose.gateway.create, which names the listeners of its Gateway; remove it" -}}
{{- end -}}
{{- if and $expose.proxyNamespace (not $isProxied) -}}
{{- fail "expose.proxyNamespace: has no effect, because no port is exposed over a proxy; set expose.callbacks.type or expose.grpc.type, or remove it" -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkServiceEffects" -}}
{{- $hasBalancer := false -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- $type := include "gateway.serviceType" (dict "root" $ "port" $port) -}}
{{- if eq $type "LoadBalancer" }}{{ $hasBalancer = true }}{{ end -}}
{{- if and (eq $type "ClusterIP") (index $.Values.service $port).nodePort -}}
{{- fail (printf "service.%s.nodePort: has no effect with service.%s.type ClusterIP; set the type to NodePort or LoadBalancer, or remove it" $port $port) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.service.loadBalancerClass (not $hasBalancer) -}}
{{- fail "service.loadBalancerClass: has no effect without a load balancer; set expose.callbacks.type or expose.grpc.type to loadBalancer, or remove it" -}}
{{- end -}}
{{- end }}
