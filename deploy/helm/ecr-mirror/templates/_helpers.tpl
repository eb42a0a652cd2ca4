{{- define "ecr-mirror.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ecr-mirror.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "ecr-mirror.fullname" .) -}}
{{- end -}}

{{- /* The account of those who write to destinations. */ -}}
{{- define "ecr-mirror.writerAccount" -}}
{{- if .Values.workers.replicas -}}
{{- .Values.workers.serviceAccount.name | default (printf "%s-worker" (include "ecr-mirror.fullname" .)) -}}
{{- else -}}
{{- include "ecr-mirror.serviceAccount" . -}}
{{- end -}}
{{- end -}}

{{- /* The labels that select: (list . component). */ -}}
{{- define "ecr-mirror.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* All labels: (list . component). */ -}}
{{- define "ecr-mirror.labels" -}}
{{- $ := index . 0 -}}
{{ include "ecr-mirror.selector" . }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.image.tag }}
app.kubernetes.io/version: {{ . | trunc 63 | trimAll "-_." | quote }}
{{- end }}
{{- end -}}

{{- define "ecr-mirror.image" -}}
{{- $i := .Values.image -}}
{{- $i.repository }}{{ with $i.tag }}:{{ . }}{{ end }}{{ with $i.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- /* What the configuration says, with what the shape needs where it is silent. */ -}}
{{- define "ecr-mirror.config" -}}
{{- $own := include "ecr-mirror.ownConfig" . | fromYaml -}}
{{- $c := include "ecr-mirror.defaults" . | fromYaml -}}
{{- if and (kindIs "string" .Values.config) $own.cache -}}
{{- $_ := unset $c.cache "size" -}}
{{- end -}}
{{- mergeOverwrite $c $own | toYaml -}}
{{- end -}}

{{- define "ecr-mirror.defaults" -}}
{{- $c := dict "listen" "0.0.0.0:5000" "admin" "0.0.0.0:5001" -}}
{{- if eq .Values.shape "daemonset" -}}
{{- $c = dict "listen" "127.0.0.1:5000" "admin" "127.0.0.1:5001" -}}
{{- end -}}
{{- $_ := set $c "cache" (dict "path" "/var/lib/ecr-mirror") -}}
{{- with include "ecr-mirror.cacheSize" . -}}
{{- $_ := set $c.cache "size" . -}}
{{- end -}}
{{- toYaml $c -}}
{{- end -}}

{{- define "ecr-mirror.ownConfig" -}}
{{- $own := .Values.config | default dict -}}
{{- if kindIs "string" $own -}}
{{- $own = fromYaml $own -}}
{{- with $own.Error -}}
{{- fail (printf "config: %s" .) -}}
{{- end -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{- /* The file. A text stays as it is: 1.10 would be 1.1 if it were read and written again. */ -}}
{{- define "ecr-mirror.configFile" -}}
{{- if kindIs "string" .Values.config -}}
{{- $own := include "ecr-mirror.ownConfig" . | fromYaml -}}
{{- $text := .Values.config | trimSuffix "\n" -}}
{{- range $key, $value := include "ecr-mirror.defaults" . | fromYaml -}}
{{- if not (hasKey $own $key) -}}
{{- $text = printf "%s\n%s" $text (dict $key $value | toYaml) -}}
{{- end -}}
{{- end -}}
{{- $read := fromYaml $text -}}
{{- if not (and (hasKey $read "listen") (hasKey $read "admin") (hasKey $read "cache")) -}}
{{- fail "config: as a text it has to be keys line by line, to which others can be added" -}}
{{- end -}}
{{- $text -}}
{{- else -}}
{{- include "ecr-mirror.config" . -}}
{{- end -}}
{{- end -}}

{{- define "ecr-mirror.volumeSize" -}}
{{- .Values.cache.size | default (ternary "20Gi" "100Gi" (eq .Values.shape "daemonset")) -}}
{{- end -}}

{{- /* Four fifths of the volume: 15 % of a filesystem stay free. */ -}}
{{- define "ecr-mirror.cacheSize" -}}
{{- if not .Values.cache.hostPath -}}
{{- $n := trimSuffix "i" (include "ecr-mirror.volumeSize" .) -}}
{{- $mib := dict "M" 1 "G" 1024 "T" 1048576 -}}
{{- $unit := substr (sub (len $n) 1 | int) (len $n) $n -}}
{{- div (mul (trimSuffix $unit $n | int) (get $mib $unit) 4) 5 }}MiB
{{- end -}}
{{- end -}}

{{- define "ecr-mirror.port" -}}
{{- splitList ":" . | last -}}
{{- end -}}

{{- define "ecr-mirror.isLoopback" -}}
{{- if regexMatch `^(127\.[0-9.]+|localhost|\[::1\]):` . -}}true{{- end -}}
{{- end -}}

{{- /* The registries whose images the mirrors serve, as the configuration has it: their names, else source and destination. */ -}}
{{- define "ecr-mirror.registries" -}}
{{- $all := list -}}
{{- range (fromYaml (include "ecr-mirror.config" .)).mirrors -}}
{{- if .names -}}
{{- $all = concat $all .names -}}
{{- else -}}
{{- $all = append $all .source.registry -}}
{{- with .destination -}}
{{- $all = append $all .registry -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $hosts := list -}}
{{- range $all -}}
{{- $hosts = append $hosts (regexReplaceAll "^https?://" (. | lower) "" | trimSuffix "/") -}}
{{- end -}}
{{- $hosts | uniq | toJson -}}
{{- end -}}

{{- /* The URL by which the nodes' clients reach the mirror. */ -}}
{{- define "ecr-mirror.nodeURL" -}}
{{- $c := fromYaml (include "ecr-mirror.config" .) -}}
{{- if .Values.nodes.mirror -}}
{{- .Values.nodes.mirror -}}
{{- else -}}
{{- ternary "https" "http" (hasKey $c "tls") }}://{{ $c.listen }}
{{- end -}}
{{- end -}}

{{- /* What lies in /etc/ecr-mirror. */ -}}
{{- define "ecr-mirror.files" -}}
config.yaml: |2
  {{- include "ecr-mirror.configFile" . | nindent 2 }}
{{- range $name, $text := .Values.files }}
{{ $name }}: {{ $text | quote }}
{{- end }}
{{- end -}}
