package modelrt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatxray/pipeline"
)

func tinyBundle(t testing.TB) *Bundle {
	t.Helper()
	b, err := Verify("testdata/tiny")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// standard is the form whose weights have the LoRA in them.
func standard(t testing.TB, b *Bundle) *Form {
	t.Helper()
	return must(b.Manifest.form("standard", CPU))
}

// entries lists a folder without its lock files.
func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, e := range must(os.ReadDir(dir)) {
		if !strings.HasSuffix(e.Name(), ".lock") {
			names = append(names, e.Name())
		}
	}
	return names
}

// The weights of every form equal, byte for byte, what the Python side makes with gguf's own dequantisation: its sum is in the manifest.
func TestPrepareGolden(t *testing.T) {
	b := tinyBundle(t)
	cache := filepath.Join(t.TempDir(), "deep", "cache")
	for i := range b.Manifest.Base.Forms {
		form := &b.Manifest.Base.Forms[i]
		var last, total int64
		base := BaseModel{Path: "testdata/tiny.gguf", Cache: cache, Progress: func(d, n int64) {
			if d < last {
				t.Errorf("progress goes back from %d to %d", last, d)
			}
			last, total = d, n
		}}
		dir, err := b.Prepare(context.Background(), form, base)
		if err != nil {
			t.Fatal(err)
		}
		if sum := pipeline.Digest(sha256.Sum256(must(os.ReadFile(filepath.Join(dir, weightsName))))); sum.String() != form.WeightsSHA256 {
			t.Errorf("%s: weights have the sha256 %s, want %s", form.Name, sum, form.WeightsSHA256)
		}
		if last != total || total != form.WeightsBytes {
			t.Errorf("%s: progress ended at %d of %d", form.Name, last, total)
		}
		for _, name := range []string{form.Embed, form.Decoder} {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
		last = -1
		again, err := b.Prepare(context.Background(), form, base)
		if err != nil || again != dir {
			t.Errorf("%s, %v", again, err)
		}
		if last != -1 {
			t.Errorf("the weights of %s were made twice", form.Name)
		}
	}
}

// What does not fit is made again: weights cut short, another graph beside them, a record of other weights.
func TestPrepareRepairs(t *testing.T) {
	b := tinyBundle(t)
	base := BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}
	dir := must(b.Prepare(context.Background(), standard(t, b), base))
	want := must(os.ReadFile(filepath.Join(dir, weightsName)))
	for name, spoil := range map[string]func(){
		"weights cut short": func() { os.Truncate(filepath.Join(dir, weightsName), 100) },
		"another graph":     func() { put(t, dir, "decoder.onnx", []byte("x")) },
		"another record":    func() { put(t, dir, recordName, []byte(`{"sha256":"`+strings.Repeat("0", 64)+`","bytes":1}`)) },
		"no record":         func() { os.Remove(filepath.Join(dir, recordName)) },
		"leftovers of a crash": func() {
			os.RemoveAll(dir)
			os.Mkdir(dir+".partial", 0o755)
			put(t, dir+".partial", weightsName, []byte("half"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			if _, err := b.Prepare(context.Background(), standard(t, b), base); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, must(os.ReadFile(filepath.Join(dir, weightsName)))) || !b.prepared(dir, standard(t, b)) {
				t.Error("not repaired")
			}
			if names := entries(t, base.Cache); len(names) != 1 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
}

func TestPrepareFaults(t *testing.T) {
	gguf := must(os.ReadFile("testdata/tiny.gguf"))
	tests := []struct {
		name     string
		base     []byte
		manifest func(m *Manifest)
		sentinel error
		want     string
	}{
		{"no base model", nil, nil, pipeline.ErrMissingPart, "tiny-gguf"},
		{"not a GGUF file", []byte("hello, world, hello"), nil, pipeline.ErrInvalid, "does not begin with GGUF"},
		{"an empty file", []byte{}, nil, pipeline.ErrInvalid, "does not begin with GGUF"},
		{"cut within the header", gguf[:400], nil, pipeline.ErrInvalid, "GGUF"},
		{"cut within the tensors", gguf[:len(gguf)-3000], nil, pipeline.ErrInvalid, "ends after the file"},
		{"another base model", gguf, func(m *Manifest) { m.Decoder.Layers = 3 }, pipeline.ErrInvalid, "its llama.block_count is 2, the bundle's decoder wants 3"},
		{"other weights", bytes.Replace(gguf, gguf[len(gguf)-5000:len(gguf)-4990], make([]byte, 10), 1), nil, pipeline.ErrInvalid, "it is not the one that the bundle was made for"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tinyBundle(t)
			b.Manifest.Base.SHA256, b.Manifest.Base.Adapter = "", "" // the digest would refuse all of them before they are read
			if tt.manifest != nil {
				tt.manifest(b.Manifest)
			}
			base := BaseModel{Path: filepath.Join(t.TempDir(), "base.gguf"), Cache: t.TempDir()}
			if tt.base != nil {
				put(t, filepath.Dir(base.Path), "base.gguf", tt.base)
			}
			_, err := b.Prepare(context.Background(), standard(t, b), base)
			if !errors.Is(err, tt.sentinel) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if names := entries(t, base.Cache); len(names) != 0 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
}

func TestPrepareCancelled(t *testing.T) {
	b := tinyBundle(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("enough")
	base := BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir(), Progress: func(int64, int64) { cancel(stop) }}
	if _, err := b.Prepare(ctx, standard(t, b), base); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if names := entries(t, base.Cache); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	base.Progress = nil
	if _, err := b.Prepare(context.Background(), standard(t, b), base); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// full fails like a full disk after n bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

func TestFullDisk(t *testing.T) {
	b := tinyBundle(t)
	f := must(os.Open("testdata/tiny.gguf"))
	defer f.Close()
	c := must(b.conversion(f, standard(t, b)))
	if _, err := c.write(context.Background(), &full{left: 100_000}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}

	// A file system that is too small is refused before anything is written.
	standard(t, b).WeightsBytes = maxWeights
	standard(t, b).WeightsSHA256 = ""
	base := BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}
	_, err := b.Prepare(context.Background(), standard(t, b), base)
	if !errors.Is(err, pipeline.ErrFull) || !strings.Contains(err.Error(), base.Cache) {
		t.Errorf("%v", err)
	}
	if names := entries(t, base.Cache); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// Many at once make the weights once.
func TestPrepareTogether(t *testing.T) {
	b := tinyBundle(t)
	cache := t.TempDir()
	var made sync.Map
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			_, err := b.Prepare(context.Background(), standard(t, b), BaseModel{Path: "testdata/tiny.gguf", Cache: cache, Progress: func(d, n int64) { made.Store(i, true) }})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	n := 0
	made.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("made %d times", n)
	}
}

func TestLockHonoursContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock := must(lock(context.Background(), path))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	unlock()
	must(lock(context.Background(), path))()
}

func TestHalf(t *testing.T) {
	for h, want := range map[uint16]float32{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 5.9604645e-08, 0x03ff: 6.097555e-05, 0x0400: 6.1035156e-05, 0x3555: 0.33325195,
	} {
		if got := half(h); got != want {
			t.Errorf("half(%04x) = %v, want %v", h, got, want)
		}
	}
	if finite([]float32{half(0x7c00)}) || finite([]float32{half(0x7e00)}) {
		t.Error("infinity and NaN are finite")
	}
}

func FuzzGGUF(f *testing.F) {
	b := must(os.ReadFile("testdata/tiny.gguf"))
	f.Add(b[:4000])
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := openGGUF(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, pipeline.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		c := &conversion{base: g, headDim: 16}
		for name, v := range g.tensors {
			s := slot{Src: []string{name}, Shape: []int{int(v.columns), int(v.rows)}}
			if _, _, _, err := g.rows(name); err != nil || v.columns*v.rows > 1<<20 {
				continue
			}
			for op, o := range operations {
				if !o.joins {
					continue
				}
				if o.packed {
					s.Bytes = packings[op].form.Bytes(int(v.columns), int(v.rows))
				}
				if err := o.make(c, s, func([]byte) error { return nil }); err != nil && !errors.Is(err, pipeline.ErrInvalid) {
					t.Error(err)
				}
			}
		}
	})
}

// Every float16 comes back as it was; what lies between two goes to the nearer, in the middle to the even one; what is beyond is infinite.
func TestToHalf(t *testing.T) {
	for h := range uint32(0x7c00) {
		v, next := half(uint16(h)), half(uint16(h+1))
		middle := v + (next-v)/2
		if h == 0x7bff {
			middle = 65520
		}
		even := uint16(h + h&1)
		for value, want := range map[float32]uint16{v: uint16(h), math.Nextafter32(middle, 0): uint16(h), middle: even, math.Nextafter32(middle, 1e9): uint16(h + 1)} {
			if got := toHalf(value); got != want {
				t.Fatalf("%g is %#x, want %#x", value, got, want)
			}
			if got := toHalf(-value); got != want|0x8000 {
				t.Fatalf("%g is %#x, want %#x", -value, got, want|0x8000)
			}
		}
	}
	for value, want := range map[float32]uint16{float32(math.Inf(1)): 0x7c00, 1e9: 0x7c00, math.SmallestNonzeroFloat32: 0} {
		if got := toHalf(value); got != want {
			t.Errorf("%g is %#x, want %#x", value, got, want)
		}
	}
	if nan := float32(math.NaN()); toHalf(nan)&0x7c00 != 0x7c00 || toHalf(nan)&0x3ff == 0 || toBrain(nan)&0x7f80 != 0x7f80 || toBrain(nan)&0x7f == 0 {
		t.Error("no number became one")
	}
	for value, want := range map[float32]uint16{1: 0x3f80, 1 + 1.0/256: 0x3f80, 1 + 3.0/256: 0x3f82, 1 + 1.1/256: 0x3f81, -2: 0xc000, math.MaxFloat32: 0x7f80} {
		if got := toBrain(value); got != want {
			t.Errorf("%g is %#x, want %#x", value, got, want)
		}
	}
}
