package modelrt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// family is what one kind of vision-language model does in its own way around the same decoder. A family is a file; it says what a
// manifest of it may hold, and how its prompts lie.
type family struct {
	splices   []string // values of prompt.splice
	positions string   // the value of decoder.positions
	mask      string   // the value of decoder.mask
	input     string   // the value of vision.input
	// lay changes positions and sight of a prompt in which every place is at itself and sees what is before it; nil where that is right.
	// first holds the number of each image's first embedding.
	lay func(p *placing, images []raster, first []int32)
	// patches cuts an image's tensor; nil for families that take it whole.
	patches func(m *Manifest, pixels []float32, width, height int) *patches
}

// patches are an image for a graph that takes any size.
type patches struct {
	values []float32 // each patch's numbers
	at     []int64   // row and column of each
	window []int64   // which window of the vision graph each is in, where vision.window asks for it
	grid   raster    // of the embeddings that the adapter makes of them
}

var families = map[string]family{}

func registerFamily(name string, f family) {
	if _, twice := families[name]; twice {
		panic("modelrt: family " + name + " is registered twice")
	}
	families[name] = f
}

// The words of the manifest that families are told apart by.
const (
	positionsRope     = "rope-1d"
	positionsMrope    = "mrope-3d"
	positionsGLM      = "glm-2d"
	positionsAbsolute = "absolute"
	maskCausal        = "causal"
	maskPrefix        = "prefix"
	maskImage         = "image-bidirectional"
	inputImage        = "image"
	inputPatches      = "patches"
	inputNone         = "none"
	spliceSentinel    = "replace_sentinel"
	splicePads        = "overwrite_pads"
	splicePrepend     = "prepend"
	spliceRows        = "rows_with_newline"
)

// maxFrames is how often a patch may hold its part of the picture: models of videos want a still one twice.
const maxFrames = 4

// defaultFamily is that of manifests without the key.
const defaultFamily = "llava"

