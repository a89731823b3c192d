{{/* The chart's name, the release's name, labels. A name of Kubernetes has at most 63 characters. */}}
{{- define "chatxray.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "chatxray.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "chatxray.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "chatxray.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "chatxray.selector" -}}
app.kubernetes.io/name: {{ include "chatxray.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "chatxray.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "chatxray.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "chatxray.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "chatxray.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "chatxray.scheme" -}}
{{- if or .Values.tls.existingSecret (dig "dicomweb" "tls" "certificate" "" .Values.config) -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{/* The configuration file: the values' config, with the secrets taken from the environment and from mounted files. */}}
{{- define "chatxray.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $web := deepCopy (default dict $config.dicomweb) -}}
{{- $auth := deepCopy (default dict $web.auth) -}}
{{- if .Values.auth.existingSecret -}}
{{- $token := dict "name" "chart" "token" "env:CHATXRAY_TOKEN" "roles" .Values.auth.roles -}}
{{- $_ := set $auth "tokens" (append (default list $auth.tokens) $token) -}}
{{- end -}}
{{- if .Values.auth.htpasswd.existingSecret -}}
{{- $_ := set $auth "htpasswd" (dict "file" "/etc/chatxray-auth/htpasswd" "roles" .Values.auth.htpasswd.roles) -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
{{- $tls := dict "certificate" "/etc/chatxray-tls/tls.crt" "key" "/etc/chatxray-tls/tls.key" -}}
{{- if $auth.certificates -}}
{{- $_ := set $tls "client_ca" "/etc/chatxray-tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $web "tls" $tls -}}
{{- end -}}
{{- if $auth -}}
{{- $_ := set $web "auth" $auth -}}
{{- else if not $web.open -}}
{{- fail "nobody could reach the service: name the Secret with its token in auth.existingSecret, set config.dicomweb.auth, or set config.dicomweb.open: true because something in front of it authenticates" -}}
{{- end -}}
{{- $_ := set $config "dicomweb" $web -}}
{{- if .Values.redis.existingSecret -}}
{{- $jobs := deepCopy (default dict $config.jobs) -}}
{{- $_ := set $jobs "redis" "env:CHATXRAY_REDIS_URL" -}}
{{- $_ := set $config "jobs" $jobs -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
