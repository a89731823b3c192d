package modelrt

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

func TestExhausted(t *testing.T) {
	for said, want := range map[string]bool{
		"Non-zero status code returned while running MatMul node. Name:'' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 1073741824": true,
		"BFCArena::Extend: Available memory of 1048576 is smaller than requested bytes of 4194304":                                    true,
		"CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; line=78 ; expr=cudaMalloc((void**)&p, size); ": true,
		"CUBLAS failure 3: the resource allocation failed ; GPU=0 ; expr=cublasCreate(&cublas_handle_);":                              true,
		"CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0":                                                                        true,
		"std::bad_alloc": true,
		"CUDA failure 700: an illegal memory access was encountered ; GPU=0":       false,
		"CUDA failure 700: an illegal memory access was encountered ; GPU=2":       false,
		"CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0":                false,
		"Exiting due to terminate flag being set to true.":                         false,
		"Non-zero status code returned while running Reshape node. Input shape:{}": false,
	} {
		if got := exhausted(errors.New(said)); got != want {
			t.Errorf("%q: %v", said, got)
		}
	}
}

// Caches that no machine has room for are refused with the figures, and nothing dies.
func TestCachesTooLarge(t *testing.T) {
	b := tinyBundle(t)
	f := must(b.Manifest.form("standard", CPU))
	dir := must(b.Prepare(context.Background(), f, BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}))
	if _, err := runtimeFor(t).newGQA(dir, b.Manifest, f, 1<<20, 1<<30, 1, false); !errors.Is(err, pipeline.ErrBusy) || !strings.Contains(err.Error(), "MB of this machine") {
		t.Errorf("%v", err)
	}
}

// With memory for short texts and not for a long one, the long one is refused, the others are written to their end, and when there is
// memory again the long one is written too.
func TestMemoryRunsOut(t *testing.T) { memoryRunsOut(t, runtimeFor(t), "standard", 64<<20) }

func memoryRunsOut(t *testing.T, r *Runtime, form string, limit int64) {
	o := tinyOptions(t)
	o.Form, o.Memory = form, limit
	m, err := Open(context.Background(), r, "testdata/tiny", o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	short := func(i int) ([]int32, error) {
		ids, _, err := answerOf(m, context.Background(), places(uint64(i), 2), 20)
		return ids, err
	}
	long := func() ([]int32, error) {
		ids, _, err := answerOf(m, context.Background(), places(77, 100), 5)
		return ids, err
	}
	var want [3][]int32
	for i := range want {
		want[i] = must(short(i))
	}
	// Whatever is left of the arena is taken, in pieces that can be given back one by one.
	d := m.decoder.(*gqa)
	name, id := r.memory()
	var taken []*kernel.Device
	defer func() {
		for _, b := range taken {
			b.Close()
		}
	}()
	for _, bytes := range []int{1 << 20, 1 << 14, 1 << 10, 256} {
		for {
			piece := must(kernel.OpenDevice(d.graph.library, d.graph.session, name, id))
			if _, err := piece.Alloc(bytes); err != nil {
				piece.Close()
				if !exhausted(err) {
					t.Fatalf("not known as memory that is out: %v", err)
				}
				break
			}
			taken = append(taken, piece)
		}
	}
	if _, err := long(); !errors.Is(err, pipeline.ErrBusy) || !strings.Contains(err.Error(), "try again later") {
		t.Fatalf("without memory: %v", err)
	}
	give := func() {
		taken[len(taken)-1].Close()
		taken = taken[:len(taken)-1]
	}
	for {
		_, err := short(0)
		if err == nil {
			break
		}
		if !errors.Is(err, pipeline.ErrBusy) || len(taken) == 0 {
			t.Fatalf("%d pieces taken: %v", len(taken), err)
		}
		give()
	}
	var wait sync.WaitGroup
	refused := 0
	for i := range want {
		wait.Go(func() {
			got, err := short(i)
			if errors.Is(err, pipeline.ErrBusy) {
				return // as may happen to anybody
			}
			if err != nil || !slices.Equal(got, want[i]) {
				t.Errorf("beside a long one: %v, %v, want %v", got, err, want[i])
			}
		})
	}
	wait.Go(func() {
		if _, err := long(); errors.Is(err, pipeline.ErrBusy) {
			refused++
		} else {
			t.Errorf("the long one: %v", err)
		}
	})
	wait.Wait()
	if waiting, active := m.Load(); refused != 1 || waiting != 0 || active != 0 {
		t.Errorf("%d refused, %d wait, %d are written", refused, waiting, active)
	}
	for len(taken) > 0 {
		give()
	}
	if _, err := long(); err != nil {
		t.Errorf("with memory again: %v", err)
	}
}

// Of those in a batch the one with the most tokens is ended, and only that one.
func TestRelieve(t *testing.T) {
	one, two := &text{slot: 0, done: make(chan struct{})}, &text{slot: 1, done: make(chan struct{})}
	e := &engine{slots: make([]slotState, 2), active: []*text{one, two}}
	e.slots[0].text, e.slots[1].text = one, two
	e.batch.slot = []int32{0, 1, 1, 1}
	short := &memoryError{"GPU 0", "CUDA failure 2: out of memory"}
	e.fail(short)
	<-two.done
	if !errors.Is(two.err, pipeline.ErrBusy) || one.err != nil || len(e.active) != 1 || e.slots[1].text != nil {
		t.Errorf("%v, %v", one.err, two.err)
	}
	e.scored = &scoring{done: make(chan struct{})}
	scored := e.scored
	e.batch.slot = []int32{0, 2, 2}
	e.fail(short)
	<-scored.done
	if e.scored != nil || !errors.Is(scored.err, pipeline.ErrBusy) || len(e.active) != 1 {
		t.Errorf("%v", scored.err)
	}
	e.batch.slot = []int32{0}
	e.fail(short)
	<-one.done
	if len(e.active) != 0 {
		t.Error("it is still there")
	}
}
