{{/* Refuses ways of authentication that do not go together, or that let strangers in. */}}
{{- define "gateway.checkAuthentication" -}}
{{- include "gateway.checkModes" . -}}
{{- include "gateway.checkPolicy" . -}}
{{- include "gateway.checkClientCertificates" . -}}
{{- include "gateway.checkTokens" . -}}
{{- include "gateway.checkMeshIdentities" . -}}
{{- include "gateway.checkCallersOutside" . -}}
{{- include "gateway.checkMesh" . -}}
{{- end }}

{{- define "gateway.checkModes" -}}
{{- $modes := dig "auth" "mode" list .Values.config -}}
{{- if not $modes -}}
{{- fail "config.auth.mode: not set, and the gateway does not start without it; set mtls, jwt or mesh, or none to accept every client that can reach the gRPC port" -}}
{{- end -}}
{{- if and (kindIs "slice" $modes) (has "none" $modes) (gt (len $modes) 1) -}}
{{- fail (printf "config.auth.mode: none not together with %s, and the gateway does not start; remove one of them" (without $modes "none" | join ", ")) -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkPolicy" -}}
{{- $policy := or (trim .Values.policy) .Values.policyConfigMap -}}
{{- $authenticated := include "gateway.authenticated" . -}}
{{- if and $authenticated (not $policy) -}}
{{- fail "policy: not set; a config.auth.mode other than none needs the permissions of its clients (docs/access.md), as policy or policyConfigMap" -}}
{{- end -}}
{{- if and $policy (not $authenticated) -}}
{{- fail "policy: only with a config.auth.mode other than none, because without authentication all clients have all permissions; set config.auth.mode to mtls, jwt or mesh" -}}
{{- end -}}
{{- if and .Values.policy .Values.policyConfigMap -}}
{{- fail "policyConfigMap: not together with policy; remove one of them" -}}
{{- end -}}
{{- with get (fromToml .Values.policy) "Error" -}}
{{- fail (printf "policy: not valid TOML, so the gateway does not start: %s; thingspace-gateway policy check FILE also checks its content" .) -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkClientCertificates" -}}
{{- if and .Values.grpc.clientCaSecret (not (include "gateway.tlsSecret" (dict "root" . "port" "grpc"))) -}}
{{- fail "grpc.clientCaSecret: only with grpc.tlsSecret or expose.grpc.type loadBalancer, because clients present certificates only with TLS" -}}
{{- end -}}
{{- if and (include "gateway.authMode" (dict "root" . "mode" "mtls")) (not .Values.grpc.clientCaSecret) -}}
{{- fail "grpc.clientCaSecret: not set; config.auth.mode mtls needs the CA of the client certificates, and TLS on the gRPC port (grpc.tlsSecret, or expose.grpc.type loadBalancer)" -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkTokens" -}}
{{- $auth := .Values.config.auth -}}
{{- $url := get $auth "jwt_jwks_url" -}}
{{- if and $url $auth.jwt_jwks_file -}}
{{- fail "config.auth.jwt_jwks_url: not together with config.auth.jwt_jwks_file, which also has the keys of the issuer; remove one of them" -}}
{{- end -}}
{{- if and $url (not (regexMatch "^(https:|http://(localhost|127[.0-9]+|\\[::1\\])([:/]|$))" $url)) -}}
{{- fail (printf "config.auth.jwt_jwks_url: %s is not https, so an attacker on the network could replace the keys and forge tokens; use https, or mount the keys and set config.auth.jwt_jwks_file" $url) -}}
{{- end -}}
{{- if include "gateway.authMode" (dict "root" . "mode" "jwt") -}}
{{- range $name := list "jwt_issuer" "jwt_audience" -}}
{{- if not (get $auth $name) -}}
{{- fail (printf "config.auth.%s: not set; config.auth.mode jwt needs the %s of the tokens" $name (trimPrefix "jwt_" $name)) -}}
{{- end -}}
{{- end -}}
{{- if not (or $url $auth.jwt_jwks_file) -}}
{{- fail "config.auth.jwt_jwks_url: not set; config.auth.mode jwt needs the keys of the issuer: set it, or config.auth.jwt_jwks_file" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Identities that the proxies of a mesh prove. */}}
{{- define "gateway.checkMeshIdentities" -}}
{{- $networks := dict "mesh.podCidrs" .Values.mesh.podCidrs "config.auth.mesh_trusted_cidrs" (dig "auth" "mesh_trusted_cidrs" list .Values.config) -}}
{{- range $name, $cidrs := $networks -}}
{{- range $cidrs -}}
{{- if hasSuffix "/0" . -}}
{{- fail (printf "%s: %s contains all addresses, so every host could forge the identity of a client; name the networks of the pods" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "gateway.authMode" (dict "root" . "mode" "mesh") -}}
{{- if and (eq .Values.mesh.type "none") (not (and (dig "auth" "mesh_header" "" .Values.config) (dig "auth" "mesh_trusted_cidrs" "" .Values.config))) -}}
{{- fail "config.auth.mode: mesh needs mesh.type, or config.auth.mesh_header and config.auth.mesh_trusted_cidrs for a proxy of your own" -}}
{{- end -}}
{{- if and (eq .Values.mesh.type "ambient") (not .Values.mesh.podCidrs) (not (dig "auth" "mesh_trusted_cidrs" "" .Values.config)) -}}
{{- fail "mesh.podCidrs: not set; with mesh.type ambient the gateway sees the address of the waypoint, so name the networks of the pods" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A gRPC port that clients outside the cluster reach. */}}
{{- define "gateway.checkCallersOutside" -}}
{{- $type := include "gateway.serviceType" (dict "root" . "port" "grpc") -}}
{{- if or (ne $type "ClusterIP") (ne .Values.expose.grpc.type "none") -}}
{{- $name := ternary (printf "expose.grpc.type: %s" .Values.expose.grpc.type) (printf "service.grpc.type: %s" $type) (ne .Values.expose.grpc.type "none") -}}
{{- if not (include "gateway.authenticated" .) -}}
{{- fail (printf "%s needs authentication, because every host that reaches the port could change plans that Verizon bills; set config.auth.mode to mtls or jwt, with a policy" $name) -}}
{{- end -}}
{{- if and (ne $type "ClusterIP") (not (include "gateway.tlsSecret" (dict "root" . "port" "grpc"))) -}}
{{- fail (printf "%s needs TLS, because tokens and device identifiers would be sent unencrypted; set grpc.tlsSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Refuses values that a mesh makes impossible or unsafe. */}}
{{- define "gateway.checkMesh" -}}
{{- $mesh := .Values.mesh.type -}}
{{- $identity := include "gateway.authMode" (dict "root" . "mode" "mesh") -}}
{{- if ne $mesh "none" -}}
{{- if and $identity (include "gateway.tlsSecret" (dict "root" . "port" "grpc")) -}}
{{- fail "grpc.tlsSecret: not together with config.auth.mode mesh, because the proxy of the mesh cannot read TLS of the gateway, and clients could forge their identity; remove it, the mesh encrypts the connections" -}}
{{- end -}}
{{- if and $identity (not (has .Values.service.grpc.appProtocol (list "" "grpc" "kubernetes.io/h2c"))) -}}
{{- fail (printf "service.grpc.appProtocol: %s hides the calls from the proxy of the mesh, so clients could forge their identity; leave it empty" .Values.service.grpc.appProtocol) -}}
{{- end -}}
{{- if and $identity (eq $mesh "ambient") .Values.console.enabled -}}
{{- fail "console.enabled: not together with mesh.type ambient and config.auth.mode mesh, because the console is not behind the waypoint and pods could forge their identity; use another config.auth.mode" -}}
{{- end -}}
{{- if eq (include "gateway.serviceType" (dict "root" . "port" "grpc")) "LoadBalancer" -}}
{{- fail (printf "expose.grpc.type: loadBalancer is not possible with mesh.type %s, which admits only clients in the mesh; use a proxy in the mesh (ingress, grpcRoute or httpRoute)" $mesh) -}}
{{- end -}}
{{- if and $identity (ne .Values.expose.grpc.type "none") (not (include "gateway.authMode" (dict "root" . "mode" "jwt"))) -}}
{{- fail "config.auth.mode: mesh gives all clients behind expose.grpc the identity of the proxy; add jwt" -}}
{{- end -}}
{{- include "gateway.checkMeshProxy" . -}}
{{- range .Values.mesh.clients -}}
{{- if or (hasPrefix "spiffe://" .) (ne (contains ".serviceaccount.identity." .) (eq $mesh "linkerd")) (ne (contains "/ns/" .) (ne $mesh "linkerd")) -}}
{{- if ne . "*" -}}
{{- fail (printf "mesh.clients: %s is not an identity of %s, such as %s" . $mesh (ternary "NAME.NAMESPACE.serviceaccount.identity.linkerd.cluster.local" "cluster.local/ns/NAMESPACE/sa/NAME" (eq $mesh "linkerd"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The proxy of an exposed gRPC port connects like a client, so the mesh must admit it. */}}
{{- define "gateway.checkMeshProxy" -}}
{{- $type := .Values.expose.grpc.type -}}
{{- if ne $type "none" -}}
{{- if and (eq .Values.mesh.type "ambient") (include "gateway.authMode" (dict "root" . "mode" "mesh")) -}}
{{- fail (printf "expose.grpc.type: %s not together with mesh.type ambient and config.auth.mode mesh, because its proxy connects to the pods, and only the waypoint may; use config.auth.mode jwt" $type) -}}
{{- end -}}
{{- $clients := .Values.mesh.clients -}}
{{- if and $clients (not (has "*" $clients)) -}}
{{- $namespace := .Values.expose.proxyNamespace -}}
{{- if not $namespace -}}
{{- fail "expose.proxyNamespace: not set; mesh.clients must contain the identity of the proxy of expose.grpc: name its namespace, so that the chart can check it" -}}
{{- end -}}
{{- $part := ternary (printf ".%s.serviceaccount.identity." $namespace) (printf "/ns/%s/sa/" $namespace) (eq .Values.mesh.type "linkerd") -}}
{{- if not (contains $part (join "\n" $clients)) -}}
{{- fail (printf "mesh.clients: no identity in the namespace %s of expose.proxyNamespace, so the mesh would refuse the proxy of expose.grpc; add its identity" $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
