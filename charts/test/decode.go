package charts

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// manifests are the rendered objects by kind.
type manifests struct {
	deployments []*apps.Deployment
	services    []*core.Service
	configs     []*core.ConfigMap
	accounts    []*core.ServiceAccount
	claims      []*core.PersistentVolumeClaim
	scalers     []*autoscaling.HorizontalPodAutoscaler
	budgets     []*policy.PodDisruptionBudget
	policies    []*networking.NetworkPolicy
	ingresses   []*networking.Ingress
	monitors    []*monitoring.ServiceMonitor
	keda        []kedaObject
}

// keep decodes strictly, as an API server does that is asked for fieldValidation=Strict: unknown and double fields are errors, and case counts.
func keep[T any](raw []byte, list *[]*T) error {
	v := new(T)
	twice, err := json.UnmarshalStrict(raw, v)
	*list = append(*list, v)
	return errors.Join(append(twice, err)...)
}

func decode(rendered []byte) (manifests, error) {
	var all manifests
	var errs []error
	for _, doc := range bytes.Split(append([]byte("\n"), rendered...), []byte("\n---\n")) {
		raw, err := yaml.YAMLToJSONStrict(append(doc, '\n'))
		if err != nil {
			errs = append(errs, fmt.Errorf("%w in\n%s", err, doc))
			continue
		}
		var head struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if err := yaml.Unmarshal(raw, &head); err != nil {
			errs = append(errs, err)
			continue
		}
		if head.Kind == "" && strings.TrimSpace(string(raw)) == "null" {
			continue
		}
		switch kind := head.APIVersion + " " + head.Kind; kind {
		case "apps/v1 Deployment":
			err = keep(raw, &all.deployments)
		case "v1 Service":
			err = keep(raw, &all.services)
		case "v1 ConfigMap":
			err = keep(raw, &all.configs)
		case "v1 ServiceAccount":
			err = keep(raw, &all.accounts)
		case "v1 PersistentVolumeClaim":
			err = keep(raw, &all.claims)
		case "autoscaling/v2 HorizontalPodAutoscaler":
			err = keep(raw, &all.scalers)
		case "policy/v1 PodDisruptionBudget":
			err = keep(raw, &all.budgets)
		case "networking.k8s.io/v1 NetworkPolicy":
			err = keep(raw, &all.policies)
		case "networking.k8s.io/v1 Ingress":
			err = keep(raw, &all.ingresses)
		case "monitoring.coreos.com/v1 ServiceMonitor":
			err = keep(raw, &all.monitors)
		case "keda.sh/v1alpha1 ScaledObject", "keda.sh/v1alpha1 TriggerAuthentication":
			err = all.keepKEDA(head.Kind, raw)
		default:
			err = fmt.Errorf("no type is known for %s", kind)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, err))
		}
	}
	return all, errors.Join(errs...)
}
