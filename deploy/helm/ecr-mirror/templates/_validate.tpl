{{- /* Combinations that cannot be meant. What the configuration itself says is checked by ecr-mirror check. */ -}}
{{- define "ecr-mirror.validate" -}}
{{- $v := .Values -}}
{{- $c := fromYaml (include "ecr-mirror.config" .) -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository: name the registry that `make image` was pushed to" -}}
{{- end -}}
{{- if not (or $v.image.tag $v.image.digest) -}}
{{- fail "image: give a tag or a digest" -}}
{{- end -}}
{{- if eq $v.shape "nodes" -}}
{{- if not $v.nodes.mirror -}}
{{- fail "nodes.mirror: say how the nodes reach the mirror, such as https://mirror.internal:5000" -}}
{{- end -}}
{{- if not (or $v.nodes.registries $c.mirrors) -}}
{{- fail "nodes.registries: name the hosts whose images the mirror serves" -}}
{{- end -}}
{{- range $key := list "sweep" "monitoring" -}}
{{- if (get $v $key).enabled -}}
{{- fail (printf "%s.enabled: shape: nodes has no mirror" $key) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- include "ecr-mirror.validateMirror" . -}}
{{- end -}}
{{- end -}}

{{- define "ecr-mirror.validateMirror" -}}
{{- $v := .Values -}}
{{- $c := fromYaml (include "ecr-mirror.config" .) -}}
{{- if hasKey $c "role" -}}
{{- fail "config.role: leave it out: workers.replicas says whose role is what" -}}
{{- end -}}
{{- if not $c.mirrors -}}
{{- fail "config.mirrors: at least one is required" -}}
{{- end -}}
{{- $open := not (or (dig "auth" "none" false $c) (dig "auth" "ecr" false $c) (dig "auth" "htpasswd" "" $c) (dig "tls" "clientCA" "" $c)) -}}
{{- if and $open (not (include "ecr-mirror.isLoopback" $c.listen)) -}}
{{- range $c.mirrors -}}
{{- if not .auth -}}
{{- fail (printf "config.listen: %s is not loopback and clients need no credentials: set config.auth or config.tls.clientCA, or say config.auth: {none: true}" $c.listen) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $v.shape "deployment" -}}
{{- range $key := list "listen" "admin" -}}
{{- if include "ecr-mirror.isLoopback" (get $c $key) -}}
{{- fail (printf "config.%s: %s is reached from inside the pod alone; shape: deployment needs an address like 0.0.0.0" $key (get $c $key)) -}}
{{- end -}}
{{- end -}}
{{- $writers := int ($v.workers.replicas | default $v.replicas) -}}
{{- range $i, $m := $c.mirrors -}}
{{- if and $v.workers.replicas $m.destination (dig "replication" "onMiss" true $m) (not (dig "events" "sqs" "" $m)) -}}
{{- fail (printf "config.mirrors[%d].events.sqs: by this queue the workers hear what the others miss: set it, or workers.replicas: 0" $i) -}}
{{- end -}}
{{- if and (gt $writers 1) (dig "events" "sqs" "" $m) (not (dig "events" "shared" false $m)) -}}
{{- fail (printf "config.mirrors[%d].events: several replicas take from one queue: say shared: true, or have one replica" $i) -}}
{{- end -}}
{{- if and (gt $writers 1) (dig "replication" "sweep" "" $m) -}}
{{- fail (printf "config.mirrors[%d].replication.sweep: every replica would compare: leave it out and set sweep.enabled, or have one replica" $i) -}}
{{- end -}}
{{- end -}}
{{- if and $v.monitoring.enabled $v.networkPolicy.enabled (not $v.networkPolicy.monitoring) -}}
{{- fail "networkPolicy.monitoring: monitoring.enabled, and the policy does not let Prometheus in: say who it is" -}}
{{- end -}}
{{- if and $v.nodes.enabled (not $v.nodes.mirror) -}}
{{- fail "nodes.mirror: say how the nodes reach the mirror, such as https://mirror.internal:5000: they do not resolve the cluster's names" -}}
{{- end -}}
{{- else -}}
{{- range $i, $m := $c.mirrors -}}
{{- if $m.destination -}}
{{- fail (printf "config.mirrors[%d].destination: a mirror on every node only reads: leave it out; name the regional mirror or this region's ECR as the source" $i) -}}
{{- end -}}
{{- if dig "events" "sqs" "" $m -}}
{{- fail (printf "config.mirrors[%d].events.sqs: every node would take from the queue what one of them then knows: leave it out" $i) -}}
{{- end -}}
{{- end -}}
{{- if and $v.monitoring.enabled (include "ecr-mirror.isLoopback" $c.admin) -}}
{{- fail (printf "monitoring.enabled: Prometheus does not reach config.admin: %s; give an address of the node" $c.admin) -}}
{{- end -}}
{{- if and $v.cache.hostPath (not (dig "cache" "size" "" $c)) -}}
{{- fail "config.cache.size: say how much of cache.hostPath's filesystem the mirror may take" -}}
{{- end -}}
{{- if $v.workers.replicas -}}
{{- fail "workers.replicas: a mirror on every node replicates nothing; they are for shape: deployment" -}}
{{- end -}}
{{- if $v.sweep.enabled -}}
{{- fail "sweep.enabled: a mirror on every node replicates nothing; it is for shape: deployment" -}}
{{- end -}}
{{- end -}}
{{- range $path, $_ := $v.files -}}
{{- if eq $path "config.yaml" -}}
{{- fail "files: config.yaml is what config says" -}}
{{- end -}}
{{- end -}}
{{- end -}}
