package modelrt

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chatxray/pipeline"
)

// BaseModel is the base model and the place where what is made of it is kept.
type BaseModel struct {
	Path  string // a GGUF file
	Cache string // a folder of ours; made when absent
	// Progress, when set, is called from time to time with the bytes of weights.bin that are done, from one goroutine.
	Progress func(done, total int64)
}

// recordName is the file beside weights.bin that says what it is.
const recordName = "weights.json"

type weightsRecord struct {
	SHA256 pipeline.Digest `json:"sha256"`
	Bytes  int64           `json:"bytes"`
}

// Prepare returns the bundle's own folder where its weights are its own. Else it returns a folder with weights.bin of a form and, beside it, the graphs that refer to it. It makes the folder of the base model where
// the cache does not have it yet: into a temporary folder that is renamed when all is on disk, so that a crash, a full disk or a
// cancelled ctx leaves nothing half made. Processes that need the same folder wait for each other.
//
// Errors: ErrMissingPart where the base model's file is not there, ErrInvalid where it is not the one the bundle was made for,
// ErrFull, or ctx's.
func (b *Bundle) Prepare(ctx context.Context, form *Form, base BaseModel) (dir string, err error) {
	name := "bundle " + b.Manifest.Name
	if b.Manifest.Base.Part == "" {
		return b.Dir, nil
	}
	f, err := os.Open(base.Path)
	if err != nil {
		return "", fmt.Errorf("%s: %w %s: %v", name, pipeline.ErrMissingPart, b.Manifest.Base.Part, err)
	}
	defer f.Close()
	key, err := b.weightsKey(f, form)
	if err != nil {
		return "", fmt.Errorf("%s: reading the base model: %w", name, err)
	}
	dir = filepath.Join(base.Cache, key)
	if b.prepared(dir, form) { // without a lock: the cache may be read-only
		return dir, nil
	}
	if err := os.MkdirAll(base.Cache, 0o755); err != nil {
		return "", fmt.Errorf("%s: the cache folder cannot be made: %w", name, err)
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return "", fmt.Errorf("%s: the cache cannot be locked: %w", name, err)
	}
	defer unlock()
	if b.prepared(dir, form) {
		return dir, nil
	}
	if err := b.make(ctx, f, form, dir, base.Progress); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: the weights need %d MB in %s; make room or set another cache folder: %v",
				pipeline.ErrFull, form.WeightsBytes>>20, base.Cache, err)
		}
		return "", fmt.Errorf("%s: making its weights: %w", name, err)
	}
	return dir, nil
}

// weightsKey names the folder by everything that its content depends on.
func (b *Bundle) weightsKey(base io.Reader, form *Form) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, base); err != nil {
		return "", err
	}
	m := b.Manifest
	sum := pipeline.Digest(h.Sum(nil))
	if want := m.Base.SHA256; want != "" && want != sum.String() {
		return "", fmt.Errorf("%w: it has the sha256 %s, the manifest says %s; it is not the one that the bundle was made for", pipeline.ErrInvalid, sum, want)
	}
	key := sha256.New()
	fmt.Fprintf(key, "weights 2 %s %s", form.Kind, sum)
	files := []string{form.Layout, form.Embed, form.Decoder}
	if form.Kind == KindGQA { // the LoRA is in the weights
		for _, name := range []string{loraConfig, loraTensors} {
			files = append(files, loraFolder+"/"+m.Base.Adapter+"/"+name)
		}
	}
	for _, name := range files {
		fmt.Fprintf(key, " %s", m.Files[name].SHA256)
	}
	return fmt.Sprintf("%x", key.Sum(nil)[:16]), nil
}

// prepared says whether dir is whole: a record of the wanted weights, weights of the right size, and the bundle's own graphs.
func (b *Bundle) prepared(dir string, form *Form) bool {
	raw, err := readBounded(filepath.Join(dir, recordName), maxManifest)
	if err != nil {
		return false
	}
	var r weightsRecord
	m := b.Manifest
	if json.Unmarshal(raw, &r) != nil || form.WeightsSHA256 != "" && form.WeightsSHA256 != r.SHA256.String() {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, weightsName))
	if err != nil || info.Size() != r.Bytes || r.Bytes != form.WeightsBytes {
		return false
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	for _, name := range []string{form.Embed, form.Decoder} {
		want := m.Files[name]
		if checkFile(root, name, want) != nil {
			return false
		}
	}
	return true
}

// make converts into a temporary folder beside dir and renames it. The caller holds the lock, so that leftovers of a crash can go.
func (b *Bundle) make(ctx context.Context, base *os.File, form *Form, dir string, progress func(done, total int64)) (err error) {
	const partial = ".partial"
	temp := dir + partial
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	if err := room(temp, form.WeightsBytes); err != nil {
		return err
	}
	c, err := b.conversion(base, form)
	if err != nil {
		return err
	}
	c.progress = progress
	out, err := os.Create(filepath.Join(temp, weightsName))
	if err != nil {
		return err
	}
	sum, err := c.write(ctx, out)
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if want := form.WeightsSHA256; want != "" && want != sum.String() {
		return fmt.Errorf("%w base model: it gives weights with the sha256 %s, the manifest says %s; it is not the one that the bundle was made for", pipeline.ErrInvalid, sum, want)
	}
	for _, name := range []string{form.Embed, form.Decoder} {
		graph, err := os.ReadFile(b.path(name))
		if err != nil {
			return err
		}
		if err := writeSynced(filepath.Join(temp, name), graph); err != nil {
			return err
		}
	}
	record, err := json.Marshal(weightsRecord{SHA256: sum, Bytes: form.WeightsBytes})
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(temp, recordName), record); err != nil {
		return err
	}
	if err := syncFolder(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

// room refuses at once where the disk cannot hold the weights. A file system that does not say is taken to have room.
func room(dir string, bytes int64) error {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return nil
	}
	if free := int64(s.Bavail) * int64(s.Bsize); free < bytes {
		return fmt.Errorf("%d MB are free: %w", free>>20, syscall.ENOSPC)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lock takes an advisory lock that ends with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
