{{/* Refuses settings with which the gateway does not start (docs/settings.md, "Rules for several settings"). The
     schema refuses values of the wrong form. _checks_access.tpl has the rules for authentication. */}}
{{- define "gateway.checkSettings" -}}
{{- include "gateway.checkLimits" . -}}
{{- include "gateway.checkDurations" . -}}
{{- include "gateway.checkRegistration" . -}}
{{- $output := dig "audit" "output" "none" .Values.config -}}
{{- range $name := list "file" "max_bytes" "max_files" -}}
{{- if and (ne $output "file") (hasKey ($.Values.config.audit | default dict) $name) -}}
{{- fail (printf "config.audit.%s: has no effect with config.audit.output %s, and the gateway does not start; set config.audit.output to file, or remove it" $name $output) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A limit that admits the largest single call. */}}
{{- define "gateway.checkLimits" -}}
{{- range $pair := list (list "limits.devices" "changes.max_devices_per_request") (list "limits.message_bytes" "grpc.max_message_bytes") -}}
{{- $limit := include "gateway.setting" (dict "root" $ "name" (first $pair)) | int64 -}}
{{- $call := include "gateway.setting" (dict "root" $ "name" (last $pair)) | int64 -}}
{{- if lt $limit $call -}}
{{- fail (printf "config.%s: %d is less than config.%s, %d, so the gateway does not start; raise it, or lower config.%s" (first $pair) $limit (last $pair) $call (last $pair)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkDurations" -}}
{{- $grace := include "gateway.setting" (dict "root" . "name" "shutdown.grace") -}}
{{- if not (include "gateway.isDuration" $grace) -}}
{{- fail (printf "config.shutdown.grace: %q must be numbers with the units ms, s, m, h or d, such as 90s, so that the chart can derive the grace period of the pod" $grace) -}}
{{- end -}}
{{- $rules := list
  (dict "short" "grpc.max_stream_age" "long" "grpc.max_connection_age" "equal" false "reason" "a watch must end before its connection")
  (dict "short" "changes.close_after" "long" "journal.retention" "equal" true "reason" "the idempotency key of a change must not expire before the change is closed") -}}
{{- range $rule := $rules -}}
{{- $short := include "gateway.setting" (dict "root" $ "name" $rule.short) -}}
{{- $long := include "gateway.setting" (dict "root" $ "name" $rule.long) -}}
{{- /* The gateway also accepts other units, such as weeks, which it compares itself. */ -}}
{{- if and (include "gateway.isDuration" $short) (include "gateway.isDuration" $long) -}}
{{- $margin := sub (include "gateway.milliseconds" $long | int64) (include "gateway.milliseconds" $short | int64) -}}
{{- if lt $margin (ternary 0 1 $rule.equal | int64) -}}
{{- fail (printf "config.%s: %s is %s than config.%s, %s, so the gateway does not start: %s; raise it, or lower config.%s" $rule.long $long (ternary "less" "not more" $rule.equal) $rule.short $short $rule.reason $rule.short) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gateway.checkRegistration" -}}
{{- $register := dig "callbacks" "register" "never" .Values.config -}}
{{- if ne $register "never" -}}
{{- if not (include "gateway.publicUrl" .) -}}
{{- fail (printf "config.callbacks.public_url: not set; config.callbacks.register %s needs the address to register: set it, or expose.callbacks" $register) -}}
{{- end -}}
{{- if not (dig "thingspace" "accounts" list .Values.config) -}}
{{- fail (printf "config.thingspace.accounts: not set; config.callbacks.register %s needs the accounts to register the address for" $register) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A setting in effect, as text. Has the defaults of the settings that the checks read. Arguments: root, name. */}}
{{- define "gateway.setting" -}}
{{- $defaults := dict
  "changes.close_after" "7d"
  "changes.max_devices_per_request" 10000
  "grpc.max_connection_age" "30m"
  "grpc.max_message_bytes" 16777216
  "grpc.max_stream_age" "25m"
  "journal.retention" "400d"
  "journal.spool_max_bytes" 1073741824
  "limits.devices" 100000
  "limits.message_bytes" 33554432
  "shutdown.grace" "25s" -}}
{{- $path := splitList "." .name -}}
{{- $value := dig (first $path) (last $path) (get $defaults .name) .root.Values.config -}}
{{- ternary $value (int64 $value) (kindIs "string" $value) -}}
{{- end }}
