package archive

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	// checkSpace is how many bytes of an upload may pass between two looks at the free space.
	checkSpace = 16 << 20
	// smallBlock is what an upload is written in at first. A slow client holds as much.
	smallBlock = 32 << 10
	// largeBlock is what an upload is written in that comes quickly.
	largeBlock = 1 << 20
	// largeBlocks bounds how many uploads have a large block at the same time; the others go on with small ones.
	largeBlocks = 16
	// proof is what has to come within quickly before an upload gets a large block; a large block that took longer is given back.
	proof   = 256 << 10
	quickly = time.Second
	// aligned is what offset, length and memory of a direct write are multiples of: a page, which the blocks of no disk exceed.
	aligned = 4 << 10
)

var (
	smallPool = sync.Pool{New: func() any { return new([smallBlock]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBlock + aligned]byte) }}
	largeFree = make(chan struct{}, largeBlocks)
)

// taking is an upload on its way to its file. What comes first, and whatever comes slowly, is written in small blocks through the page
// cache. An upload that comes quickly gets a large block, which goes to the disk as it is, past the page cache: there each byte would be
// copied once more and each page entered in lists, which costs more than to receive and to sum up together, and what is read often
// would have to make room. The header is looked at next, and is in the page cache.
type taking struct {
	f      *os.File
	direct *os.File // the same file past the page cache, or nil
	sum    hash.Hash
	size   int64
	large  *[largeBlock + aligned]byte // or nil
	cached bool                        // the page cache cannot be passed here
}

// take copies r to the file and sums it up. A write error that means a full disk wraps pipeline.ErrFull.
func (t *taking) take(ctx context.Context, r io.Reader, room func(int64) error) error {
	small := smallPool.Get().(*[smallBlock]byte)
	defer smallPool.Put(small)
	unchecked, came, since := int64(checkSpace), 0, time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if unchecked >= checkSpace {
			if err := room(0); err != nil {
				return err
			}
			unchecked = 0
		}
		block := small[:]
		if t.large != nil {
			block = t.large[-uintptr(unsafe.Pointer(t.large))%aligned:][:largeBlock]
		}
		n, rerr := t.fill(r, block)
		if err := t.write(block[:n]); err != nil {
			return fmt.Errorf("an upload cannot be written: %w", full(err))
		}
		unchecked += int64(n)
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
		if came += n; came >= proof {
			t.resize(time.Since(since) < quickly)
			came, since = 0, time.Now()
		}
	}
}

// resize gives the upload a large block, if there is one, or takes it back.
func (t *taking) resize(quick bool) {
	switch {
	case quick && t.large == nil:
		select {
		case largeFree <- struct{}{}:
			t.large = largePool.Get().(*[largeBlock + aligned]byte)
		default:
		}
	case !quick && t.large != nil:
		largePool.Put(t.large)
		t.large = nil
		<-largeFree
	}
}

// write appends to the file. What lies in a large block passes the page cache where the file system lets it; the bytes of the last page
// do not.
func (t *taking) write(b []byte) error {
	if n := len(b) &^ (aligned - 1); t.large != nil && n > 0 && t.size%aligned == 0 && t.passes() {
		_, err := t.direct.WriteAt(b[:n], t.size)
		switch {
		case err == nil:
			t.size, b = t.size+int64(n), b[n:]
		case errors.Is(err, syscall.EINVAL): // it wants another alignment
			t.cached = true
		default:
			return err
		}
	}
	n, err := t.f.WriteAt(b, t.size)
	t.size += int64(n)
	return err
}

// passes tells whether there is a way past the page cache.
func (t *taking) passes() bool {
	if t.direct == nil && !t.cached {
		var err error
		t.direct, err = os.OpenFile(t.f.Name(), os.O_WRONLY|directFlag, 0)
		t.cached = err != nil || directFlag == 0
	}
	return !t.cached
}

func (t *taking) close() error {
	t.resize(false)
	err := t.f.Close()
	if t.direct != nil {
		err = errors.Join(err, t.direct.Close())
	}
	return err
}

// fill reads until b is full: parts of a multipart body come in pieces of a few kilobytes, and a write of each would cost more than
// the rest. What has come is summed up at once, while it is in the processor's cache and more is on its way.
func (t *taking) fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		t.sum.Write(b[n : n+m])
		n += m
	}
	return n, err
}
