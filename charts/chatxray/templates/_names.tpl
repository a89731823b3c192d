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

{{/* The configuration file: the values' config, with the secrets taken from the environment. */}}
{{- define "chatxray.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $web := deepCopy (default dict $config.dicomweb) -}}
{{- if .Values.auth.existingSecret -}}
{{- $_ := set $web "tokens" (append (default list $web.tokens) "env:CHATXRAY_TOKEN") -}}
{{- $_ := set $config "dicomweb" $web -}}
{{- else if not (or $web.tokens $web.open) -}}
{{- fail "nobody could reach the service: name the Secret with its token in auth.existingSecret, or set config.dicomweb.open: true because something in front of it authenticates" -}}
{{- end -}}
{{- if .Values.redis.existingSecret -}}
{{- $jobs := deepCopy (default dict $config.jobs) -}}
{{- $_ := set $jobs "redis" "env:CHATXRAY_REDIS_URL" -}}
{{- $_ := set $config "jobs" $jobs -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
