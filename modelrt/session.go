package modelrt

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// graph is a loaded ONNX graph with a fixed order of inputs and outputs.
type graph struct {
	name, where     string // where it runs
	session         *ort.DynamicAdvancedSession
	library         string
	inputs, outputs []string
}

func (r *Runtime) load(path string, inputs, outputs []string, threads int, spin bool) (*graph, error) {
	return r.loadAs(path, inputs, outputs, threads, spin, true, false)
}

// loadWithoutArena is load for a graph whose runs have many sizes: an arena takes a larger piece whenever one does not fit what it has, and
// gives none back. eightBits is kernel.Register's.
func (r *Runtime) loadWithoutArena(path string, inputs, outputs []string, threads int, spin, eightBits bool) (*graph, error) {
	return r.loadAs(path, inputs, outputs, threads, spin, false, eightBits)
}

func (r *Runtime) loadAs(path string, inputs, outputs []string, threads int, spin, arena, eightBits bool) (*graph, error) {
	o, err := r.sessionOptions(threads, spin)
	if err != nil {
		return nil, err
	}
	defer o.Destroy()
	if err := o.SetCpuMemArena(arena); err != nil {
		return nil, err
	}
	if arena && r.device == CPU && r.limit > 0 {
		if err := r.limitCPU(o); err != nil {
			return nil, err
		}
	}
	name := filepath.Base(path)
	if r.device == CPU {
		if err := kernel.Register(o, r.library, eightBits); err != nil {
			return nil, fmt.Errorf("%w: %v", pipeline.ErrUnsupported, err)
		}
	}
	s, err := ort.NewDynamicAdvancedSession(path, inputs, outputs, o)
	if err != nil {
		if exhausted(err) {
			return nil, fmt.Errorf("%w: %s is larger than the memory of %s: %s", pipeline.ErrBusy, name, r.where(), oneLine(err))
		}
		return nil, fmt.Errorf("%w: ONNX Runtime %s does not load %s: %s", pipeline.ErrInvalid, r.version, name, oneLine(err))
	}
	return &graph{name, r.where(), s, r.library, inputs, outputs}, nil
}

func (g *graph) close() {
	if g != nil && g.session != nil {
		g.session.Destroy()
		g.session = nil
	}
}

// call is a row of runs under one context: when it ends, ONNX Runtime is told to stop, and nothing is freed before it has.
type call struct {
	ctx      context.Context
	options  *ort.RunOptions
	release  func() bool
	released chan struct{}
	spent    time.Duration // in ONNX Runtime
}

func begin(ctx context.Context) (*call, error) {
	o, err := ort.NewRunOptions()
	if err != nil {
		return nil, err
	}
	c := &call{ctx: ctx, options: o, released: make(chan struct{})}
	c.release = context.AfterFunc(ctx, func() {
		o.Terminate()
		close(c.released)
	})
	return c, nil
}

func (c *call) end() {
	if !c.release() {
		<-c.released
	}
	c.options.Destroy()
}

// run runs a graph. Every output is allocated by the caller, so that a run allocates nothing that outlives it.
func (c *call) run(g *graph, in, out []ort.Value) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	began := time.Now()
	err := g.session.RunWithOptions(in, out, c.options)
	c.spent += time.Since(began)
	// The values point into Go memory that ONNX Runtime has used until now.
	runtime.KeepAlive(in)
	runtime.KeepAlive(out)
	return c.failed(g, err)
}

// failed is what a run's error means.
func (c *call) failed(g *graph, err error) error {
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case exhausted(err):
		return &memoryError{g.where, oneLine(err)}
	}
	return fmt.Errorf("%w: running %s: %s", pipeline.ErrModel, g.name, oneLine(err))
}

// repeat does a prepared run again.
func (c *call) repeat(g *graph, r *kernel.Run) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	began := time.Now()
	err := r.Do(c.options)
	c.spent += time.Since(began)
	return c.failed(g, err)
}

// prepare makes a run of g over fixed values.
func (g *graph) prepare(in, out []ort.Value) (*kernel.Run, error) {
	r, err := kernel.NewRun(g.library, g.session, g.inputs, g.outputs, in, out)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", pipeline.ErrUnsupported, g.name, err)
	}
	return r, nil
}

// tensors makes tensors and remembers them, so that they can be destroyed together. Its first error stays.
type tensors struct {
	made []ort.Value
	err  error
}

func newTensor[T ort.TensorData](t *tensors, data []T, shape ...int64) *ort.Tensor[T] {
	if t.err != nil {
		return nil
	}
	v, err := ort.NewTensor(ort.NewShape(shape...), data)
	if err != nil {
		t.err = err
		return nil
	}
	t.made = append(t.made, v)
	return v
}

func (t *tensors) destroy() {
	for _, v := range t.made {
		v.Destroy()
	}
	t.made = nil
}
