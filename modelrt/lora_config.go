package modelrt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// loraSettings is what adapter_config.json says.
type loraSettings struct {
	rank         int
	alpha        float64
	root         bool // the scale is alpha / sqrt(rank)
	ranks        map[string]int
	alphas       map[string]float64
	targets      []string
	pattern      *regexp.Regexp // of targets, where they are given so; nil and no targets is all
	met          map[string]bool
	matchedNames map[string]*regexp.Regexp
}

// What of adapter_config.json changes nothing here. Keys that are not listed may be there with a value that means no.
var idleLoRAKeys = []string{
	"auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern",
	"layers_to_transform", "loftq_config", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}

// parseLoRAConfig reads adapter_config.json. base_sha256 is ours: peft passes over it.
func parseLoRAConfig(b []byte, base pipeline.Digest) (*loraSettings, []error) {
	var faults []error
	bad := func(sentinel error, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: %s: %s", sentinel, loraConfig, fmt.Sprintf(format, a...)))
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		bad(pipeline.ErrInvalid, "%v", err)
		return nil, faults
	}
	s := &loraSettings{met: map[string]bool{}, matchedNames: map[string]*regexp.Regexp{}}
	kind, bias, digest := "", "none", ""
	for _, k := range []struct {
		key      string
		into     any
		required bool
	}{
		{"peft_type", &kind, true}, {"r", &s.rank, true}, {"lora_alpha", &s.alpha, true}, {"use_rslora", &s.root, false}, {"rank_pattern", &s.ranks, false},
		{"alpha_pattern", &s.alphas, false}, {"bias", &bias, false}, {"base_sha256", &digest, true},
	} {
		raw, there := given[k.key]
		delete(given, k.key)
		if !there && k.required {
			bad(pipeline.ErrInvalid, "has no %s", k.key)
		} else if there {
			if err := json.Unmarshal(raw, k.into); err != nil {
				bad(pipeline.ErrInvalid, "%s: %v", k.key, err)
			}
		}
	}
	if kind != "" && kind != "LORA" {
		bad(pipeline.ErrUnsupported, "peft_type is %q; LORA is read", kind)
	}
	if bias != "none" {
		bad(pipeline.ErrUnsupported, "bias is %q; none is read", bias)
	}
	if digest != "" && digest != base.String() {
		bad(pipeline.ErrInvalid, "it was made for the base model with the sha256 %s, this bundle's has %s", digest, base)
	}
	if s.rank < 1 || s.rank > maxRank || math.IsNaN(s.alpha) || math.IsInf(s.alpha, 0) {
		bad(pipeline.ErrInvalid, "r is %d and lora_alpha %v; a rank is from 1 to %d", s.rank, s.alpha, maxRank)
	}
	for _, patterns := range [][]string{slices.Sorted(maps.Keys(s.ranks)), slices.Sorted(maps.Keys(s.alphas))} {
		for _, p := range patterns {
			r, err := regexp.Compile(`^(?:.*\.)?(?:` + p + `)$`)
			if err != nil {
				bad(pipeline.ErrUnsupported, "the pattern %q: %v", p, err)
				continue
			}
			s.matchedNames[p] = r
		}
	}
	if err := s.readTargets(given["target_modules"]); err != nil {
		bad(pipeline.ErrInvalid, "target_modules: %v", err)
	}
	delete(given, "target_modules")
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(idleLoRAKeys, key) && !slices.Contains([]string{"null", "false", "0", `""`, "[]", "{}"}, string(given[key])) {
			bad(pipeline.ErrUnsupported, "%s is %.40s, which this program does not know how to do", key, given[key])
		}
	}
	return s, faults
}

// readTargets reads a list of names, or an expression.
func (s *loraSettings) readTargets(raw json.RawMessage) error {
	var expression string
	if json.Unmarshal(raw, &expression) == nil && expression != "" {
		if expression == "all-linear" {
			return nil
		}
		var err error
		s.pattern, err = regexp.Compile(`^(?:` + expression + `)$`)
		return err
	}
	if err := json.Unmarshal(raw, &s.targets); err != nil || len(s.targets) == 0 {
		return errors.New("is neither a list of names nor an expression")
	}
	return nil
}

func (s *loraSettings) targeted(module string) bool {
	for _, t := range s.targets {
		if module == t || strings.HasSuffix(module, "."+t) {
			s.met[t] = true
			return true
		}
	}
	return s.targets == nil && (s.pattern == nil || s.pattern.MatchString(module))
}

// unmet are the targets that no tensor was for.
func (s *loraSettings) unmet() []string {
	return slices.DeleteFunc(slices.Sorted(slices.Values(s.targets)), func(t string) bool { return s.met[t] })
}

// of returns what a pattern of peft says about a module, as peft finds it: the first key that its name ends with.
func of[V any](s *loraSettings, patterns map[string]V, module string, otherwise V) V {
	for _, p := range slices.Sorted(maps.Keys(patterns)) {
		if r := s.matchedNames[p]; r != nil && r.MatchString(module) {
			return patterns[p]
		}
	}
	return otherwise
}

func (s *loraSettings) rankOf(module string) int { return of(s, s.ranks, module, s.rank) }

func (s *loraSettings) scaleOf(module string) float32 {
	rank := float64(max(s.rankOf(module), 1))
	if s.root {
		rank = math.Sqrt(rank)
	}
	return float32(of(s, s.alphas, module, s.alpha) / rank)
}