func or(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

// family returns the manifest's family. Its name was checked.
func (m *Manifest) family() family { return families[or(m.Family, defaultFamily)] }

// sighted says whether the model takes images.
func (m *Manifest) sighted() bool { return or(m.Vision.Input, inputImage) != inputNone }

// bySize says whether the number of an image's embeddings depends on its size.
func (m *Manifest) bySize() bool { return m.Vision.Input == inputPatches }

// familyFaults checks what of a manifest its family decides.
func (m *Manifest) familyFaults() (faults []error) {
	fault := func(sentinel error, key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w %s: %s", sentinel, key, fmt.Sprintf(format, a...)))
	}
	name := or(m.Family, defaultFamily)
	f, ok := families[name]
	if !ok {
		fault(pipeline.ErrUnsupported, "family", "%q is not known to this program; it knows %s", name, strings.Join(slices.Sorted(maps.Keys(families)), ", "))
		return faults
	}
	one := func(key, value string, words ...string) {
		if !slices.Contains(words, value) {
			fault(pipeline.ErrUnsupported, key, "%q is not known to this program for the family %s; it knows %s", value, name, strings.Join(words, ", "))
		}
	}
	one("prompt.splice", m.Prompt.Splice, f.splices...)
	one("decoder.positions", or(m.Decoder.Positions, positionsRope), f.positions)
	one("decoder.mask", or(m.Decoder.Mask, maskCausal), f.mask)
	one("vision.input", or(m.Vision.Input, inputImage), f.input)
	if b := m.Boxes; b.Syntax != "" {
		if boxSyntaxes[b.Syntax] == nil {
			fault(pipeline.ErrUnsupported, "boxes.syntax", "%q is not known to this program; it knows %s", b.Syntax, strings.Join(slices.Sorted(maps.Keys(boxSyntaxes)), ", "))
		}
		if b.Range < 1 || b.Range >= 100_000 {
			fault(pipeline.ErrInvalid, "boxes.range", "%d is not from 1 to 99999", b.Range)
		}
	}
	switch p := m.Prompt; {
	case f.input == inputNone || p.Splice == splicePrepend:
		if p.Sentinel != "" {
			fault(pipeline.ErrInvalid, "prompt.sentinel", "stands for nothing in this family")
		}
	case strings.TrimSpace(p.Sentinel) == "":
		fault(pipeline.ErrInvalid, "prompt.sentinel", "is empty")
	}
	switch p := m.Prompt; {
	case p.Template != "" && p.Instruction != "":
		fault(pipeline.ErrInvalid, "prompt.instruction", "stands beside prompt.template: a report has one prompt")
	case p.Instruction != "" && p.ChatTemplate == "":
		fault(pipeline.ErrInvalid, "prompt.instruction", "needs prompt.chat_template around it")
	case p.Images < 0 || p.Images > maxImages || p.Images > 0 && f.input == inputNone || p.Images > 1 && p.Splice == splicePrepend:
		fault(pipeline.ErrInvalid, "prompt.images", "%d is not from 0 to %d, or more than this family can tell apart", p.Images, maxImages)
	}
	if p := m.Prompt; (p.Splice == splicePads || p.Splice == spliceRows) && p.ImageToken == "" {
		fault(pipeline.ErrInvalid, "prompt.image_token", "is empty")
	}
	if p := m.Prompt; (p.Splice == spliceRows) != (p.RowEnd != "") {
		fault(pipeline.ErrInvalid, "prompt.row_end", "belongs to the splice %s and to no other", spliceRows)
	}
	if w := m.Vision.Window; w < 0 || w > maxSide || w > 0 && f.input != inputPatches {
		fault(pipeline.ErrInvalid, "vision.window", "%d is out of range, or the vision graph takes no patches", w)
	}
	if d := m.Decoder; d.Rotary < 0 || d.Rotary > d.HeadDim || d.Rotary%2 != 0 {
		fault(pipeline.ErrInvalid, "decoder.rotary", "%d is no even number from 0 to head_dim", d.Rotary)
	}
	if d := m.Decoder; f.positions == positionsMrope {
		sum := 0
		for _, s := range d.RopeSections {
			sum += max(s, 0)
		}
		if len(d.RopeSections) != 3 || 2*sum != d.rotary() || slices.Min(d.RopeSections) < 0 {
			fault(pipeline.ErrInvalid, "decoder.rope_sections", "%v are no three parts of the %d pairs of a head", d.RopeSections, d.rotary()/2)
		}
	} else if len(d.RopeSections) > 0 {
		fault(pipeline.ErrInvalid, "decoder.rope_sections", "belong to the positions %s", positionsMrope)
	}
	for _, r := range []struct {
		key   string
		value float64
	}{{"rope_theta_local", m.Decoder.RopeThetaLocal}, {"rope_factor", m.Decoder.RopeFactor}} {
		if r.value != 0 && !(r.value >= 1 && r.value <= 1e12) {
			fault(pipeline.ErrInvalid, "decoder."+r.key, "%v is not from 1 to 1e12", r.value)
		}
	}
	if f.input == inputPatches {
		if p := m.Preprocess; p.Patch < 1 || m.Vision.PatchDim < 1 || m.Vision.PatchDim > maxWidth || p.Fit != "keep" && p.Fit != "area" {
			fault(pipeline.ErrInvalid, "preprocess", "the family %s wants patch, vision.patch_dim and the fit keep or area", name)
		} else if v := m.Vision.PatchDim; v%(p.Channels*p.Patch*p.Patch) != 0 || v > maxFrames*p.Channels*p.Patch*p.Patch {
			fault(pipeline.ErrInvalid, "vision.patch_dim", "%d numbers are no patch of %d×%d in %d channels", v, p.Patch, p.Patch, p.Channels)
		}
		if v := m.Vision; len(v.Findings)+len(v.Views) > 0 {
			fault(pipeline.ErrUnsupported, "vision.findings", "a vision graph of patches has no findings and no views")
		}
	} else if p := m.Preprocess; p.Fit == "keep" || p.Fit == "area" {
		fault(pipeline.ErrUnsupported, "preprocess.fit", "%q makes tensors of any size; the vision graph of the family %s takes one size", p.Fit, name)
	}
	return faults
}
