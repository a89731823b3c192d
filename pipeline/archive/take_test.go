package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// pausing gives zeros slowly.
type pausing struct{ left int }

const pauses = 3*largeBlock + 5

func (p *pausing) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Second)
	for len(largeIdle) < cap(largeIdle) {
		largeIdle <- mapLarge() // so that the block given back is unmapped: a read of it after that ends the process
	}
	n := min(len(b), 32<<10, p.left)
	clear(b[:n])
	p.left -= n
	return n, nil
}

// TestTake: whatever the length and the pieces that it comes in, past the page cache or through it, what is in the file is what came, and
// no large block stays away.
func TestTake(t *testing.T) {
	all := make([]byte, proof+3*largeBlock+aligned+1)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(all); i++ {
		all[i] = byte(r.Uint32())
	}
	taken := func(t *testing.T, r io.Reader, cached bool) ([]byte, *taking, error) {
		t.Helper()
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		got := &taking{f: f, sum: sha256.New(), cached: cached}
		err = errors.Join(got.take(context.Background(), r, func(int64) error { return nil }), got.close())
		b, rerr := os.ReadFile(f.Name())
		if rerr != nil {
			t.Fatal(rerr)
		}
		if n := len(largeFree); n != 0 {
			t.Errorf("%d large blocks are still taken", n)
		}
		return b, got, err
	}
	readers := map[string]func([]byte) io.Reader{
		"whole":        func(b []byte) io.Reader { return bytes.NewReader(b) },
		"halves":       func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) },
		"with the end": func(b []byte) io.Reader { return iotest.DataErrReader(bytes.NewReader(b)) },
	}
	for _, size := range []int{0, 1, smallBlock, proof - 1, proof, proof + 1, proof + aligned, proof + largeBlock - 1, proof + largeBlock, proof + largeBlock + aligned + 7, len(all)} {
		for name, reader := range readers {
			for _, cached := range []bool{false, true} {
				b, got, err := taken(t, reader(all[:size]), cached)
				if err != nil || !bytes.Equal(b, all[:size]) {
					t.Fatalf("%s, %d bytes: %d came, or others: %v", name, size, len(b), err)
				}
				if want := sha256.Sum256(b); int64(size) != got.size || !bytes.Equal(got.sum.Sum(nil), want[:]) {
					t.Errorf("%s, %d bytes: the size is %d, or the sum another one", name, size, got.size)
				}
				if past := got.direct != nil; past != (!cached && size >= proof+aligned) && !got.cached {
					t.Errorf("%s, %d bytes: past the page cache: %v", name, size, past)
				}
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // a client that is quick, slow and quick again gives its block back and gets another one
		for _, at := range []int{proof + aligned + 1, proof + largeBlock + 77} {
			slow := io.MultiReader(bytes.NewReader(all[:at]), &pausing{left: pauses}, bytes.NewReader(all[at:]))
			b, got, err := taken(t, slow, false)
			if want := append(append(bytes.Clone(all[:at]), make([]byte, pauses)...), all[at:]...); err != nil || !bytes.Equal(b, want) || got.size != int64(len(want)) {
				t.Errorf("slow after %d bytes: %d of %d came, or others: %v", at, len(b), len(want), err)
			}
		}
	})
	broken := errors.New("broken")
	if _, _, err := taken(t, io.MultiReader(bytes.NewReader(all), iotest.ErrReader(broken)), false); !errors.Is(err, broken) {
		t.Error(err)
	}
	// Where all large blocks are taken, an upload goes on with small ones.
	for range largeBlocks {
		select {
		case largeFree <- struct{}{}:
		default:
			t.Fatal("a large block has not been given back")
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	got := taking{f: f, sum: sha256.New()}
	err = got.take(context.Background(), bytes.NewReader(all), func(int64) error { return nil })
	for range largeBlocks {
		<-largeFree
	}
	if b, rerr := os.ReadFile(f.Name()); err != nil || rerr != nil || got.large != nil || !bytes.Equal(b, all) {
		t.Error(err, rerr, len(b))
	}
	if err := got.close(); err != nil {
		t.Error(err)
	}
}
