{{/* Refuses values of `expose` that do not go together. */}}
{{- define "gateway.checkExposure" -}}
{{- $expose := .Values.expose -}}
{{- if .Values.callbacks.publicUrl -}}
{{- fail "callbacks.publicUrl: is now config.callbacks.public_url, which the gateway also uses; or set expose.callbacks, which derives it" -}}
{{- end -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- if ne (index $expose $port).type "none" -}}
{{- include "gateway.checkExposedPort" (dict "root" $ "port" $port) -}}
{{- end -}}
{{- end -}}
{{- if and (ne $expose.callbacks.type "none") (ne $expose.grpc.type "none") (eq $expose.callbacks.host $expose.grpc.host) -}}
{{- fail (printf "expose.grpc.host: %s is also expose.callbacks.host; use two hosts, because both routes match all paths of the host" $expose.grpc.host) -}}
{{- end -}}
{{- include "gateway.checkGateway" . -}}
{{- include "gateway.checkCertificate" . -}}
{{- include "gateway.checkCallbackAddress" . -}}
{{- end }}

{{/* A port that clients outside the cluster reach. Takes the arguments `root` and `port`. */}}
{{- define "gateway.checkExposedPort" -}}
{{- $values := .root.Values -}}
{{- $port := .port -}}
{{- $expose := index $values.expose $port -}}
{{- $isBalancer := eq $expose.type "loadBalancer" -}}
{{- $tls := include "gateway.tlsSecret" . -}}
{{- if not $expose.host -}}
{{- fail (printf "expose.%s.host: not set; name the host at which clients reach the %s" $port (ternary "callback listener" "gRPC port" (eq $port "callbacks"))) -}}
{{- end -}}
{{- if and (has $port (include "gateway.certificatePorts" .root | fromYamlArray)) (not (include "gateway.exposedCertificate" .)) (not (and $isBalancer $tls)) -}}
{{- fail (printf "expose.%s.tlsSecret: not set; %s needs a certificate: name its Secret, or set expose.certificate.enabled" $port $expose.type) -}}
{{- end -}}
{{- if and $expose.tlsSecret $values.expose.certificate.enabled -}}
{{- fail (printf "expose.%s.tlsSecret: not together with expose.certificate.enabled, which names the Secret of the certificate; remove it" $port) -}}
{{- end -}}
{{- if and $isBalancer (index $values $port).tlsSecret (include "gateway.exposedCertificate" .) -}}
{{- fail (printf "%s.tlsSecret: not together with %s, because the gateway serves one certificate for %s; remove one of them" $port (ternary "expose.certificate.enabled" (printf "expose.%s.tlsSecret" $port) $values.expose.certificate.enabled) $expose.host) -}}
{{- end -}}
{{- if not $isBalancer -}}
{{- if and $tls (not (and (include "gateway.routed" .) $values.expose.gateway.backendCaConfigMap)) -}}
{{- fail (printf "%s.tlsSecret: not together with expose.%s.type %s, whose proxy terminates TLS and calls the gateway in plaintext; remove it, use loadBalancer, or set expose.gateway.backendCaConfigMap with a route" $port $port $expose.type) -}}
{{- end -}}
{{- if and (include "gateway.authMode" (dict "root" .root "mode" "mtls")) (eq $port "grpc") -}}
{{- fail (printf "expose.grpc.type: %s terminates TLS in a proxy, so client certificates do not reach the gateway; use loadBalancer, or config.auth.mode jwt" $expose.type) -}}
{{- end -}}
{{- if ne (index $values.service $port).type "ClusterIP" -}}
{{- fail (printf "service.%s.type: only ClusterIP with expose.%s.type %s, because callers could bypass the proxy, and forge their address or identity" $port $port $expose.type) -}}
{{- end -}}
{{- if $expose.sourceRanges -}}
{{- fail (printf "expose.%s.sourceRanges: only with type loadBalancer; restrict the sources in the proxy, or in config.callbacks.allow_cidrs" $port) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The Gateway of the routes. */}}
{{- define "gateway.checkGateway" -}}
{{- $gateway := .Values.expose.gateway -}}
{{- $isUsed := false -}}
{{- $isEncrypted := false -}}
{{- range $port := list "callbacks" "grpc" -}}
{{- $context := dict "root" $ "port" $port -}}
{{- if include "gateway.routed" $context -}}
{{- $isUsed = true -}}
{{- if include "gateway.tlsSecret" $context }}{{ $isEncrypted = true }}{{ end -}}
{{- if not (or $gateway.create $gateway.name) -}}
{{- fail (printf "expose.gateway.name: not set; expose.%s.type %s needs a Gateway: name one, or set expose.gateway.create" $port (index $.Values.expose $port).type) -}}
{{- end -}}
{{- if not (or $gateway.create $gateway.sectionName) -}}
{{- fail (printf "expose.gateway.sectionName: not set; name the HTTPS listener of the Gateway %s, because a route without it is also attached to listeners without TLS" $gateway.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $gateway.backendCaConfigMap (not $isEncrypted) -}}
{{- fail "expose.gateway.backendCaConfigMap: only with a route to a port with TLS; set callbacks.tlsSecret or grpc.tlsSecret" -}}
{{- end -}}
{{- if $gateway.create -}}
{{- if not $isUsed -}}
{{- fail "expose.gateway.create: no route uses the Gateway; set expose.callbacks.type to httpRoute, or expose.grpc.type to grpcRoute or httpRoute" -}}
{{- end -}}
{{- if not $gateway.className -}}
{{- fail "expose.gateway.className: not set; expose.gateway.create needs it" -}}
{{- end -}}
{{- if $gateway.namespace -}}
{{- fail "expose.gateway.namespace: not together with expose.gateway.create, which creates the Gateway in the namespace of the release" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkCertificate" -}}
{{- $certificate := .Values.expose.certificate -}}
{{- if $certificate.enabled -}}
{{- if not $certificate.issuer.name -}}
{{- fail "expose.certificate.issuer.name: not set; name the issuer of cert-manager" -}}
{{- end -}}
{{- if not (include "gateway.certificatePorts" . | fromYamlArray) -}}
{{- fail "expose.certificate.enabled: nothing uses the certificate; set expose.callbacks.type or expose.grpc.type. With an existing Gateway, configure its certificate there" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The address at which ThingSpace calls the gateway. */}}
{{- define "gateway.checkCallbackAddress" -}}
{{- $expose := .Values.expose.callbacks -}}
{{- $type := include "gateway.serviceType" (dict "root" . "port" "callbacks") -}}
{{- $settings := .Values.config.callbacks | default dict -}}
{{- if ne $expose.type "none" -}}
{{- $url := get $settings "public_url" -}}
{{- if and $url (ne (trimSuffix "/" $url) (include "gateway.publicUrl" . )) -}}
{{- fail (printf "config.callbacks.public_url: %s is not the address of expose.callbacks, %s; remove one of them" $url (include "gateway.publicUrl" .)) -}}
{{- end -}}
{{- end -}}
{{- include "gateway.checkCallbackPort" . -}}
{{- if and (include "gateway.proxied" (dict "root" . "port" "callbacks")) (hasKey $settings "trusted_hops") (eq (int $settings.trusted_hops) 0) -}}
{{- fail (printf "config.callbacks.trusted_hops: must be at least 1 with expose.callbacks.type %s, because with 0 each callback has the address of the proxy, which config.callbacks.allow_cidrs would reject; remove it, or set the number of proxies" $expose.type) -}}
{{- end -}}
{{- if and (eq $expose.type "loadBalancer") (gt (int (get $settings "trusted_hops" | default 0)) 0) -}}
{{- fail "config.callbacks.trusted_hops: must be 0 with expose.callbacks.type loadBalancer, because no proxy writes X-Forwarded-For, so that a caller could forge its address" -}}
{{- end -}}
{{- if and (ne $type "ClusterIP") (get $settings "allow_cidrs") (eq .Values.service.callbacks.externalTrafficPolicy "Cluster") -}}
{{- fail "service.callbacks.externalTrafficPolicy: Cluster hides the source address, which config.callbacks.allow_cidrs needs; use Local" -}}
{{- end -}}
{{- if and .Values.service.callbacks.externalTrafficPolicy (eq $type "ClusterIP") -}}
{{- fail "service.callbacks.externalTrafficPolicy: only with service.callbacks.type NodePort or LoadBalancer, or expose.callbacks.type loadBalancer" -}}
{{- end -}}
{{- end }}

{{/* A port that ThingSpace calls. */}}
{{- define "gateway.checkCallbackPort" -}}
{{- $service := .Values.service.callbacks -}}
{{- $type := include "gateway.serviceType" (dict "root" . "port" "callbacks") -}}
{{- $url := include "gateway.publicUrl" . -}}
{{- $name := "" -}}
{{- $port := "" -}}
{{- if ne .Values.expose.callbacks.type "none" -}}
{{- $name = "expose.callbacks.port" -}}
{{- $port = include "gateway.publicPort" . -}}
{{- else if $url -}}
{{- $name = "config.callbacks.public_url" -}}
{{- $port = include "gateway.urlPort" $url -}}
{{- else if eq $type "LoadBalancer" -}}
{{- $name = "service.callbacks.port" -}}
{{- $port = toString $service.port -}}
{{- else if eq $type "NodePort" -}}
{{- if not (include "gateway.calledByThingSpace" $service.nodePort) -}}
{{- fail "config.callbacks.public_url: not set; ThingSpace does not call the node port of service.callbacks.type NodePort, only 80, 443, 9001-9006, 50551-50559 and 28200-28220: set the address of the load balancer in front of the nodes" -}}
{{- end -}}
{{- end -}}
{{- if and $name (not (include "gateway.calledByThingSpace" $port)) -}}
{{- fail (printf "%s: ThingSpace does not call port %s, only 80, 443, 9001-9006, 50551-50559 and 28200-28220; use one of these" $name $port) -}}
{{- end -}}
{{- end }}
