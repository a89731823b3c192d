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
)

const (
	// checkSpace is how many bytes of an upload may pass between two looks at the free space.
	checkSpace = 16 << 20
	// smallBlock is what an upload is written in at first. A slow client holds as much.
	smallBlock = 32 << 10
	// largeBlock is what an upload is written in that comes quickly: one huge page.
	largeBlock = 2 << 20
	// largeBlocks bounds how many uploads have a large block at the same time; the others go on with small ones.
	largeBlocks = 16
	// spare is how much of a large block may stay free, so that no read into it is for little.
	spare = 256 << 10
	// proof is what has to come within quickly before an upload gets a large block; one that comes more slowly gives it back.
	proof   = 128 << 10
	quickly = time.Second / 2
	// aligned is what offset, length and memory of a direct write are multiples of: a page, which the blocks of no disk exceed.
	aligned = 4 << 10
)

var (
	smallPool = sync.Pool{New: func() any { return new([smallBlock]byte) }}
	largeFree = make(chan struct{}, largeBlocks)
	largeIdle = make(chan *mapped, 2) // blocks that wait for the next upload; others are given back to the system
)

// taking is an upload on its way to its file. What comes first, and whatever comes slowly, is written in small blocks through the page
// cache. An upload that comes quickly gets a large block, which goes to the disk as it is, past the page cache: there each byte would be
// copied once more and each page entered in lists, which costs more than to receive and to sum up together, and what is read often
// would have to make room. The header is looked at next, and is in the page cache.
type taking struct {
	f      *os.File
	direct *os.File // the same file past the page cache, or nil
	sum    hash.Hash
	size   int64   // what is in the file
	large  *mapped // or nil
	cached bool    // the page cache cannot be passed here
}

// take copies r to the file and sums it up. A write error that means a full disk wraps pipeline.ErrFull.
func (t *taking) take(ctx context.Context, r io.Reader, room func(int64) error) error {
	small := smallPool.Get().(*[smallBlock]byte)
	defer smallPool.Put(small)
	block, held := small[:], 0 // of the block, summed up and not yet written
	unchecked, came, since := checkSpace, 0, time.Now()
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
		n, rerr := t.fill(r, block, held)
		written, err := t.write(block[:n], rerr != nil)
		if err != nil {
			return fmt.Errorf("an upload cannot be written: %w", full(err))
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
		unchecked, came = unchecked+n-held, came+n-held
		held = copy(small[:], block[written:n]) // less than a page, out of a block that may be another upload's soon
		if came >= proof {
			t.resize(time.Since(since) < quickly/proof*time.Duration(came))
			came, since = 0, time.Now()
		}
		block = small[:]
		if t.large != nil {
			block = t.large.block
			copy(block, small[:held])
		}
	}
}

// resize gives the upload a large block, if there is one, or takes it back.
func (t *taking) resize(quick bool) {
	switch {
	case quick && t.large == nil:
		select {
		case largeFree <- struct{}{}:
			select {
			case t.large = <-largeIdle:
			default:
				t.large = mapLarge()
			}
		default:
		}
	case !quick && t.large != nil:
		select {
		case largeIdle <- t.large:
		default:
			t.large.unmap()
		}
		t.large = nil
		<-largeFree
	}
}

// write appends to the file and returns how much of b it has taken. What lies in a large block passes the page cache where the file system
// lets it; the bytes of its last page do not, and wait for more unless they are the last ones.
func (t *taking) write(b []byte, last bool) (n int, err error) {
	if whole := len(b) &^ (aligned - 1); t.large != nil && whole > 0 && t.size%aligned == 0 && t.passes() {
		_, err := t.direct.WriteAt(b[:whole], t.size)
		switch {
		case err == nil:
			n, t.size = whole, t.size+int64(whole)
		case errors.Is(err, syscall.EINVAL): // it wants another alignment
			t.cached = true
		default:
			return 0, err
		}
		if err == nil && !last {
			return n, nil
		}
	}
	m, err := t.f.WriteAt(b[n:], t.size)
	t.size += int64(m)
	return n + m, err
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

// fill reads into b behind its first n bytes until it is full, a large one nearly so, and returns how many there are then: parts of a
// multipart body come in pieces of a few kilobytes, and a write of each would cost more than the rest. What has come is summed up at once,
// while it is in the processor's cache and more is on its way.
func (t *taking) fill(r io.Reader, b []byte, n int) (int, error) {
	end := len(b)
	if t.large != nil {
		end -= spare
	}
	for n < end {
		m, err := r.Read(b[n:])
		t.sum.Write(b[n : n+m])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
