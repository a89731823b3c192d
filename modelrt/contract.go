package modelrt

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// port is an input or output as the manifest wants it. A dimension is a size, or open where runs give it different sizes.
type port struct {
	element int
	dims    []int64
}

const open = -1

func newContract(file string, inputs, outputs map[string]port) graphContract {
	return graphContract{file: file, inputs: inputs, outputs: outputs}
}

// graphContract is what the manifest wants of one graph.
type graphContract struct {
	file            string
	inputs, outputs map[string]port
	places          bool // of LoRAs are inputs that the graph may have, float32 [?]
}

func size(n int) int64 { return int64(n) }

func floatPort(dims ...int64) port { return port{elementFloat32, dims} }

// imageContract gives the borders of the vision graph and the adapter (docs/bundle.md, "Graphs").
func (m *Manifest) imageContract() []graphContract {
	d, v, floats := m.Decoder, m.Vision, floatPort
	if !m.sighted() {
		return nil
	}
	if m.bySize() {
		return m.patchContract()
	}
	vision := newContract(m.Graphs.Vision,
		map[string]port{"pixel_values": floats(open, size(m.Preprocess.Channels), size(m.Preprocess.Height), size(m.Preprocess.Width))},
		map[string]port{"image_features": floats(open, size(v.FeatureTokens), size(v.FeatureDim))})
	if len(v.Findings) > 0 {
		vision.outputs["findings_logits"] = floats(open, size(len(v.Findings)))
	}
	if len(v.Views) > 0 {
		vision.outputs["view_logits"] = floats(open, size(len(v.Views)))
	}
	adapter := newContract(m.Graphs.Adapter,
		map[string]port{"image_features": floats(open, size(v.FeatureTokens), size(v.FeatureDim))},
		map[string]port{"image_embeds": floats(open, size(v.ImageTokens), size(d.Hidden))})
	return []graphContract{vision, adapter}
}

// patchContract is for images of any size: N and T follow from it.
func (m *Manifest) patchContract() (graphs []graphContract) {
	d, v, floats := m.Decoder, m.Vision, floatPort
	if m.Graphs.Vision != "" {
		in := map[string]port{"patches": floats(open, size(v.PatchDim)), "at": {elementInt64, []int64{open, 2}}}
		if v.Window > 0 {
			in["window"] = port{elementInt64, []int64{open}}
		}
		graphs = append(graphs, newContract(m.Graphs.Vision, in, map[string]port{"image_features": floats(1, open, size(v.FeatureDim))}))
	}
	return append(graphs, newContract(m.Graphs.Adapter,
		map[string]port{"image_features": floats(1, open, size(v.FeatureDim))},
		map[string]port{"image_embeds": floats(1, open, size(d.Hidden))}))
}

// languageContract gives the borders of the graphs of a form.
func (m *Manifest) languageContract(form *Form) []graphContract {
	if form.Kind == KindFlat {
		return m.flatContract(form)
	}
	d, floats := m.Decoder, floatPort
	embed := newContract(form.Embed,
		map[string]port{"input_ids": {elementInt64, []int64{open, open}}},
		map[string]port{"inputs_embeds": floats(open, open, size(d.Hidden))})
	decoder := newContract(form.Decoder,
		map[string]port{
			"inputs_embeds":  floats(open, open, size(d.Hidden)),
			"seqlens_k":      {elementInt32, []int64{open}},
			"total_seq":      {elementInt32, []int64{1}},
			"logits_indices": {elementInt64, []int64{open}},
		},
		map[string]port{"logits": floats(open, open, size(d.Vocab))})
	cache := port{int(elements[form.Precision]), []int64{open, size(d.KVHeads), open, size(d.HeadDim)}}
	for l := range d.Layers {
		for _, c := range []string{"k", "v"} {
			decoder.inputs["past_"+c+strconv.Itoa(l)] = cache
			decoder.outputs["present_"+c+strconv.Itoa(l)] = cache
		}
	}
	return []graphContract{embed, decoder}
}

