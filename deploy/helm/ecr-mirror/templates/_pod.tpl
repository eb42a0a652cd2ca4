{{- /* What every pod of the mirror's has: (list . service-account). */ -}}
{{- define "ecr-mirror.podBasics" -}}
{{- $ := index . 0 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ecr-mirror.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* A changed configuration makes new pods. */ -}}
{{- define "ecr-mirror.podMetadata" -}}
{{- $ := index . 0 -}}
labels: {{- include "ecr-mirror.selector" . | nindent 2 }}
  {{- with $.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "ecr-mirror.files" $ | sha256sum }}
  {{- with $.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* The mirror's container: (list . arguments-after-the-configuration). */ -}}
{{- define "ecr-mirror.container" -}}
{{- $ := index . 0 -}}
{{- $config := fromYaml (include "ecr-mirror.config" $) -}}
name: ecr-mirror
image: {{ include "ecr-mirror.image" $ }}
imagePullPolicy: {{ $.Values.image.pullPolicy }}
args: {{ concat (list "serve" "--config" "/etc/ecr-mirror/config.yaml") (index . 1) | toJson }}
{{- with $.Values.env }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
- {name: registry, containerPort: {{ include "ecr-mirror.port" $config.listen }}}
- {name: admin, containerPort: {{ include "ecr-mirror.port" $config.admin }}}
securityContext: {{- include "ecr-mirror.containerSecurity" $ | nindent 2 }}
resources: {{- toYaml $.Values.resources | nindent 2 }}
# A large cache is read before anything listens: five minutes for it.
startupProbe:
  {{- include "ecr-mirror.probe" (list $config "/healthz") | nindent 2 }}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  {{- include "ecr-mirror.probe" (list $config "/healthz") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  {{- include "ecr-mirror.probe" (list $config "/readyz") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
volumeMounts:
{{ include "ecr-mirror.mounts" $ }}
{{- end -}}

{{- /* The kubelet asks the pod's address. A pod on the host's network that listens on loopback is asked there. */ -}}
{{- define "ecr-mirror.probe" -}}
{{- $config := index . 0 -}}
httpGet:
  path: {{ index . 1 }}
  port: admin
  {{- if include "ecr-mirror.isLoopback" $config.admin }}
  host: {{ regexReplaceAll ":[0-9]+$" $config.admin "" | trimAll "[]" | quote }}
  {{- end }}
{{- end -}}

{{- define "ecr-mirror.mounts" -}}
- {name: config, mountPath: /etc/ecr-mirror, readOnly: true}
- {name: cache, mountPath: {{ (fromYaml (include "ecr-mirror.config" .)).cache.path }}}
{{- range $i, $s := .Values.secrets }}
- {name: secret-{{ $i }}, mountPath: {{ $s.path }}, readOnly: true}
{{- end }}
{{- end -}}

{{- /* All volumes but the cache. */ -}}
{{- define "ecr-mirror.volumes" -}}
- name: config
  configMap: {name: {{ include "ecr-mirror.fullname" . }}}
{{- range $i, $s := .Values.secrets }}
- name: secret-{{ $i }}
  secret: {secretName: {{ $s.name }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- /* Where pods go: (list . values). */ -}}
{{- define "ecr-mirror.scheduling" -}}
{{- $v := index . 1 -}}
nodeSelector: {{- toYaml $v.nodeSelector | nindent 2 }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $v.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- end -}}
