package modelrt

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// KindRemote is a bundle that points at an endpoint: it has no graph and no tokenizer.
const KindRemote = "remote"

// remoteFaults is faults for the kind remote.
func (m *Manifest) remoteFaults() (faults []error) {
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w %s: %s", pipeline.ErrInvalid, key, fmt.Sprintf(format, a...)))
	}
	for _, k := range []struct {
		key   string
		value any
	}{
		{"family", m.Family}, {"graphs", m.Graphs}, {"vision", m.Vision}, {"decoder", m.Decoder}, {"base", m.Base}, {"tokenizer", m.Tokenizer},
		{"prompt", m.Prompt}, {"prompts", m.Prompts}, {"structured", m.Structured}, {"evidence", m.Evidence}, {"boxes", m.Boxes}, {"generation.stop_tokens", m.Generation.StopTokens},
	} {
		if !reflect.ValueOf(k.value).IsZero() {
			fault(k.key, "is for models that run here; one of the kind %s has it at its endpoint", KindRemote)
		}
	}
	faults = append(faults, m.statementFaults()...)
	for _, l := range m.Languages {
		if _, err := guard.ScriptsFor(l); err != nil {
			fault("languages", "%v", err)
		}
	}
	if m.Remote == nil {
		fault("remote", "is missing")
		return faults
	}
	faults = append(faults, m.Remote.Faults()...)
	if m.Remote.Images > 0 {
		if err := m.Preprocess.Validate(); err != nil {
			faults = append(faults, err)
		}
	} else if !reflect.ValueOf(m.Preprocess).IsZero() {
		fault("preprocess", "is about images, and remote.images is 0")
	}
	decoys := map[string]bool{}
	for _, name := range m.Remote.Decoys {
		if f, ok := m.Files[name]; !ok {
			fault("remote.decoys", "%q is not in files", name)
		} else if f.Bytes > maxDecoyFile {
			fault("remote.decoys", "%q has more than %d bytes", name, maxDecoyFile)
		}
		decoys[name] = true
	}
	if len(m.Remote.Decoys) > maxDecoys {
		fault("remote.decoys", "%d files: up to %d are read", len(m.Remote.Decoys), maxDecoys)
	}
	for name, f := range m.Files {
		if !decoys[name] && strings.HasSuffix(name, ".onnx") || !localFile(name) || f.Bytes < 0 {
			fault("files", "%q is no file of the folder that a manifest of the kind %s may name", name, KindRemote)
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// statementFaults checks what bundles of every kind state.
func (m *Manifest) statementFaults() (faults []error) {
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w %s: %s", pipeline.ErrInvalid, key, fmt.Sprintf(format, a...)))
	}
	said := func(key, value string) {
		if strings.TrimSpace(value) == "" {
			fault(key, "is empty")
		}
	}
	said("name", m.Name)
	said("revision", m.Revision)
	said("license", m.License)
	said("intended_use", m.IntendedUse)
	said("training_data", m.TrainingData)
	if len(m.Languages) == 0 {
		fault("languages", "is empty")
	}
	for _, l := range m.Languages {
		said("languages", l)
	}
	if n := m.Patients.MinAgeYears; n < 0 || n > 120 {
		fault("patients.min_age_years", "%d is not from 0 to 120", n)
	}
	if n := m.Generation.MaxNewTokens; n < 1 || n > maxTokens {
		fault("generation.max_new_tokens", "%d is not from 1 to %d", n, maxTokens)
	}
	for _, s := range m.Generation.StopStrings {
		if s == "" {
			fault("generation.stop_strings", "holds an empty string")
		}
	}
	if len(m.Labels) == 0 {
		fault("labels", "is empty")
	}
	return append(faults, labelFaults("labels", m.Labels)...)
}

// labelFaults checks a list of labels of the closed list.
func labelFaults(key string, list []string) (faults []error) {
	for i, l := range list {
		if !slices.Contains(pipeline.Labels, l) {
			faults = append(faults, fmt.Errorf("%w %s: %q is none of the closed list", pipeline.ErrInvalid, key, l))
		}
		if slices.Contains(list[:i], l) {
			faults = append(faults, fmt.Errorf("%w %s: %q stands there twice", pipeline.ErrInvalid, key, l))
		}
	}
	return faults
}
