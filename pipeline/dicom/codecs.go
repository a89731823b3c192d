package dicom

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	load    func() (*codecModule, error) // once
	running chan struct{}                // one for each instance at work
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
	theCodecs.path, theCodecs.load = path, nil
}

// module returns the compiled module.
func (c *codecs) module() (*codecModule, error) {
	c.mu.Lock()
	path := c.path
	if c.load == nil && path != "" {
		c.load = sync.OnceValues(func() (*codecModule, error) { return loadCodecs(path) })
	}
	load := c.load
	c.mu.Unlock()
	if path == "" {
		return nil, fmt.Errorf("%w: the codec module dcmjs-codecs is not there; run `chatxray parts fetch`", pipeline.ErrMissingPart)
	}
	return load()
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

// codecDecode makes a decoder of a function of the module.
func codecDecode(function string, check func([]byte) (stream, error)) func(context.Context, encoded) (*Pixels, error) {
	return func(ctx context.Context, f encoded) (*Pixels, error) {
		l := f.layout
		h, err := check(f.data)
		if err = firstError(err, h.fits(l)); err != nil {
			return nil, err
		}
		if l.allocated > 16 {
			return nil, fmt.Errorf("%w image: %d bits allocated in a compressed image", pipeline.ErrUnsupported, l.allocated)
		}
		told := l
		narrow := l.allocated == 16 && h.precision <= 8 // the module would leave half of each word to chance
		if narrow {
			told.allocated, told.stored = 8, min(l.stored, 8)
		}
		r, err := theCodecs.run(ctx, codecCall{
			function: function, attrs: told, input: f.data, decode: true,
			params: map[string]uint64{"ConvertColorspaceToRgb": 1},
		})
		if err != nil {
			return nil, err
		}
		if r.rows != l.rows || r.columns != l.columns || r.samples != l.samples || r.allocated != told.allocated || int64(len(r.data)) != told.frameBytes() {
			return nil, fmt.Errorf("%w image: the codestream decodes to %d x %d x %d samples of %d bits, the header says %d x %d x %d of %d",
				pipeline.ErrInvalid, r.rows, r.columns, r.samples, r.allocated, l.rows, l.columns, l.samples, l.allocated)
		}
		if narrow {
			r.data = widened(r.data, l.signed, h.precision)
		}
		l.planar, l.photometric = r.planar, r.photometric
		if l.photometric == "YBR_ICT" || l.photometric == "YBR_RCT" { // the decoder undoes these itself
			l.photometric = "RGB"
		}
		return l.pixels(r.data), nil
	}
}

// widened makes 16-bit words of bytes; negative values of a signed image stay negative.
func widened(b []byte, signed bool, precision int) []byte {
	out := make([]byte, 2*len(b))
	for i, v := range b {
		out[2*i] = v
		if signed && v>>(precision-1)&1 == 1 {
			out[2*i] = v | byte(0xFF<<precision)
			out[2*i+1] = 0xFF
		}
	}
	return out
}

// codecEncode makes an encoder of a function of the module, with the module's parameters where they differ from lossless.
func codecEncode(function string, changes map[string]uint64) func(context.Context, *Pixels) ([]byte, error) {
	params := map[string]uint64{
		"Lossy": 0, "Quality": 100, "SmoothingFactor": 0, "SampleFactor": 0, "Predictor": 1, "PointTransform": 0,
		"AllowedLossyError": 0, "ProgressionOrder": 0, "Rate": 0, "AllowMct": 0,
	}
	maps.Copy(params, changes)
	return func(ctx context.Context, p *Pixels) ([]byte, error) {
		if p.BitsAllocated > 16 {
			return nil, fmt.Errorf("%w image: %d bits allocated are not compressed", pipeline.ErrUnsupported, p.BitsAllocated)
		}
		r, err := theCodecs.run(ctx, codecCall{
			function: function, input: p.Data, params: params,
			attrs: layout{
				rows: p.Rows, columns: p.Columns, samples: p.SamplesPerPixel, allocated: p.BitsAllocated, stored: p.BitsStored,
				signed: p.Signed, planar: p.PlanarConfiguration, photometric: p.Photometric,
			},
		})
		if err != nil {
			return nil, err
		}
		return r.data, nil
	}
}

// codecCall is one run of a codec: what the module is told and what it is given.
type codecCall struct {
	function string
	attrs    layout
	input    []byte
	decode   bool
	params   map[string]uint64
}

// codecResult is what the module says about its output. data is ours.
type codecResult struct {
	rows, columns, samples, allocated, stored, planar int
	photometric                                       string
	data                                              []byte
}

// codecPhotometric are the photometric interpretations in the order of the module's enumeration.
var codecPhotometric = []string{"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"}

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

func (i *codecInstance) call(name string, args ...uint64) (uint64, error) {
	f := i.ExportedFunction(name)
	if f == nil {
		return 0, fmt.Errorf("the module has no function %s", name)
	}
	out, err := f.Call(i.ctx, args...)
	if err != nil || len(out) == 0 {
		return 0, err
	}
	return out[0], nil
}

func (i *codecInstance) run(c codecCall) (*codecResult, error) {
	object, err := i.call("CreateCodecsContext")
	if err != nil {
		return nil, err
	}
	from, to, kind := "Decoded", "Encoded", "Encoder"
	if c.decode {
		from, to, kind = to, from, "Decoder"
	}
	photometric := 0
	for n, name := range codecPhotometric {
		if name == c.attrs.photometric {
			photometric = n
		}
	}
	signed := 0
	if c.attrs.signed {
		signed = 1
	}
	for _, a := range []struct {
		name  string
		value int
	}{
		{"Columns", c.attrs.columns}, {"Rows", c.attrs.rows}, {"BitsAllocated", c.attrs.allocated}, {"BitsStored", c.attrs.stored},
		{"SamplesPerPixel", c.attrs.samples}, {"PixelRepresentation", signed}, {"PlanarConfiguration", c.attrs.planar},
		{"PhotometricInterpretation", photometric}, {from + "BufferSize", len(c.input)},
	} {
		if _, err := i.call("Set"+a.name, object, uint64(a.value)); err != nil {
			return nil, err
		}
	}
	at, err := i.call("Get"+from+"Buffer", object)
	if err != nil {
		return nil, err
	}
	if !i.Memory().Write(uint32(at), c.input) {
		return nil, errors.New("the module gives no room for the input")
	}
	params, err := i.call("Create" + kind + "Parameters")
	if err != nil {
		return nil, err
	}
	for name, v := range c.params {
		if _, err := i.call("Set"+name, params, v); err != nil {
			return nil, err
		}
	}
	if _, err := i.call(c.function, object, params); err != nil {
		return nil, err
	}
	res, err := i.result(object, to)
	if err != nil {
		return nil, err
	}
	if _, err := i.call("Release"+kind+"Parameters", params); err != nil {
		return nil, err
	}
	_, err = i.call("ReleaseCodecsContext", object)
	return res, err
}

func (i *codecInstance) result(object uint64, to string) (*codecResult, error) {
	var r codecResult
	photometric := 0
	at, size := 0, 0
	for _, a := range []struct {
		name string
		into *int
	}{
		{"Columns", &r.columns}, {"Rows", &r.rows}, {"BitsAllocated", &r.allocated}, {"BitsStored", &r.stored},
		{"SamplesPerPixel", &r.samples}, {"PlanarConfiguration", &r.planar}, {"PhotometricInterpretation", &photometric},
		{to + "Buffer", &at}, {to + "BufferSize", &size},
	} {
		v, err := i.call("Get"+a.name, object)
		if err != nil {
			return nil, err
		}
		*a.into = int(uint32(v))
	}
	if photometric < len(codecPhotometric) {
		r.photometric = codecPhotometric[photometric]
	}
	b, ok := i.Memory().Read(uint32(at), uint32(size))
	if !ok {
		return nil, errors.New("the module's output lies outside its memory")
	}
	r.data = append([]byte(nil), b...)
	return &r, nil
}
