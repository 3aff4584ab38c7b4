{{/* Names are fixed, not made from the release's name: a cluster has one driver ossfuse.csi.dev. */}}

{{- define "ossfuse.labels" -}}
app.kubernetes.io/name: ossfuse-csi
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: ossfuse-csi
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a workload selects its pods by; never changes between versions. Takes the component's name. */}}
{{- define "ossfuse.selector" -}}
app.kubernetes.io/name: ossfuse-csi
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* Takes {repository, tag, digest, …}. */}}
{{- define "ossfuse.reference" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}

{{- define "ossfuse.image" -}}
{{ include "ossfuse.reference" (merge (dict "tag" (.Values.image.tag | default .Chart.AppVersion)) .Values.image) }}
{{- end -}}

{{/* Pod Security "restricted", for a container that needs nothing but its mounts. */}}
{{- define "ossfuse.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* A container beside the node plugin: root, because the sockets and directories it uses are root's, and no more. */}}
{{- define "ossfuse.beside-node" -}}
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Namespaces whose pods the webhook and the policy leave alone, as a namespaceSelector. */}}
{{- define "ossfuse.namespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
    {{- range concat (list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq }}
      - {{ . | quote }}
    {{- end }}
  {{- with .Values.webhook.namespaceSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
