{{- /*
What the operator may do where it serves Workflows. It reads no Secret. It holds every right that it hands on to workers
(Leases), since the API server lets nobody grant what they do not have.
*/}}
{{- define "stepwell.operatorRules" -}}
- apiGroups: [stepwell.dev]
  resources: [workflows]
  verbs: [get, list, watch]
# Erasing a run's data takes its object out of the Run too, and old Runs go when their time is over.
- apiGroups: [stepwell.dev]
  resources: [runs]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [stepwell.dev]
  resources: [workflows/status, runs/status]
  verbs: [get, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
# What workers may do; the operator itself only reads who lives.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update, patch, delete]
# Why a pod does not start, such as a Secret that is missing.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- /* The lock of the replicas among themselves, in the release's own namespace. */}}
{{- define "stepwell.leaderRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "stepwell.fullname" . }}]
  verbs: [get, update]
{{- end }}

{{- define "stepwell.viewRules" -}}
- apiGroups: [stepwell.dev]
  resources: [workflows, workflows/status, runs, runs/status]
  verbs: [get, list, watch]
{{- end }}

{{- define "stepwell.runRules" -}}
{{ include "stepwell.viewRules" . }}
- apiGroups: [stepwell.dev]
  resources: [runs]
  verbs: [create, patch, update, delete]
{{- end }}

{{- define "stepwell.editRules" -}}
{{ include "stepwell.runRules" . }}
- apiGroups: [stepwell.dev]
  resources: [runs]
  verbs: [deletecollection]
- apiGroups: [stepwell.dev]
  resources: [workflows]
  verbs: [create, patch, update, delete, deletecollection]
- apiGroups: [stepwell.dev]
  resources: [workflows/scale]
  verbs: [get, patch, update]
{{- end }}
