package dicom

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"chatxray/pipeline"
)

const (
	// One instance of the module may have this much memory, in WebAssembly pages of 64 KiB: 1 GiB.
	codecPages = 16 << 10
	// An instance that has touched more than this is not kept for the next frame: WebAssembly memory never shrinks.
	codecKeep = 64 << 20
)

// codecs is the WebAssembly module of npm dcmjs-codecs (libjpeg-turbo, CharLS, OpenJPEG, OpenJPH) in wazero. Its decoders meet
// hostile codestreams in a sandbox: what they corrupt is their own memory, and an instance that trapped is thrown away.
type codecs struct {
	mu      sync.Mutex
	path    string
	loaded  *codecModule  // nil until a frame needs it; a failure is not kept
	running chan struct{} // one for each instance at work
}

// codecModule is the compiled module and its idle instances.
type codecModule struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	mu       sync.Mutex
	idle     []*codecInstance
}

// codecInstance is one instance of the module.
type codecInstance struct {
	api.Module
	memory codecMemory
	ctx    context.Context // of the call that it is busy with
}

var theCodecs = &codecs{running: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}

// SetCodecModule says where the codec module (dcmjs-native-codecs.wasm of npm dcmjs-codecs 0.0.8) lies. It is compiled when the
// first frame needs it, and the compiled form is kept beside it where that folder can be written to. Call it before the first
// frame is decoded. An empty path, which is the beginning, means that there is none.
func SetCodecModule(path string) {
	theCodecs.mu.Lock()
	defer theCodecs.mu.Unlock()
	theCodecs.path, theCodecs.loaded = path, nil
}

// CheckCodecModule compiles the codec module, which takes seconds the first time, and says whether it can be used. Errors wrap
// pipeline.ErrMissingPart.
func CheckCodecModule() error {
	_, err := theCodecs.module()
	return err
}

// module returns the compiled module.
func (c *codecs) module() (*codecModule, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == "" {
		return nil, fmt.Errorf("%w: the codec module dcmjs-codecs is not there; run `chatxray parts fetch`", pipeline.ErrMissingPart)
	}
	if c.loaded == nil {
		m, err := loadCodecs(c.path)
		if err != nil {
			return nil, err
		}
		c.loaded = m
	}
	return c.loaded, nil
}

// codecPanic is an exception of the C++ code on its way through wazero.
type codecPanic string

func (c codecPanic) Error() string { return string(c) }

func loadCodecs(path string) (*codecModule, error) {
	wasm, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: the codec module dcmjs-codecs cannot be read (%v); run `chatxray parts fetch`", pipeline.ErrMissingPart, err)
	}
	ctx := context.Background()
	cfg := wazero.NewRuntimeConfig().WithMemoryLimitPages(codecPages)
	if cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(filepath.Dir(path), "compiled")); err == nil {
		cfg = cfg.WithCompilationCache(cache)
	}
	m := &codecModule{runtime: wazero.NewRuntimeWithConfig(ctx, cfg)}
	if err := m.imports(ctx); err == nil {
		m.compiled, err = m.runtime.CompileModule(ctx, wasm)
		if err == nil {
			return m, nil
		}
	}
	m.runtime.Close(ctx)
	return nil, fmt.Errorf("%w: the codec module dcmjs-codecs does not compile (%v); run `chatxray parts fetch`", pipeline.ErrMissingPart, err)
}

// imports are the functions that the module calls.
func (m *codecModule) imports(ctx context.Context) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
		return err
	}
	_, err := m.runtime.NewHostModuleBuilder("env").
		NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, at, n uint32) {
		text, _ := m.Memory().Read(at, min(n, 200))
		panic(codecPanic(text))
	}).Export("onCodecsException").
		NewFunctionBuilder().WithFunc(codecMessage).Export("onCodecsInfo").
		NewFunctionBuilder().WithFunc(codecMessage).Export("onCodecsTrace").
		NewFunctionBuilder().WithFunc(func(context.Context, api.Module, uint32) {}).Export("emscripten_notify_memory_growth").
		Instantiate(ctx)
	return err
}

// codecMessage hears what the libraries say while they go on. Only so a decoder tells that it filled up data that is damaged or cut
// off; such a picture is not shown as if it were whole.
func codecMessage(ctx context.Context, m api.Module, at, n uint32) {
	if ctx.Value(strict{}) == nil {
		return
	}
	text, _ := m.Memory().Read(at, min(n, 200))
	for _, w := range codecWarnings {
		if strings.Contains(string(text), w) {
			panic(codecPanic(text))
		}
	}
}

// strict marks the context of a decoder.
type strict struct{}

var codecWarnings = []string{"Corrupt JPEG data", "Premature end", "OpjMessageCallbackWarning"}

// take returns an idle instance or a new one.
func (m *codecModule) take(ctx context.Context) (_ *codecInstance, err error) {
	m.mu.Lock()
	if n := len(m.idle); n > 0 {
		in := m.idle[n-1]
		m.idle = m.idle[:n-1]
		m.mu.Unlock()
		return in, nil
	}
	m.mu.Unlock()
	in := new(codecInstance)
	defer func() {
		if p := recover(); p != nil { // no address space: an allocator has no other way to say so
			err = fmt.Errorf("%v", p)
		}
	}()
	ctx = experimental.WithMemoryAllocator(ctx, in.memory.allocator())
	in.Module, err = m.runtime.InstantiateModule(ctx, m.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize"))
	return in, err
}

// give puts an instance back, unless it failed or has grown large.
func (m *codecModule) give(in *codecInstance, failed bool) {
	in.ctx = nil
	if failed || in.memory.resident(in.Memory().Size()) > codecKeep {
		in.Close(context.Background())
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle = append(m.idle, in)
}

// run calls a codec. It waits for a free instance or the end of ctx; a codec at work is not interrupted, since its work is bounded
// by the size of its input and of the image, both checked before.
func (c *codecs) run(ctx context.Context, call codecCall) (*codecResult, error) {
	m, err := c.module()
	if err != nil {
		return nil, err
	}
	select {
	case c.running <- struct{}{}:
		defer func() { <-c.running }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx = context.WithoutCancel(ctx)
	if call.decode {
		ctx = context.WithValue(ctx, strict{}, true)
	}
	in, err := m.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: the codec module dcmjs-codecs does not start: %v", pipeline.ErrMissingPart, err)
	}
	in.ctx = ctx
	res, err := in.run(call)
	m.give(in, err != nil)
	if err != nil {
		return nil, fmt.Errorf("%w codestream: %s", pipeline.ErrInvalid, codecText(err))
	}
	return res, nil
}

// codecText shortens an error of the module or of wazero to its first line, in plain characters.
func codecText(err error) string {
	text := err.Error()
	if p := codecPanic(""); errors.As(err, &p) {
		text = string(p)
	}
	text, _, _ = strings.Cut(text, "\n")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	return text[:min(len(text), 160)]
}
