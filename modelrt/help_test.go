package modelrt

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chatxray/parts"
	"chatxray/pipeline"
)

// library finds ONNX Runtime for a test.
func library(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("CHATXRAY_ONNXRUNTIME"); p != "" {
		return p
	}
	p, err := parts.Path("onnxruntime")
	if err != nil {
		t.Skipf("ONNX Runtime absent: run `make parts`, or set CHATXRAY_ONNXRUNTIME to its shared library (%v)", err)
	}
	return p
}

// runtimeFor starts ONNX Runtime on the CPU.
func runtimeFor(t testing.TB) *Runtime {
	t.Helper()
	r, err := Start(library(t), CPU)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fixed is the clock of the tests.
func fixed() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

// notSaid labels nothing.
func notSaid([]string) []pipeline.Finding {
	found := make([]pipeline.Finding, len(pipeline.Labels))
	for i, l := range pipeline.Labels {
		found[i] = pipeline.Finding{Label: l, Presence: pipeline.NotSaid}
	}
	return found
}

// tinyOptions opens testdata/tiny.
func tinyOptions(t testing.TB) Options {
	return Options{
		Base:    func(context.Context, string) (string, error) { return "testdata/tiny.gguf", nil },
		Cache:   t.TempDir(),
		Threads: 1,
		Label:   notSaid,
		Now:     fixed,
	}
}

func openTiny(t testing.TB) *Model { return openTinyForm(t, "") }

func openTinyForm(t testing.TB, form string) *Model {
	t.Helper()
	o := tinyOptions(t)
	o.Form = form
	m, err := Open(context.Background(), runtimeFor(t), "testdata/tiny", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// tinyGolden is testdata/tiny.json: what transformers and PyTorch make of one picture.
type tinyGolden struct {
	Gray           []int       `json:"gray"`
	FindingsLogits []float64   `json:"findings_logits"`
	ImageFeatures  []float64   `json:"image_features"`
	ImageEmbeds    []float64   `json:"image_embeds"`
	Before         []int32     `json:"before"`
	After          []int32     `json:"after"`
	FirstLogits    []float64   `json:"first_logits"`
	Greedy         []int32     `json:"greedy"`
	Text           string      `json:"text"`
	Logprobs       [][]float64 `json:"logprobs"`
}

func tinyValues(t testing.TB) tinyGolden {
	t.Helper()
	b, err := os.ReadFile("testdata/tiny.json")
	if err != nil {
		t.Fatal(err)
	}
	var g tinyGolden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// picture makes an image of 8-bit gray values, dense = bright.
func picture(gray []uint8, rows, columns int) *pipeline.Image {
	lut := make([]float32, 256)
	for i := range lut {
		lut[i] = float32(i) / 255
	}
	return &pipeline.Image{
		Instance: &pipeline.Instance{
			StudyInstanceUID: "2.25.1", SeriesInstanceUID: "2.25.2", SOPInstanceUID: "2.25.3",
			SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1.1",
			Header: pipeline.Dataset{
				{Tag: pipeline.TagModality, VR: "CS", Text: []string{"DX"}},
				{Tag: pipeline.TagViewPosition, VR: "CS", Text: []string{"PA"}},
			},
		},
		Rows: rows, Columns: columns, Pix8: gray, LUT: lut, Bottom: rows, Right: columns,
	}
}

func (g tinyGolden) image() *pipeline.Image {
	gray := make([]uint8, len(g.Gray))
	for i, v := range g.Gray {
		gray[i] = uint8(v)
	}
	return picture(gray, 32, 32)
}

// copyBundle copies testdata/tiny for a test that spoils it.
func copyBundle(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "tiny"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// firstLogits are the logits after the prompt around an image, fed to slot 0 past the engine, which must have nothing to do.
func firstLogits(t testing.TB, m *Model, image []float32) []float32 {
	t.Helper()
	c := must(begin(context.Background()))
	defer c.end()
	var b batch
	said, err := m.compose(c, m.prompt.report, []*sight{m.usualSight(image)})
	if err != nil {
		t.Fatal(err)
	}
	b.add(0, 0, said.embeds, len(said.keys), said.places)
	b.want()
	if err := m.decoder.run(c, &b); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(b.logits)
}

// around are the tokens of a prompt before and after its image.
func around(p *placing) (before, after []int32) {
	for i, id := range p.ids {
		switch {
		case p.image[i] >= 0:
			after = nil
		case slices.Max(p.image[:i+1]) < 0:
			before = append(before, id)
		default:
			after = append(after, id)
		}
	}
	return before, after
}

// rows are the log-probabilities of an answer under its image, each decoy and the blank image.
func rows(t testing.TB, m *Model, a *answer) [][]float64 {
	t.Helper()
	others, _, err := m.scoreOthers(context.Background(), a.tokens)
	if err != nil {
		t.Fatal(err)
	}
	return append([][]float64{a.logprobs}, others...)
}
