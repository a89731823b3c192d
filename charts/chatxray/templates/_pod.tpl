{{/* An item of env from a Secret: list NAME SECRET KEY. */}}
{{- define "chatxray.env" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "chatxray.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ include "chatxray.scheme" .root | upper }}
{{ toYaml .with }}
{{- end -}}

{{/* The pod template of a role: dict "root" $ "role" all|web|worker "of" the role's section of the values. */}}
{{- define "chatxray.pod" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $gpu := int (default 0 .of.gpu) -}}
{{- $claim := include "chatxray.claim" $root -}}
metadata:
  labels:
    {{- include "chatxray.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    checksum/config: {{ include "chatxray.config" (list $root .role) | sha256sum }}
    {{- with .of.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "chatxray.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add 15 $v.drainSeconds $v.handBackSeconds }}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .of.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .of.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- toYaml $v.podSecurityContext | nindent 4 }}
  containers:
    - name: chatxray
      image: "{{ $v.image.repository }}:{{ coalesce .of.tag $v.image.tag $root.Chart.AppVersion }}"
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args:
        - serve
        - --listen=0.0.0.0:8080
        - --data=/data
        - --config=/etc/chatxray/config.yaml
      env:
        - name: TMPDIR
          value: /tmp
        - name: XDG_CACHE_HOME # weights that are made of the base model
          value: {{ if eq .role "all" }}/data/cache{{ else }}/cache{{ end }}
        {{- if $gpu }}
        - name: CHATXRAY_DEVICE
          value: cuda
        - name: CUDA_CACHE_PATH
          value: {{ if eq .role "all" }}/data/cache{{ else }}/cache{{ end }}/cuda
        {{- end }}
        {{- if $v.tls.existingSecret }}
        - name: SSL_CERT_FILE # web pods call workers; the system's folder of certificates counts as well
          value: /etc/chatxray-tls/ca.crt
        {{- end }}
        {{- with $v.auth.existingSecret }}
        {{- include "chatxray.env" (list "CHATXRAY_TOKEN" . $v.auth.key) | nindent 8 }}
        {{- end }}
        {{- with $v.redis.existingSecret }}
        {{- include "chatxray.env" (list "CHATXRAY_REDIS_URL" . $v.redis.key) | nindent 8 }}
        {{- end }}
        {{- with $v.index.existingSecret }}
        {{- include "chatxray.env" (list "CHATXRAY_INDEX_URL" . $v.index.key) | nindent 8 }}
        {{- end }}
        {{- with $v.objects.existingSecret }}
        {{- include "chatxray.env" (list "AWS_ACCESS_KEY_ID" . $v.objects.accessKey) | nindent 8 }}
        {{- include "chatxray.env" (list "AWS_SECRET_ACCESS_KEY" . $v.objects.secretKey) | nindent 8 }}
        {{- end }}
        {{- with $v.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: http
          containerPort: 8080
          protocol: TCP
      lifecycle:
        preStop:
          sleep:
            seconds: 5 # until load balancers have noticed
      startupProbe:
        {{- include "chatxray.probe" (dict "root" $root "path" "/healthz" "with" $v.startupProbe) | nindent 8 }}
      livenessProbe:
        {{- include "chatxray.probe" (dict "root" $root "path" "/healthz" "with" $v.livenessProbe) | nindent 8 }}
      readinessProbe:
        {{- include "chatxray.probe" (dict "root" $root "path" "/readyz" "with" $v.readinessProbe) | nindent 8 }}
      resources:
        {{- $resources := deepCopy .of.resources }}
        {{- if $gpu }}
        {{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" $gpu) (default dict $resources.limits)) }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      securityContext:
        {{- toYaml $v.securityContext | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /data
        - name: config
          mountPath: /etc/chatxray
          readOnly: true
        {{- if $v.tls.existingSecret }}
        - name: tls
          mountPath: /etc/chatxray-tls
          readOnly: true
        {{- end }}
        {{- if $v.auth.htpasswd.existingSecret }}
        - name: htpasswd
          mountPath: /etc/chatxray-auth
          readOnly: true
        {{- end }}
        {{- if or $v.bundle.existingClaim $v.bundle.image }}
        - name: bundle
          mountPath: /bundle
          readOnly: true
        {{- end }}
        - name: tmp
          mountPath: /tmp
        {{- if ne .role "all" }}
        - name: cache
          mountPath: /cache
        {{- end }}
  volumes:
    - name: data
      {{- if $claim }}
      persistentVolumeClaim:
        claimName: {{ $claim }}
      {{- else if $v.scaled }}
      emptyDir:
        sizeLimit: {{ $v.persistence.size }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    - name: config
      configMap:
        name: {{ include "chatxray.fullname" $root }}{{ if ne .role "all" }}-{{ .role }}{{ end }}
    {{- with $v.tls.existingSecret }}
    - name: tls
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with $v.auth.htpasswd.existingSecret }}
    - name: htpasswd
      secret:
        secretName: {{ . }}
        defaultMode: 0440
        items:
          - key: {{ $v.auth.htpasswd.key }}
            path: htpasswd
    {{- end }}
    {{- if $v.bundle.existingClaim }}
    - name: bundle
      persistentVolumeClaim:
        claimName: {{ $v.bundle.existingClaim }}
        readOnly: true
    {{- else if $v.bundle.image }}
    - name: bundle
      image:
        reference: {{ $v.bundle.image }}
        pullPolicy: {{ $v.image.pullPolicy }}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if ne .role "all" }}
    - name: cache
      emptyDir: {}
    {{- end }}
  {{- if ne .role "all" }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "chatxray.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.role }}
    {{- end }}
  {{- end }}
  {{- with .of.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .of.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .of.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
