package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRefusedValues: values that cannot work are refused before anything is installed, and the words say which.
func TestRefusedValues(t *testing.T) {
	shared := "scaled: true\nauth: {existingSecret: t}\nredis: {existingSecret: r}\nindex: {existingSecret: i}\npersistence: {existingClaim: c}\n"
	for name, c := range map[string]struct{ values, want string }{
		"nobody may come in":                  {"{}", "auth.existingSecret"},
		"a key that is none":                  {"auth: {existingSecret: t}\nreplicaCount: 3", "replicaCount"},
		"a key that is none within a section": {"auth: {existingSecret: t}\nworker: {keda: {lag: 3}}", "lag"},
		"a number as text":                    {"auth: {existingSecret: t}\ndrainSeconds: 60s", "drainSeconds"},
		"two owners of an archive":            {"auth: {existingSecret: t}\nsingle: {replicas: 2}", "replicas"},
		"a token in the values":               {"auth: {existingSecret: t, token: abc}", "token"},
		"a role that is none":                 {"auth: {existingSecret: t, roles: [write]}", "roles"},
		"a name that is no Secret's":          {"auth: {existingSecret: My_Secret}", "existingSecret"},
		"configuration of the chart's":        {"auth: {existingSecret: t}\nconfig: {data: /elsewhere}", "data"},
		"a drain of its own":                  {"auth: {existingSecret: t}\nconfig: {dicomweb: {drain: 5m}}", "drain"},
		"environment of the chart's":          {"auth: {existingSecret: t}\nextraEnv: [{name: CHATXRAY_TOKEN, value: x}]", "extraEnv"},
		"an ingress without a host":           {"auth: {existingSecret: t}\ningress: {enabled: true}", "host"},
		"scaled without Redis":                {"scaled: true\nauth: {existingSecret: t}\nindex: {existingSecret: i}", "redis.existingSecret"},
		"scaled without an index":             {"scaled: true\nauth: {existingSecret: t}\nredis: {existingSecret: r}", "index.existingSecret"},
		"scaled on a volume of one":           {"scaled: true\nauth: {existingSecret: t}\nredis: {existingSecret: r}\nindex: {existingSecret: i}", "ReadWriteMany"},
		"scaled without files":                {shared + "persistence: {enabled: false}", "persistence"},
		"a policy that lets nothing out":      {shared + "networkPolicy: {enabled: true}", "networkPolicy.egress"},
		"two who count workers":               {shared + "worker: {autoscaling: {enabled: true}, keda: {enabled: true}}", "enable one"},
		"streams of an unknown archive":       {shared + "worker: {keda: {enabled: true, trigger: streams}}", "streams.archive"},
		"KEDA without workers":                {"auth: {existingSecret: t}\nworker: {keda: {enabled: true}}", "scaled: true"},
		"no worker at times":                  {shared + "worker: {keda: {enabled: true, minReplicas: 0}}", "minReplicas"},
		"a lane that is none":                 {shared + "worker: {keda: {streams: {lanes: [fast]}}}", "lanes"},
		"a bundle from two places":            {"auth: {existingSecret: t}\nbundle: {existingClaim: a, image: b}", "name one"},
		"GPUs for web pods":                   {shared + "web: {gpu: 1}", "gpu"},
	} {
		t.Run(name, func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(f, []byte(strings.Replace(c.values, "persistence: {existingClaim: c}\npersistence", "persistence", 1)), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := render(chartDir, f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want a word of %q", err, c.want)
			}
		})
	}
}

