package modelrt

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"chatxray/modelrt/token"
	"chatxray/pipeline"
)

// faults checks everything in m that can be checked without its files.
func (m *Manifest) faults() (faults []error) {
	fault := func(sentinel error, key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w %s: %s", sentinel, key, fmt.Sprintf(format, a...)))
	}
	said := func(key, value string) {
		if strings.TrimSpace(value) == "" {
			fault(pipeline.ErrInvalid, key, "is empty")
		}
	}
	within := func(key string, n, most int) {
		if n < 1 || n > most {
			fault(pipeline.ErrInvalid, key, "%d is not from 1 to %d", n, most)
		}
	}
	one := func(key, value string, words ...string) {
		if !slices.Contains(words, value) {
			fault(pipeline.ErrUnsupported, key, "%q is not known to this program; it knows %s", value, strings.TrimSuffix(strings.Join(words, ", "), ", "))
		}
	}
	listed := func(key, name string) {
		if name == "" {
			fault(pipeline.ErrInvalid, key, "names no file")
		} else if _, ok := m.Files[name]; !ok {
			fault(pipeline.ErrInvalid, key, "%q is not in files", name)
		}
	}

	one("kind", m.Kind, "", KindRemote)
	if m.Remote != nil {
		fault(pipeline.ErrInvalid, "remote", "is for bundles of the kind %s", KindRemote)
	}
	faults = append(faults, m.statementFaults()...)
	if err := m.Preprocess.Validate(); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, m.familyFaults()...)
	faults = append(faults, m.languageFaults()...)
	own := m.Base.Part == ""

	graphs := map[string]string{}
	graphFile := func(key, name string) {
		listed(key, name)
		if other, twice := graphs[name]; twice && name != "" {
			fault(pipeline.ErrInvalid, key, "is the same file as %s", other)
		}
		graphs[name] = key
		if strings.Contains(name, "/") {
			fault(pipeline.ErrInvalid, key, "%q is in a folder; graphs stand beside the manifest", name)
		}
	}
	for _, g := range []struct{ key, name string }{
		{"graphs.vision", m.Graphs.Vision}, {"graphs.adapter", m.Graphs.Adapter},
	} {
		if absent := !m.sighted() || m.bySize() && g.key == "graphs.vision"; !absent || g.name != "" {
			graphFile(g.key, g.name)
		}
	}
	if len(m.Base.Forms) == 0 || len(m.Base.Forms) > maxForms {
		fault(pipeline.ErrInvalid, "base.forms", "%d forms: 1 to %d are read", len(m.Base.Forms), maxForms)
	}
	forms := map[string]bool{}
	for _, f := range m.Base.Forms {
		key := "base.forms " + f.Name
		said("base.forms.name", f.Name)
		if forms[f.Name] {
			fault(pipeline.ErrInvalid, key, "stands there twice")
		}
		forms[f.Name] = true
		one(key+": kind", f.Kind, KindFlat, KindGQA)
		if one(key+": precision", f.Precision, precisionFloat32, precisionFloat16, precisionBFloat16, ""); f.halved() && f.Kind != KindGQA {
			fault(pipeline.ErrInvalid, key+": precision", "is for forms of the kind %s", KindGQA)
		}
		graphFile(key+": embed", f.Embed)
		graphFile(key+": decoder", f.Decoder)
		if own && (f.Layout != "" || f.WeightsBytes != 0 || f.WeightsSHA256 != "") {
			fault(pipeline.ErrInvalid, key, "has a layout that is for weights made of a base model, and there is no base.part")
		}
		if f.Kind == KindGQA && (or(m.Decoder.Positions, positionsRope) != positionsRope || or(m.Decoder.Mask, maskCausal) != maskCausal) {
			fault(pipeline.ErrUnsupported, key+": kind", "%s knows plain positions and masks only", KindGQA)
		}
		if !own {
			listed(key+": layout", f.Layout)
		}
		if s := f.WeightsSHA256; s != "" {
			var d pipeline.Digest
			if err := d.UnmarshalText([]byte(s)); err != nil {
				fault(pipeline.ErrInvalid, key+": weights_sha256", "%v", err)
			}
		}
		if f.Kind == KindFlat && m.Decoder.Positions != positionsAbsolute && !(m.Decoder.RopeTheta >= 1 && m.Decoder.RopeTheta <= 1e12) {
			fault(pipeline.ErrInvalid, "decoder.rope_theta", "%v is not from 1 to 1e12", m.Decoder.RopeTheta)
		}
		if !own && f.WeightsBytes < 1 || f.WeightsBytes > maxWeights {
			fault(pipeline.ErrInvalid, key+": weights_bytes", "%d is out of range", f.WeightsBytes)
		}
	}
	for name, f := range m.Files {
		if !localFile(name) || filepath.Base(name) == weightsName && !(own && name == weightsName) {
			fault(pipeline.ErrInvalid, "files", "%q is no file of the folder that a manifest may name", name)
		}
		if f.Bytes < 0 || f.Bytes > maxWeights {
			fault(pipeline.ErrInvalid, "files", "%q has %d bytes", name, f.Bytes)
		}
		if strings.HasSuffix(name, ".onnx") && graphs[name] == "" {
			fault(pipeline.ErrInvalid, "files", "%q is a graph that graphs does not name", name)
		}
	}

	if m.sighted() {
		within("vision.feature_tokens", m.Vision.FeatureTokens, maxTokens)
		within("vision.feature_dim", m.Vision.FeatureDim, maxWidth)
		within("vision.image_tokens", m.Vision.ImageTokens, maxTokens)
	}
	faults = append(faults, labelFaults("vision.findings", m.Vision.Findings)...)
	views := map[string]bool{}
	for _, v := range m.Vision.Views {
		if v == "" || len(v) > maxWord || views[v] {
			fault(pipeline.ErrInvalid, "vision.views", "%q is empty, longer than %d bytes or stands there twice", v, maxWord)
		}
		views[v] = true
	}
	if n := len(m.Vision.Views); n > 0 && (n == 1 || n > maxViews || !views[frontal]) {
		fault(pipeline.ErrInvalid, "vision.views", "%d views: wanted are 2 to %d, %q among them", n, maxViews, frontal)
	}
	if n := len(m.Vision.Thresholds); n != 0 && n != len(m.Vision.Findings) {
		fault(pipeline.ErrInvalid, "vision.thresholds", "%d values for %d findings", n, len(m.Vision.Findings))
	}
	for _, t := range m.Vision.Thresholds {
		if !(t > 0 && t < 1) {
			fault(pipeline.ErrInvalid, "vision.thresholds", "%v is not between 0 and 1", t)
		}
	}

	within("decoder.layers", m.Decoder.Layers, maxLayers)
	within("decoder.heads", m.Decoder.Heads, maxWidth)
	within("decoder.kv_heads", m.Decoder.KVHeads, maxWidth)
	within("decoder.head_dim", m.Decoder.HeadDim, maxWidth)
	within("decoder.hidden", m.Decoder.Hidden, maxWidth)
	within("decoder.vocab", m.Decoder.Vocab, maxVocabulary)
	within("decoder.max_length", m.Decoder.MaxLength, maxTokens)
	if m.Decoder.KVHeads > 0 && m.Decoder.Heads%m.Decoder.KVHeads != 0 {
		fault(pipeline.ErrInvalid, "decoder.heads", "%d is no multiple of kv_heads %d", m.Decoder.Heads, m.Decoder.KVHeads)
	}
	product := func(key, what string, most int64, factors ...int) {
		n := int64(1)
		for _, f := range factors {
			if f > 0 && n > most/int64(f) {
				fault(pipeline.ErrInvalid, key, "%s would be larger than %d values", what, most)
				return
			}
			n *= int64(f)
		}
	}
	product("vision.feature_dim", "the features of an image", maxFeatures, m.Vision.FeatureTokens, m.Vision.FeatureDim)
	product("decoder.hidden", "the embeddings of a prompt", maxFeatures, m.Decoder.MaxLength, m.Decoder.Hidden)
	product("decoder.max_length", "the KV cache", maxCache, 2, m.Decoder.Layers, m.Decoder.KVHeads, m.Decoder.HeadDim, m.Decoder.MaxLength)

	if s := m.Base.SHA256; s != "" {
		var d pipeline.Digest
		if err := d.UnmarshalText([]byte(s)); err != nil {
			fault(pipeline.ErrInvalid, "base.sha256", "%v", err)
		}
	}
	if a := m.Base.Adapter; a != "" {
		if !wordName.MatchString(a) {
			fault(pipeline.ErrInvalid, "base.adapter", "%q is no name of letters, digits, dots, hyphens and underscores", a)
		}
		for _, name := range []string{loraConfig, loraTensors} {
			listed("base.adapter", loraFolder+"/"+a+"/"+name)
		}
	}

	one("tokenizer.type", m.Tokenizer.Type, token.Kinds()...)
	listed("tokenizer.file", m.Tokenizer.File)
	if m.Structured.Schema != "" {
		listed("structured.schema", m.Structured.Schema)
	}
	if len(m.Generation.StopTokens) == 0 {
		fault(pipeline.ErrInvalid, "generation.stop_tokens", "is empty: the model could not end its report")
	}
	if m.sighted() {
		listed("evidence.decoys", m.Evidence.Decoys)
	}
	if c := m.Evidence.Calibration; c != nil {
		for _, what := range c.faults() {
			fault(pipeline.ErrInvalid, "evidence.calibration", "%s", what)
		}
	}
	if m.Prompt.ChatTemplate != "" {
		listed("prompt.chat_template", m.Prompt.ChatTemplate)
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// CanRead says why Read would be refused, whatever the image.
func (m *Manifest) CanRead() error {
	if m.Kind == KindRemote && m.Remote.Images == 0 || m.Kind != KindRemote && !m.sighted() {
		return fmt.Errorf("%w: the model of bundle %s reads text and takes no images", pipeline.ErrUnsupported, m.Name)
	}
	return nil
}

// localFile tells whether a manifest may name a file so: in the folder, and not the manifest itself.
func localFile(name string) bool {
	return filepath.IsLocal(filepath.FromSlash(name)) && !strings.ContainsAny(name, `\:`) && name != manifestName
}
