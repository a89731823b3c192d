package charts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// restricted asks Pod Security's own checks whether the pods may run in a namespace of the level restricted.
func (all manifests) restricted() error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	var errs []error
	for _, d := range all.deployments {
		for _, r := range evaluator.EvaluatePod(level, &d.Spec.Template.ObjectMeta, &d.Spec.Template.Spec) {
			if !r.Allowed {
				errs = append(errs, fmt.Errorf("%s: %s: %s", d.Name, r.ForbiddenReason, r.ForbiddenDetail))
			}
		}
		c := d.Spec.Template.Spec.Containers[0]
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			errs = append(errs, fmt.Errorf("%s: the root file system can be written", d.Name))
		}
		if t := d.Spec.Template.Spec.AutomountServiceAccountToken; t == nil || *t {
			errs = append(errs, fmt.Errorf("%s: pods get a token of the API server", d.Name))
		}
	}
	return errors.Join(errs...)
}

// fit looks whether objects that name each other are there, and whether selectors select.
func (all manifests) fit() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	selects := func(who string, s *meta.LabelSelector, most int) {
		sel, err := meta.LabelSelectorAsSelector(s)
		n := 0
		for _, d := range all.deployments {
			if err == nil && !sel.Empty() && sel.Matches(labels.Set(d.Spec.Template.Labels)) {
				n++
			}
		}
		if err != nil || n == 0 || n > most {
			wrong("%s selects the pods of %d deployments (%v)", who, n, err)
		}
	}
	targets := func(who, name string) {
		i := slices.IndexFunc(all.deployments, func(d *apps.Deployment) bool { return d.Name == name })
		if i < 0 {
			wrong("%s scales %s, which is not there", who, name)
		} else if all.deployments[i].Spec.Replicas != nil {
			wrong("%s scales %s, whose number each upgrade sets back", who, name)
		}
	}
	for _, d := range all.deployments {
		selects("Deployment "+d.Name, d.Spec.Selector, 1)
		all.pod(d, wrong)
	}
	for _, s := range all.services {
		selects("Service "+s.Name, &meta.LabelSelector{MatchLabels: s.Spec.Selector}, 1)
	}
	for _, b := range all.budgets {
		selects("PodDisruptionBudget "+b.Name, b.Spec.Selector, 1)
	}
	for _, p := range all.policies {
		selects("NetworkPolicy "+p.Name, &p.Spec.PodSelector, 1)
	}
	for _, h := range all.scalers {
		targets("HorizontalPodAutoscaler "+h.Name, h.Spec.ScaleTargetRef.Name)
	}
	for _, o := range all.keda {
		if o.kind == "ScaledObject" {
			targets("ScaledObject "+o.Metadata.Name, o.Spec.ScaleTargetRef.Name)
		}
		for _, t := range o.Spec.Triggers {
			if r := t.AuthenticationRef; r != nil && !slices.ContainsFunc(all.keda, func(a kedaObject) bool { return a.kind == "TriggerAuthentication" && a.Metadata.Name == r.Name }) {
				wrong("a trigger of %s authenticates with %s, which is not there", o.Metadata.Name, r.Name)
			}
		}
	}
	for _, m := range all.monitors {
		sel, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
		for _, s := range all.services {
			if err != nil || !sel.Matches(labels.Set(s.Labels)) || s.Spec.Ports[0].Name != m.Spec.Endpoints[0].Port {
				wrong("ServiceMonitor %s does not find Service %s (%v)", m.Name, s.Name, err)
			}
		}
		if len(all.services) != len(all.deployments) {
			wrong("ServiceMonitor %s: %d services lead to %d deployments", m.Name, len(all.services), len(all.deployments))
		}
	}
	for _, i := range all.ingresses {
		to := i.Spec.Rules[0].HTTP.Paths[0].Backend.Service
		if !slices.ContainsFunc(all.services, func(s *core.Service) bool { return s.Name == to.Name && s.Spec.Ports[0].Name == to.Port.Name }) {
			wrong("Ingress %s leads to %s:%s, which is not there", i.Name, to.Name, to.Port.Name)
		}
	}
	return errors.Join(errs...)
}

// pod looks at what one deployment's pods name.
func (all manifests) pod(d *apps.Deployment, wrong func(string, ...any)) {
	spec := d.Spec.Template.Spec
	c := spec.Containers[0]
	if spec.ServiceAccountName != "default" && !slices.ContainsFunc(all.accounts, func(a *core.ServiceAccount) bool { return a.Name == spec.ServiceAccountName }) {
		wrong("%s runs as %s, which is not there", d.Name, spec.ServiceAccountName)
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap != nil && !slices.ContainsFunc(all.configs, func(m *core.ConfigMap) bool { return m.Name == v.ConfigMap.Name }) {
			wrong("%s mounts the ConfigMap %s, which is not there", d.Name, v.ConfigMap.Name)
		}
	}
	for _, m := range c.VolumeMounts {
		if !volumes[m.Name] {
			wrong("%s mounts %s, which is no volume of it", d.Name, m.Name)
		}
		delete(volumes, m.Name)
	}
	for v := range volumes {
		wrong("%s does not mount its volume %s", d.Name, v)
	}
	env := map[string]bool{}
	for _, e := range c.Env {
		if env[e.Name] {
			wrong("%s has %s twice in its environment", d.Name, e.Name)
		}
		env[e.Name] = true
		if name := strings.ToLower(e.Name); e.Value != "" && (strings.Contains(name, "token") || strings.Contains(name, "password") || strings.Contains(name, "url")) {
			wrong("%s has %s in plain sight", d.Name, e.Name)
		}
	}
	for _, config := range all.configs {
		for _, word := range strings.Fields(config.Data["config.yaml"]) {
			if name, ok := strings.CutPrefix(word, "env:"); ok && !env[name] {
				wrong("%s reads %s from the environment, which does not have it", d.Name, name)
			}
		}
	}
	for what, p := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		path := "/healthz"
		if what == "readiness" {
			path = "/readyz"
		}
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path || p.HTTPGet.Port.StrVal != c.Ports[0].Name {
			wrong("%s: its %s probe does not ask %s", d.Name, what, path)
		}
	}
}
