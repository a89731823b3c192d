package charts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	_ "github.com/kedacore/keda/v2/version" // keeps the module, whose definitions are read, in go.mod; its Go types would compile all clients of Kubernetes
	"github.com/santhosh-tekuri/jsonschema/v6"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// kedaObject is a ScaledObject or a TriggerAuthentication.
type kedaObject struct {
	Metadata meta.ObjectMeta `json:"metadata"`
	Spec     struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		Triggers []struct {
			Type              string            `json:"type"`
			Metadata          map[string]string `json:"metadata"`
			AuthenticationRef *struct {
				Name string `json:"name"`
			} `json:"authenticationRef"`
		} `json:"triggers"`
		SecretTargetRef []struct {
			Parameter string `json:"parameter"`
		} `json:"secretTargetRef"`
	} `json:"spec"`
	kind string
}

var kedaDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kedacore/keda/v2").Output()
	if err == nil && len(strings.TrimSpace(string(out))) == 0 {
		err = errors.New("the module is not downloaded")
	}
	return strings.TrimSpace(string(out)), err
})

// kedaSchema is the schema of a kind's CustomResourceDefinition, which KEDA generates from its Go types. Fields that it does not name are refused.
func kedaSchema(kind string) (*jsonschema.Schema, error) {
	dir, err := kedaDir()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "config", "crd", "bases", "keda.sh_"+strings.ToLower(kind)+"s.yaml"))
	if err != nil {
		return nil, err
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string `json:"name"`
				Schema struct {
					OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(b, &crd); err != nil {
		return nil, err
	}
	v := crd.Spec.Versions[0]
	if v.Name != "v1alpha1" {
		return nil, fmt.Errorf("%s has the version %s", kind, v.Name)
	}
	closed(v.Schema.OpenAPIV3Schema)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	if err := c.AddResource("crd.json", v.Schema.OpenAPIV3Schema); err != nil {
		return nil, err
	}
	return c.Compile("crd.json")
}

// closed refuses what a structural schema does not name (strict field validation).
func closed(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		_, named := s["properties"].(map[string]any)
		if _, more := s["additionalProperties"]; named && !more && s["x-kubernetes-preserve-unknown-fields"] != true {
			s["additionalProperties"] = false
		}
		for _, v := range s {
			closed(v)
		}
	case []any:
		for _, v := range s {
			closed(v)
		}
	}
}

func (all *manifests) keepKEDA(kind string, raw []byte) error {
	schema, err := kedaSchema(kind)
	if err != nil {
		return err
	}
	var v any
	var head struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := errors.Join(json.Unmarshal(raw, &v), json.Unmarshal(raw, &head)); err != nil {
		return err
	}
	if err := schema.Validate(v); err != nil {
		return err
	}
	twice, err := strict.UnmarshalStrict(head.Metadata, &meta.ObjectMeta{}) // the definition leaves it to Kubernetes
	if err := errors.Join(append(twice, err)...); err != nil {
		return err
	}
	o := kedaObject{kind: kind}
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	all.keda = append(all.keda, o)
	return o.triggers()
}

// triggers compares the metadata of triggers, which the definition takes as they come and KEDA reads by name, with KEDA's list of parameters.
func (o kedaObject) triggers() error {
	dir, err := kedaDir()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "schema", "generated", "scalers-schema.json"))
	if err != nil {
		return err
	}
	type scaler struct {
		Type       string `json:"type"`
		Parameters []struct {
			Name         string   `json:"name"`
			Optional     bool     `json:"optional"`
			Default      string   `json:"default"`
			AllowedValue []string `json:"allowedValue"`
			Metadata     bool     `json:"metadataVariableReadable"`
		} `json:"parameters"`
	}
	var known struct {
		Scalers []scaler `json:"scalers"`
	}
	if err := json.Unmarshal(b, &known); err != nil {
		return err
	}
	var errs []error
	for _, t := range o.Spec.Triggers {
		i := slices.IndexFunc(known.Scalers, func(s scaler) bool { return s.Type == t.Type })
		if i < 0 {
			errs = append(errs, fmt.Errorf("KEDA has no trigger %q", t.Type))
			continue
		}
		left := maps.Clone(t.Metadata)
		for _, p := range known.Scalers[i].Parameters {
			v, said := left[p.Name]
			delete(left, p.Name)
			switch {
			case !said && !p.Optional && p.Default == "" && p.Metadata:
				errs = append(errs, fmt.Errorf("trigger %s: %s is missing", t.Type, p.Name))
			case said && !p.Metadata:
				errs = append(errs, fmt.Errorf("trigger %s: %s is not read from metadata", t.Type, p.Name))
			case said && len(p.AllowedValue) > 0 && !slices.Contains(p.AllowedValue, v):
				errs = append(errs, fmt.Errorf("trigger %s: %s is %q, not one of %v", t.Type, p.Name, v, p.AllowedValue))
			}
		}
		for k := range left {
			errs = append(errs, fmt.Errorf("trigger %s: KEDA does not know %q", t.Type, k))
		}
	}
	return errors.Join(errs...)
}
