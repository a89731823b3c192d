package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"chatxray/pipeline"
)

// Content is what a file says beside its pixels.
type Content interface {
	// Header is every attribute but those of Left.
	Header() pipeline.Dataset
	// Left lists what the header leaves out.
	Left() []pipeline.Bulk
	// Value opens a binary value by its path, words in little endian, valid until Close; pipeline.ErrUnsupported for fragments.
	Value(path string) (io.ReadSeeker, error)
}

// Pixels are the frames of a file.
type Pixels interface {
	// Frames tells how many there are; pipeline.ErrNotImage for a file without any.
	Frames() (int, error)
	// Frame returns one, from 0, as a transfer syntax has it; "" is the stored one. actual names the syntax.
	Frame(ctx context.Context, frame int, syntaxUID string) (data []byte, actual string, err error)
	// Render makes a picture of one: *image.RGBA, *image.Gray, or one that is gray and has the methods Row(y int, into []uint8)
	// and Close.
	Render(ctx context.Context, frame int, v pipeline.View) (image.Image, error)
}

// Object is an open file of the archive. It is for one goroutine.
type Object interface {
	Content
	Pixels
	// Transcode prepares the file for another transfer syntax; actual names the one that it will have.
	Transcode(ctx context.Context, syntaxUID string) (file io.WriterTo, actual string, err error)
	// Weight is about how many bytes of memory it takes until Close.
	Weight() int64
	Close() error
}

// gate lets as many frames be converted at the same time as there are processors, and bounds what waits for that, what is held in memory
// for clients to fetch, and how many answers convert as they go. What is beyond is told to come again.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64
	held    atomic.Int64 // bytes
	streams atomic.Int64
}

const (
	gateQueue    = 64 // for each slot
	gateStreams  = 16 // for each slot
	gatePatience = 30 * time.Second
	gateHeld     = 512 << 20
)

func newGate() *gate { return &gate{slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))} }

var errGate = fmt.Errorf("%w: too much is being converted or made at the moment", pipeline.ErrBusy)

// enter waits for a slot. The error wraps pipeline.ErrBusy, or is that of ctx.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	if n := g.waiting.Add(1); n > int64(gateQueue*cap(g.slots)) {
		g.waiting.Add(-1)
		return nil, errGate
	}
	defer g.waiting.Add(-1)
	patience := time.NewTimer(gatePatience)
	defer patience.Stop()
	select {
	case g.slots <- struct{}{}:
		return sync.OnceFunc(func() { <-g.slots }), nil
	case <-patience.C:
		return nil, errGate
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hold counts bytes that lie in memory until a client has fetched them.
func (g *gate) hold(n int) (release func(), err error) {
	if g.held.Add(int64(n)) > gateHeld && n < gateHeld {
		g.held.Add(-int64(n))
		return nil, errGate
	}
	return func() { g.held.Add(-int64(n)) }, nil
}

// yielding is the writer of an answer that is converted as it goes: while the client is written to, another one has the slot.
type yielding struct {
	g     *gate
	ctx   context.Context
	w     io.Writer
	leave func()
}

// yield counts a stream and takes its first slot.
func (g *gate) yield(ctx context.Context) (*yielding, error) {
	if g.streams.Add(1) > int64(gateStreams*cap(g.slots)) {
		g.streams.Add(-1)
		return nil, errGate
	}
	leave, err := g.enter(ctx)
	if err != nil {
		g.streams.Add(-1)
		return nil, err
	}
	return &yielding{g: g, ctx: ctx, leave: leave}, nil
}

func (y *yielding) close() {
	y.leave()
	y.g.streams.Add(-1)
}

// Write implements io.Writer.
func (y *yielding) Write(p []byte) (int, error) {
	y.leave()
	n, err := y.w.Write(p)
	if err != nil {
		return n, err
	}
	select { // with the patience of the client
	case y.g.slots <- struct{}{}:
		y.leave = sync.OnceFunc(func() { <-y.g.slots })
		return n, nil
	case <-y.ctx.Done():
		return n, y.ctx.Err()
	}
}

// open opens the file of an instance.
func (s *server) open(in *pipeline.Instance) (Object, error) {
	o, err := s.Object(in)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errGone(in)
	case err != nil:
		return nil, fmt.Errorf("instance %s: %w", in.SOPInstanceUID, err)
	}
	if n := o.Weight(); n > heavy {
		release, err := s.gate.hold(int(n))
		if err != nil {
			o.Close()
			return nil, err
		}
		return heavyObject{o, release}, nil
	}
	return o, nil
}

// heavy is from when on the memory of an open file counts.
const heavy = 1 << 20

type heavyObject struct {
	Object
	release func()
}

// Close implements Object.
func (o heavyObject) Close() error {
	defer o.release()
	return o.Object.Close()
}

func errGone(in *pipeline.Instance) error {
	return fmt.Errorf("%w: the file of instance %s is gone from the archive", pipeline.ErrNotFound, in.SOPInstanceUID)
}

// unable makes a failure to convert what is kept a 406: the request was right, and another form of the same object may be had. What is not
// there, or may be there later, stays what it is.
func unable(in *pipeline.Instance, err error) error {
	for _, e := range []error{pipeline.ErrUnsupported, pipeline.ErrNotImage, pipeline.ErrInvalid, pipeline.ErrUnknown} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: instance %s: %v", errNotAcceptable, in.SOPInstanceUID, err)
		}
	}
	return err
}