// flatContract: tokens of any texts in one row. Products that take a LoRA have two more inputs, named after the product's matrices.
func (m *Manifest) flatContract(form *Form) []graphContract {
	d, floats := m.Decoder, floatPort
	embed := newContract(form.Embed, map[string]port{"input_ids": {elementInt64, []int64{open}}},
		map[string]port{"inputs_embeds": floats(open, size(d.Hidden))})
	places := port{elementInt32, []int64{open}}
	decoder := newContract(form.Decoder, map[string]port{
		"inputs_embeds": floats(open, size(d.Hidden)),
		"slot":          places, "at": places, "upto": places,
		"logits_indices": {elementInt64, []int64{open}},
	}, map[string]port{"logits": floats(open, size(d.Vocab))})
	if d.Positions == positionsAbsolute {
		decoder.inputs["positions"] = port{elementInt64, []int64{open}}
	} else {
		decoder.inputs["cos"], decoder.inputs["sin"] = floats(open, size(d.rotary()/2)), floats(open, size(d.rotary()/2))
	}
	if d.RopeThetaLocal > 0 {
		decoder.inputs["cos_local"], decoder.inputs["sin_local"] = decoder.inputs["cos"], decoder.inputs["sin"]
	}
	for l := range d.Layers {
		for _, c := range []string{"keys", "values"} {
			dim := d.HeadDim
			if c == "values" {
				dim = (dim + kernel.KeyBlock - 1) / kernel.KeyBlock * kernel.KeyBlock
			}
			decoder.inputs[c+strconv.Itoa(l)] = floats(open, size(d.KVHeads), open, size(dim))
		}
	}
	decoder.places = true
	return []graphContract{embed, decoder}
}

// faults compares a graph with its contract. Its external data may be in the file called weights, of so many bytes.
func (c graphContract) faults(s *signature, weights string, bytes int64) (faults []error) {
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: %s: %s", pipeline.ErrInvalid, c.file, fmt.Sprintf(format, a...)))
	}
	compare := func(kind string, want map[string]port, got map[string]tensorType) {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			t, ok := got[name]
			if !ok {
				fault("%s %s is missing", kind, name)
			} else if p := want[name]; !p.admits(t) {
				fault("%s %s is %s, the manifest wants %s", kind, name, t, p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(got)) {
			if _, ok := want[name]; !ok && !(kind == "input" && c.places && s.placed(name) && floatPort(open).admits(got[name])) {
				fault("%s %s is not of the bundle format", kind, name)
			}
		}
	}
	compare("input", c.inputs, s.inputs)
	compare("output", c.outputs, s.outputs)
	for _, d := range s.outside {
		if d.location != weights {
			fault("initializer %s is kept in %q; only %s is allowed", d.name, d.location, weights)
		} else if d.offset < 0 || d.length < 0 || d.offset > bytes || d.length > bytes-d.offset {
			fault("initializer %s lies outside the %d bytes of %s", d.name, bytes, weights)
		}
	}
	return faults
}

// placed says whether an input belongs to the place of a LoRA.
func (s *signature) placed(input string) bool {
	for _, side := range []string{loraA, loraB} {
		if name, ok := strings.CutPrefix(input, side); ok {
			_, there := s.places[name]
			return there
		}
	}
	return false
}

// admits says whether a declared type can carry the port. A dimension that the graph leaves open carries any size.
func (p port) admits(t tensorType) bool {
	if t.element != p.element || !t.ranked || len(t.dims) != len(p.dims) {
		return false
	}
	for i, want := range p.dims {
		if t.dims[i] != open && t.dims[i] != want {
			return false
		}
	}
	return true
}

func (p port) String() string { return shapeText(p.element, p.dims) }

func (t tensorType) String() string {
	if !t.ranked {
		return shapeText(t.element, nil) + " of unknown rank"
	}
	return shapeText(t.element, t.dims)
}

func shapeText(element int, dims []int64) string {
	name, ok := map[int]string{elementFloat32: "float32", elementInt32: "int32", elementInt64: "int64",
		int(kernel.Float16): "float16", int(kernel.BFloat16): "bfloat16"}[element]
	if !ok {
		name = fmt.Sprintf("element type %d", element)
	}
	text := make([]string, len(dims))
	for i, d := range dims {
		text[i] = strconv.FormatInt(d, 10)
		if d == open {
			text[i] = "?"
		}
	}
	return name + " [" + strings.Join(text, ", ") + "]"
}
