{{/* The chart's name, the release's name, labels. A name of Kubernetes has at most 63 characters; the longest ending here is "-metrics". */}}
{{- define "chatxray.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 54 | trimSuffix "-" -}}
{{- end -}}

{{- define "chatxray.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 54 | trimSuffix "-" -}}
{{- else if contains (include "chatxray.name" .) .Release.Name -}}
{{- .Release.Name | trunc 54 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "chatxray.name" .) | trunc 54 | trimSuffix "-" -}}
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

{{/* The role of the pods that clients speak to. */}}
{{- define "chatxray.front" -}}
{{- if .Values.scaled -}}web{{- else -}}all{{- end -}}
{{- end -}}

{{- define "chatxray.scheme" -}}
{{- if or .Values.tls.existingSecret (dig "dicomweb" "tls" "certificate" "" .Values.config) -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{/* Name of the volume claim; empty where pods have a folder of their own. */}}
{{- define "chatxray.claim" -}}
{{- if and .Values.persistence.enabled (not (and .Values.scaled (dig "archive" "objects" "" .Values.config))) -}}
{{- default (include "chatxray.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}
{{- end -}}
