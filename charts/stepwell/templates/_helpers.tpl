{{- define "stepwell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- /* What every object's name begins with: never longer than leaves room for the longest suffix. */}}
{{- define "stepwell.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else if contains (include "stepwell.name" .) .Release.Name }}
{{- .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stepwell.name" .) | trunc 44 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Objects without a namespace carry it in their name, so that two releases of one name do not meet. */}}
{{- define "stepwell.clustername" -}}
{{- if eq .Release.Namespace (include "stepwell.fullname" .) }}
{{- include "stepwell.fullname" . }}
{{- else }}
{{- printf "%s-%s" .Release.Namespace (include "stepwell.fullname" .) }}
{{- end }}
{{- end }}

{{- define "stepwell.selector" -}}
app.kubernetes.io/name: {{ include "stepwell.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* What a user adds never hides what objects are found by, nor stands twice. */}}
{{- define "stepwell.labels" -}}
{{- $own := include "stepwell.selector" . | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $own "app.kubernetes.io/part-of" "stepwell" }}
{{- toYaml (merge $own .Values.commonLabels) }}
{{- end }}

{{- define "stepwell.podLabels" -}}
{{- $own := include "stepwell.labels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/component" "operator" }}
{{- toYaml (merge $own .Values.podLabels) }}
{{- end }}

{{- define "stepwell.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "stepwell.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Of a dictionary with repository, tag and digest, and the chart's own version. */}}
{{- define "stepwell.image" -}}
{{- $tag := default .appVersion .image.tag }}
{{- if .image.digest }}
{{- printf "%s:%s@%s" .image.repository $tag .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository $tag }}
{{- end }}
{{- end }}

{{- define "stepwell.operatorImage" -}}
{{- include "stepwell.image" (dict "image" .Values.image "appVersion" .Chart.AppVersion) }}
{{- end }}

{{- define "stepwell.databaseSecret" -}}
{{- default (printf "%s-database" (include "stepwell.fullname" .)) .Values.database.existingSecret }}
{{- end }}

{{- define "stepwell.databaseSecretKey" -}}
{{- if .Values.database.existingSecret }}{{ .Values.database.existingSecretKey }}{{ else }}dsn{{ end }}
{{- end }}

{{- define "stepwell.testNamespace" -}}
{{- if .Values.test.namespace }}
{{- .Values.test.namespace }}
{{- else if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) }}
{{- .Release.Namespace }}
{{- else }}
{{- first .Values.watchNamespaces }}
{{- end }}
{{- end }}

{{- define "stepwell.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* What a schema cannot say in words that help. */}}
{{- define "stepwell.checks" -}}
{{- if eq (empty .Values.database.existingSecret) (empty .Values.database.dsn) }}
{{- fail "database: set exactly one of database.existingSecret (a Secret with the DSN) and database.dsn" }}
{{- end }}
{{- if and .Values.database.dsn (not (regexMatch "^postgres(ql)?://[^[:space:]]+$" .Values.database.dsn)) }}
{{- fail "database.dsn: must be postgresql://USER:PASSWORD@HOST/NAME (the value is not shown here)" }}
{{- end }}
{{- if and .Values.watchNamespaces .Values.test.enabled .Values.test.namespace (not (has .Values.test.namespace .Values.watchNamespaces)) }}
{{- fail (printf "test.namespace: %s is none of watchNamespaces, so nothing would run there" .Values.test.namespace) }}
{{- end }}
{{- if and .Values.rbac.userRoles.aggregate .Values.watchNamespaces }}
{{- fail "rbac.userRoles.aggregate: only a ClusterRole is aggregated, and with watchNamespaces there is none" }}
{{- end }}
{{- end }}
