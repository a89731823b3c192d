package modelrt

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
)

func TestVerify(t *testing.T) {
	b, err := Verify("testdata/tiny")
	if err != nil {
		t.Fatal(err)
	}
	if b.Digest != sha256.Sum256(tinyManifest(t)) {
		t.Errorf("digest %s", b.Digest)
	}
}

// relist writes a manifest with changes and with the sums that the files of dir really have.
func relist(t *testing.T, dir string, changes map[string]any) {
	t.Helper()
	if changes == nil {
		changes = map[string]any{}
	}
	for _, name := range must(fs.Glob(os.DirFS(dir), "*")) {
		relisted(t, dir, name, changes)
	}
	for _, name := range must(fs.Glob(os.DirFS(dir), "adapters/report/*")) {
		relisted(t, dir, name, changes)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), edited(t, changes), 0o644); err != nil {
		t.Fatal(err)
	}
}

func relisted(t *testing.T, dir, name string, changes map[string]any) {
	t.Helper()
	if info := must(os.Stat(filepath.Join(dir, name))); info.Mode().IsRegular() && name != manifestName {
		data := must(os.ReadFile(filepath.Join(dir, name)))
		changes["files/"+strings.ReplaceAll(name, "/", "~1")] = map[string]any{"sha256": pipeline.Digest(sha256.Sum256(data)).String(), "bytes": len(data)}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func put(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFaults(t *testing.T) {
	tests := []struct {
		name     string
		spoil    func(t *testing.T, dir string)
		sentinel error
		want     []string
	}{
		{"no folder", func(t *testing.T, dir string) { os.RemoveAll(dir) }, pipeline.ErrNotFound, []string{"it has no manifest.json"}},
		{"missing graph and a wrong hash together", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "adapter.onnx"))
			b := must(os.ReadFile(filepath.Join(dir, "vision.onnx")))
			b[100] ^= 1
			put(t, dir, "vision.onnx", b)
		}, pipeline.ErrNotFound, []string{"adapter.onnx is missing", "vision.onnx has the sha256", "bundle tiny: "}},
		{"a wrong size", func(t *testing.T, dir string) { put(t, dir, "README.md", []byte("short")) }, pipeline.ErrInvalid, []string{"README.md has 5 bytes"}},
		{"an extra graph", func(t *testing.T, dir string) { put(t, dir, "more.onnx", nil) }, pipeline.ErrInvalid, []string{"more.onnx is not in the manifest"}},
		{"a link out of the folder", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "README.md"))
			if err := os.Symlink("/etc/hostname", filepath.Join(dir, "README.md")); err != nil {
				t.Fatal(err)
			}
		}, pipeline.ErrInvalid, []string{"README.md cannot be opened"}},
		{"a folder in a file's place", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "README.md"))
			os.Mkdir(filepath.Join(dir, "README.md"), 0o755)
		}, pipeline.ErrInvalid, []string{"no regular file"}},
		{"shapes that the graphs do not have, all of them told", func(t *testing.T, dir string) {
			relist(t, dir, map[string]any{"vision/feature_dim": 17, "decoder/layers": 3, "decoder/vocab": 400, "vision/findings": []string{}})
		}, pipeline.ErrInvalid, []string{
			"vision.onnx: output image_features is float32 [?, 17, 16], the manifest wants float32 [?, 17, 17]",
			"vision.onnx: output findings_logits is not of the bundle format",
			"adapter.onnx: input image_features", "decoder.standard.onnx: input past_k2 is missing", "decoder.standard.onnx: output present_v2 is missing",
			"decoder.standard.onnx: output logits is float32 [?, ?, 352], the manifest wants float32 [?, ?, 400]", "decoys.safetensors",
		}},
		{"graphs in each other's place", func(t *testing.T, dir string) {
			relist(t, dir, map[string]any{"graphs/vision": "adapter.onnx", "graphs/adapter": "vision.onnx"})
		}, pipeline.ErrInvalid, []string{"adapter.onnx: input pixel_values is missing", "adapter.onnx: input image_features is not of the bundle format"}},
		{"no ONNX at all", func(t *testing.T, dir string) {
			put(t, dir, "embed.standard.onnx", []byte("hello"))
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{"embed.standard.onnx: invalid: no ONNX model"}},
		{"external data elsewhere", func(t *testing.T, dir string) {
			b := must(os.ReadFile(filepath.Join(dir, "embed.standard.onnx")))
			put(t, dir, "embed.standard.onnx", bytes.Replace(b, []byte("weights.bin"), []byte("/etc/passwd"), 1))
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{`is kept in "/etc/passwd"`}},
		{"weights shorter than the graphs want", func(t *testing.T, dir string) {
			m := must(ParseManifest(must(os.ReadFile(filepath.Join(dir, manifestName)))))
			standard(t, &Bundle{Manifest: m}).WeightsBytes = 5000
			relist(t, dir, map[string]any{"base/forms": m.Base.Forms})
		}, pipeline.ErrInvalid, []string{"lies outside the 5000 bytes of weights.bin", "layout.standard.json.gz"}},
		{"a layout with an unknown operation", func(t *testing.T, dir string) {
			putLayout(t, dir, func(s []slot) { s[0].Op = "magic" })
		}, pipeline.ErrUnsupported, []string{`operation "magic"`}},
		{"a layout out of order", func(t *testing.T, dir string) {
			putLayout(t, dir, func(s []slot) { s[1].Offset = 0 })
		}, pipeline.ErrInvalid, []string{"layout.standard.json.gz: invalid layout"}},
		{"a stop token that the tokenizer lacks", func(t *testing.T, dir string) {
			relist(t, dir, map[string]any{"generation/stop_tokens": []string{"<|stop|>"}})
		}, pipeline.ErrInvalid, []string{`no stop token "<|stop|>"`}},
		{"a prompt longer than the decoder", func(t *testing.T, dir string) {
			relist(t, dir, map[string]any{"decoder/max_length": 12})
		}, pipeline.ErrInvalid, []string{"decoder.max_length 12"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyBundle(t)
			tt.spoil(t, dir)
			_, err := Verify(dir)
			if !errors.Is(err, tt.sentinel) {
				t.Fatalf("%v, want it to wrap %q", err, tt.sentinel)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func putLayout(t *testing.T, dir string, edit func([]slot)) {
	t.Helper()
	slots := must(readLayout("testdata/tiny/layout.standard.json.gz", tinyWeights(t)))
	edit(slots)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if err := json.NewEncoder(z).Encode(slots); err != nil {
		t.Fatal(err)
	}
	z.Close()
	put(t, dir, "layout.standard.json.gz", out.Bytes())
	relist(t, dir, nil)
}

func tinyWeights(t testing.TB) int64 {
	return must(must(ParseManifest(tinyManifest(t))).form("standard", CPU)).WeightsBytes
}

func FuzzSignature(f *testing.F) {
	for _, name := range []string{"embed.standard", "decoder.standard", "decoder.q4", "vision"} {
		f.Add(must(os.ReadFile("testdata/tiny/" + name + ".onnx")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSignature(b); err == nil {
			for _, c := range borders(must(ParseManifest(tinyManifest(t))), standard(t, tinyBundle(t))) {
				c.faults(s, weightsName, 100)
			}
		}
	})
}

func FuzzTensors(f *testing.F) {
	f.Add(must(os.ReadFile("testdata/tiny/decoys.safetensors")))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tensors, err := parseTensors(b)
		if err != nil {
			return
		}
		for name, v := range tensors {
			if !fills(v.shape, uint64(len(v.values))) {
				t.Errorf("%s: %v with %d values", name, v.shape, len(v.values))
			}
		}
	})
}

func FuzzLayout(f *testing.F) {
	f.Add([]byte(`[{"op":"f32","src":["a"],"offset":0,"bytes":8,"dtype":"float32","shape":[2]}]`), int64(8))
	f.Fuzz(func(t *testing.T, b []byte, weights int64) {
		slots, err := parseLayout(b, weights)
		if err != nil {
			return
		}
		end := int64(0)
		for _, s := range slots {
			if s.Offset < end || s.Bytes < 0 {
				t.Fatalf("%+v after %d", s, end)
			}
			end = s.Offset + s.Bytes
		}
	})
}

func borders(m *Manifest, f *Form) []graphContract {
	return append(m.imageContract(), m.languageContract(f)...)
}
