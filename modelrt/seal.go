package modelrt

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"chatxray/pipeline"
)

// writeQuantized writes what else the new bundle is.
func (b *Bundle) writeQuantized(source *Form, to string, digest pipeline.Digest, out string) error {
	m := map[string]json.RawMessage{}
	raw, err := readBounded(b.path(manifestName), maxManifest)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for name := range b.Manifest.Files {
		if strings.HasSuffix(name, ".onnx") && name != b.Manifest.Graphs.Vision && name != b.Manifest.Graphs.Adapter || name == weightsName || strings.HasPrefix(name, "layout.") {
			continue
		}
		if err := copyFile(b.path(name), filepath.Join(out, filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	set := func(key string, v any) {
		m[key], _ = json.Marshal(v) // plain values
	}
	set("name", b.Manifest.Name+"-"+to)
	set("base", map[string]any{"sha256": digest, "adapter": b.Manifest.Base.Adapter,
		"forms": []map[string]any{{"name": to, "kind": KindFlat, "embed": source.Embed, "decoder": source.Decoder}}})
	if raw, err = json.Marshal(m); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(out, manifestName), raw); err != nil {
		return err
	}
	return Seal(out)
}

// Seal writes the sizes and sums of the files in a bundle's folder into its manifest.
func Seal(dir string) error {
	raw, err := readBounded(filepath.Join(dir, manifestName), maxManifest)
	if err != nil {
		return err
	}
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	files := map[string]File{}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == manifestName {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		name, _ := filepath.Rel(dir, path) // both are of the same folder
		files[filepath.ToSlash(name)] = File{SHA256: pipeline.Digest(h.Sum(nil)), Bytes: n}
		return err
	})
	if err != nil {
		return err
	}
	if m["files"], err = json.Marshal(files); err != nil {
		return err
	}
	if raw, err = json.MarshalIndent(m, "", " "); err != nil {
		return err
	}
	return writeSynced(filepath.Join(dir, manifestName), append(raw, '\n'))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return writeSynced(to, b)
}
