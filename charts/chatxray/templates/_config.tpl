{{/* The configuration file of a role: the values' config, with the secrets taken from the environment and from mounted files. list ROOT ROLE. */}}
{{- define "chatxray.config" -}}
{{- $role := index . 1 -}}
{{- with index . 0 -}}
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
{{- end -}}
{{- $_ := set $web "drain" (printf "%ds" (int .Values.drainSeconds)) -}}
{{- $_ := set $config "dicomweb" $web -}}
{{- $line := deepCopy (default dict $config.line) -}}
{{- $_ := set $line "stop" (printf "%ds" (int .Values.handBackSeconds)) -}}
{{- $_ := set $config "line" $line -}}
{{- if ne $role "all" -}}
{{- $_ := set $config "role" $role -}}
{{- end -}}
{{- if eq $role "web" -}}
{{- $_ := set $config "worker_url" (printf "%s://%s-worker.%s.svc:8080" (include "chatxray.scheme" .) (include "chatxray.fullname" .) .Release.Namespace) -}}
{{- end -}}
{{- if .Values.redis.existingSecret -}}
{{- $jobs := deepCopy (default dict $config.jobs) -}}
{{- $_ := set $jobs "redis" "env:CHATXRAY_REDIS_URL" -}}
{{- $_ := set $config "jobs" $jobs -}}
{{- end -}}
{{- if .Values.index.existingSecret -}}
{{- $archive := deepCopy (default dict $config.archive) -}}
{{- $_ := set $archive "index" "env:CHATXRAY_INDEX_URL" -}}
{{- $_ := set $config "archive" $archive -}}
{{- end -}}
{{- if or .Values.bundle.existingClaim .Values.bundle.image -}}
{{- $model := deepCopy (default dict $config.model) -}}
{{- $_ := set $model "bundle" (printf "/bundle/%s" .Values.bundle.path | trimSuffix "/") -}}
{{- $_ := set $config "model" $model -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
{{- end -}}

{{/* What would start and not work is refused here, with what to do. */}}
{{- define "chatxray.refuse" -}}
{{- $web := default dict .Values.config.dicomweb -}}
{{- if not (or .Values.auth.existingSecret .Values.auth.htpasswd.existingSecret $web.auth $web.open) -}}
{{- fail "nobody could reach the service: name the Secret with its token in auth.existingSecret, set config.dicomweb.auth, or set config.dicomweb.open: true because something in front of it authenticates" -}}
{{- end -}}
{{- if .Values.scaled -}}
{{- if not (or .Values.redis.existingSecret (dig "jobs" "redis" "" .Values.config)) -}}
{{- fail "scaled: pods share their work through Redis: name the Secret with its URL in redis.existingSecret" -}}
{{- end -}}
{{- if not (or .Values.index.existingSecret (dig "archive" "index" "" .Values.config)) -}}
{{- fail "scaled: pods share an index in PostgreSQL: name the Secret with its URL in index.existingSecret" -}}
{{- end -}}
{{- if not (dig "archive" "objects" "" .Values.config) -}}
{{- if not .Values.persistence.enabled -}}
{{- fail "scaled: pods share the archive's files: name a bucket in config.archive.objects, or enable persistence with a volume of ReadWriteMany" -}}
{{- end -}}
{{- if not (or .Values.persistence.existingClaim (has "ReadWriteMany" .Values.persistence.accessModes)) -}}
{{- fail "scaled: pods share the archive's files: name a bucket in config.archive.objects, or set persistence.accessModes to [ReadWriteMany]" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) -}}
{{- fail "scaled: networkPolicy lets no pod reach Redis, PostgreSQL or S3: name them in networkPolicy.egress" -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled .Values.worker.autoscaling.enabled -}}
{{- fail "worker: keda and autoscaling both set the number of pods: enable one of them" -}}
{{- end -}}
{{- if and .Values.worker.keda.enabled (eq .Values.worker.keda.trigger "streams") (not (and .Values.worker.keda.streams.archive .Values.worker.keda.streams.address)) -}}
{{- fail "worker.keda: the trigger streams needs streams.archive (SELECT id FROM archive, in the index) and streams.address (host:port of Redis)" -}}
{{- end -}}
{{- else if .Values.worker.keda.enabled -}}
{{- fail "worker.keda: without scaled: true there are no worker pods" -}}
{{- end -}}
{{- if and .Values.bundle.existingClaim .Values.bundle.image -}}
{{- fail "bundle: existingClaim and image are two places for one bundle: name one" -}}
{{- end -}}
{{- end -}}
