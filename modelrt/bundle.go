package modelrt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"chatxray/pipeline"
)

// Bundle is a model bundle: a folder with a manifest.
type Bundle struct {
	Dir      string
	Manifest *Manifest
	Digest   pipeline.Digest // of manifest.json
}

// OpenBundle reads the manifest of the bundle in dir, and nothing else of it.
// Errors: ErrNotFound where there is no manifest, else those of ParseManifest.
func OpenBundle(dir string) (*Bundle, error) {
	b, faults := readBundle(dir)
	if err := faults.all(); err != nil {
		return nil, err
	}
	return b, nil
}

// readBundle is OpenBundle that also returns what can be read of a bundle whose manifest has faults; nil where that is nothing.
func readBundle(dir string) (*Bundle, manifestFaults) {
	told := func(err error) (*Bundle, manifestFaults) { return nil, manifestFaults{wrong: []error{err}} }
	b, err := readBounded(filepath.Join(dir, manifestName), maxManifest)
	if errors.Is(err, syscall.ENOTDIR) {
		return told(fmt.Errorf("%w: %s is a file; a bundle is a folder, unpack archives yourself", pipeline.ErrInvalid, dir))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return told(fmt.Errorf("%w: no model bundle in %s: it has no %s", pipeline.ErrNotFound, dir, manifestName))
	}
	if err != nil {
		return told(fmt.Errorf("bundle %s: %w", dir, err))
	}
	m, faults := readManifest(b)
	faults.each(func(err error) error { return fmt.Errorf("bundle %s: %w", dir, err) })
	if m == nil {
		return nil, faults
	}
	return &Bundle{Dir: dir, Manifest: m, Digest: sha256.Sum256(b)}, faults
}

// Verify opens the bundle in dir and checks all of it without running a model: every file's size and sha256, no graph that is
// missing or not named, the inputs and outputs of every graph, the tensors' places in weights.bin, the adapters, the shapes of the decoys,
// and the tokenizer. All faults are in the error, a sentence each: of what a file holds where the file is as the manifest says, and the manifest has
// nothing wrong but keys that it should not have.
func Verify(dir string) (*Bundle, error) {
	b, faults := readBundle(dir)
	if b == nil {
		return nil, faults.all()
	}
	if err := errors.Join(faults.all(), b.verify(len(faults.wrong) == 0)); err != nil {
		return nil, err
	}
	return b, nil
}

// verify checks the files, and what they hold where the manifest can be counted on.
func (b *Bundle) verify(sound bool) error {
	bad, faults := b.fileFaults()
	whole := func(names ...string) bool { return !slices.ContainsFunc(names, func(n string) bool { return bad[n] }) }
	switch {
	case !sound:
	case b.Manifest.Kind == KindRemote:
		if whole(b.Manifest.Remote.Decoys...) {
			if _, err := b.remoteDecoys(); err != nil {
				faults = append(faults, err)
			}
		}
	default:
		faults = append(faults, b.contentFaults(whole)...)
	}
	for i, f := range faults {
		faults[i] = fmt.Errorf("bundle %s: %w", b.Manifest.Name, f)
	}
	return errors.Join(faults...)
}

// path returns where a file of the bundle is. The manifest's check made sure that name stays in the folder.
func (b *Bundle) path(name string) string { return filepath.Join(b.Dir, filepath.FromSlash(name)) }

// fileFaults checks sizes and sums, and says which files are bad. Files are opened through os.Root, so that no link leads out of the folder.
func (b *Bundle) fileFaults() (bad map[string]bool, faults []error) {
	bad = map[string]bool{}
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return bad, []error{err}
	}
	defer root.Close()
	for _, name := range slices.Sorted(maps.Keys(b.Manifest.Files)) {
		if err := checkFile(root, name, b.Manifest.Files[name]); err != nil {
			bad[name] = true
			faults = append(faults, err)
		}
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, listed := b.Manifest.Files[path]; !listed && !e.IsDir() && strings.HasSuffix(path, ".onnx") {
			faults = append(faults, fmt.Errorf("%w: graph %s is not in the manifest; remove it or name it", pipeline.ErrInvalid, path))
		}
		return nil
	})
	if err != nil {
		faults = append(faults, err)
	}
	return bad, faults
}

func checkFile(root *os.Root, name string, want File) error {
	f, err := root.Open(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing; fetch or export the bundle again", pipeline.ErrNotFound, name)
	}
	if err != nil {
		return fmt.Errorf("%w: %s cannot be opened: %v", pipeline.ErrInvalid, name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no regular file", pipeline.ErrInvalid, name)
	}
	if info.Size() != want.Bytes {
		return fmt.Errorf("%w: %s has %d bytes, the manifest says %d; fetch or export the bundle again", pipeline.ErrInvalid, name, info.Size(), want.Bytes)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if sum := pipeline.Digest(h.Sum(nil)); sum != want.SHA256 {
		return fmt.Errorf("%w: %s has the sha256 %s, the manifest says %s; fetch or export the bundle again", pipeline.ErrInvalid, name, sum, want.SHA256)
	}
	return nil
}

// contentFaults checks what those files hold that are whole: of the size and sum that the manifest says.
func (b *Bundle) contentFaults(whole func(names ...string) bool) (faults []error) {
	m := b.Manifest
	compare := func(g graphContract, weights string, bytes int64) {
		if !whole(g.file) {
			return
		}
		s, err := readSignature(b.path(g.file))
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", g.file, err))
			return
		}
		faults = append(faults, g.faults(s, weights, bytes)...)
	}
	for _, g := range m.imageContract() {
		compare(g, imageWeightsName, m.Files[imageWeightsName].Bytes)
	}
	var loras []*lora
	fit := !slices.ContainsFunc(slices.Collect(maps.Keys(m.Files)), func(name string) bool { return strings.HasPrefix(name, loraFolder+"/") && !whole(name) })
	if fit {
		var unread []error
		loras, unread = b.loras("")
		faults, fit = append(faults, unread...), len(unread) == 0
	}
	for i := range m.Base.Forms {
		form := &m.Base.Forms[i]
		laid, weights := whole(form.Layout), form.WeightsBytes
		if laid {
			var err error
			if _, weights, err = b.weights(form); err != nil {
				laid, faults = false, append(faults, fmt.Errorf("%s: %w", form.Layout, err))
			}
		}
		for _, g := range m.languageContract(form) {
			compare(g, weightsName, weights)
		}
		if fit && laid && whole(form.Decoder) {
			faults = append(faults, b.unfit(loras, form)...)
		}
	}
	if m.sighted() && whole(m.Evidence.Decoys) {
		if _, err := b.decoys(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", m.Evidence.Decoys, err))
		}
	}
	if whole(m.Tokenizer.File, m.Prompt.ChatTemplate) {
		if _, err := b.prompt(); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// weights returns the layout of a form's weights.bin and its size. The bundle's own weights have no layout.
func (b *Bundle) weights(form *Form) ([]slot, int64, error) {
	if b.Manifest.Base.Part == "" {
		return nil, b.Manifest.Files[weightsName].Bytes, nil
	}
	layout, err := readLayout(b.path(form.Layout), form.WeightsBytes)
	return layout, form.WeightsBytes, err
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s is larger than %d bytes", pipeline.ErrInvalid, filepath.Base(path), limit)
	}
	return b, err
}