// TestMistakesAreSeen breaks the chart, and the checks must tell it.
func TestMistakesAreSeen(t *testing.T) {
	for name, c := range map[string]struct{ file, old, new, values, want string }{
		"an unknown field":                {"_pod.tpl", "enableServiceLinks: false", "enableServiceLink: false", "scaled", `unknown field "spec.template.spec.enableServiceLink"`},
		"a field in another case":         {"deployments.yaml", "  strategy:", "  Strategy:", "scaled", `unknown field "spec.Strategy"`},
		"a field twice":                   {"service.yaml", "      protocol: TCP", "      protocol: TCP\n      protocol: TCP", "default", "already"},
		"text for a number":               {"_pod.tpl", "{{ add 15 $v.drainSeconds $v.handBackSeconds }}", "{{ add 15 $v.drainSeconds $v.handBackSeconds }}s", "gpu", "terminationGracePeriodSeconds"},
		"a number for text":               {"_pod.tpl", "value: cuda", "value: 1", "gpu", "cannot unmarshal number"},
		"text for a number of the HPA":    {"autoscaling.yaml", "{{ $of.autoscaling.cpu }}", `"{{ $of.autoscaling.cpu }}%"`, "scaled", "averageUtilization"},
		"a kind of another group":         {"autoscaling.yaml", "policy/v1", "policy/v1beta1", "scaled", "no type is known"},
		"an unknown field of the monitor": {"monitoring.yaml", "interval:", "intervall:", "keda", "intervall"},
		"an unknown field of KEDA's":      {"keda.yaml", "minReplicaCount", "minReplicas", "keda", "minReplicas"},
		"a wrong type of KEDA's":          {"keda.yaml", "cooldownPeriod: {{ $keda.cooldownSeconds }}", "cooldownPeriod: {{ $keda.cooldownSeconds }}s", "keda", "cooldownPeriod"},
		"a number in KEDA's metadata":     {"keda.yaml", "streamLength: {{ $keda.studies | quote }}", "streamLength: {{ $keda.studies }}", "keda", "streamLength"},
		"a parameter KEDA has not":        {"keda.yaml", "streamLength:", "streamLenght:", "keda", "streamLenght"},
		"a trigger KEDA has not":          {"keda.yaml", "type: metrics-api", "type: metric-api", "locked", "metric-api"},
		"an authentication of nobody's":   {"keda.yaml", "authenticationRef:\n        name: {{ include \"chatxray.fullname\" . }}-worker", "authenticationRef:\n        name: other", "locked", "authenticates with other"},
		"a selector that misses":          {"networkpolicy.yaml", "component: {{ . }}\n  policyTypes", "component: {{ . }}s\n  policyTypes", "locked", "selects the pods of 0"},
		"a selector of everything":        {"service.yaml", "    app.kubernetes.io/component: worker\n  ports", "  ports", "keda", "selects the pods of 2"},
		"a scaler of nobody":              {"autoscaling.yaml", "    name: {{ include \"chatxray.fullname\" $ }}-{{ $role }}\n  minReplicas", "    name: other\n  minReplicas", "scaled", "which is not there"},
		"a volume of nobody":              {"_pod.tpl", "    - name: tmp\n      emptyDir: {}", "    - name: temp\n      emptyDir: {}", "default", "no volume of it"},
		"a pod that may become root":      {"_pod.tpl", "{{- toYaml $v.podSecurityContext | nindent 4 }}", "runAsUser: 0", "default", "runAsNonRoot"},
		"a container with capabilities":   {"_pod.tpl", "{{- toYaml $v.securityContext | nindent 8 }}", "readOnlyRootFilesystem: true", "default", "unrestricted capabilities"},
		"a token of the API server":       {"_pod.tpl", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "default", "token of the API server"},
		"a probe of another path":         {"_pod.tpl", `"/readyz"`, `"/ready"`, "default", "readiness probe"},
		"a secret that no pod has":        {"_pod.tpl", "CHATXRAY_INDEX_URL", "CHATXRAY_DB_URL", "scaled", "reads CHATXRAY_INDEX_URL"},
		"broken YAML":                     {"ingress.yaml", "  rules:", " rules:", "locked", ""},
		"a template of nowhere":           {"pvc.yaml", "chatxray.labels", "chatxray.lables", "default", "chatxray.lables"},
	} {
		t.Run(name, func(t *testing.T) {
			chart := filepath.Join(t.TempDir(), "chatxray")
			if err := os.CopyFS(chart, os.DirFS(chartDir)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(chart, "templates", c.file)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(b), c.old) {
				t.Fatalf("%s does not have %q", c.file, c.old)
			}
			if err := os.WriteFile(file, []byte(strings.Replace(string(b), c.old, c.new, 1)), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = verify(chart, filepath.Join(chart, "ci", c.values+".yaml"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want a word of %q", err, c.want)
			}
		})
	}
}
