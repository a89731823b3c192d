package modelrt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// Options are what Open needs besides the bundle.
type Options struct {
	// Base returns the path of the base model that a bundle names, a GGUF file: the run-time part of that name.
	Base func(ctx context.Context, part string) (path string, err error)
	// Cache is the folder for the weights that are made of base models.
	Cache string
	// Progress, when set, is called while weights are made.
	Progress func(done, total int64)
	// Threads that a graph runs on; 0 is one for each CPU.
	Threads int
	// Texts is how many texts are written side by side; 0 is a few.
	Texts int
	// Devices are the numbers of the GPUs to use, each with an engine of its own; none is the first. On the CPU each is one more engine, for tests.
	Devices []int
	// Memory is the bytes that each graph may take of a GPU, or all graphs with an arena together of the CPU; 0 for no limit.
	Memory int64
	// Form is the form of the language model to run; empty is the first that the device runs.
	Form string
	// Language that Read writes, one of the bundle's; empty is its first. It is also what Chat answers in where a request names none.
	Language string
	// Structured lets Read write a report as a form of findings, held to a JSON Schema.
	Structured bool
	// EightBits rounds the activations of the language model to 8 bits where its matrices are of 4 or 8 bits: faster, and the text may differ.
	EightBits bool
	// Adapters is a folder with more adapters than the bundle has, each a folder called by its name; empty for none.
	Adapters string
	// Spin lets ONNX Runtime's waiting threads spin: quicker on a machine of its own, several times slower beside other work.
	Spin bool
	// Label finds what sentences say about each of pipeline.Labels, in their order.
	Label func(sentences []string) []pipeline.Finding
	// Knows, when set, says whether Label knows a language, an RFC 5646 tag. Of a report in another nothing is labelled.
	Knows func(language string) bool
	// Check, when set, returns the flags of each sentence of a reading about an image with this header.
	Check func(r *pipeline.Reading, header pipeline.Dataset) [][]pipeline.Flag
	// Policy says what becomes of flagged sentences; empty is Mark.
	Policy Policy
	// Now is the clock that Reading.Created comes from.
	Now func() time.Time
}

// Model is an opened bundle, ready to read. It is safe for concurrent use: images are encoded one after another, and the texts of
// several readings are written side by side. With returns the same model, graphs and weights, with another adapter.
type Model struct {
	*opened
	worn int // of opened.loras
}

// opened is a bundle's graphs and what readings and conversations share, whatever their adapter.
type opened struct {
	bundle *Bundle
	loras  []*lora // the first is used where none is asked for
	form   *Form
	eight  bool // Options.EightBits
	label  func([]string) []pipeline.Finding
	now    func() time.Time
	prompt *prompt
	task   *task
	limit  int // new tokens
	guard  *guard.Guard
	knows  func(language string) bool
	rules  rules
	talks  talks // what conversations share

	device   Device
	fallback string

	pre      *Preprocessor
	engine   *crew
	decoder  decoder // the first, which looks up words
	decoders []decoder

	eyes     gate // held by who uses what follows
	closed   bool
	vision   *graph
	adapter  *graph
	tensors  tensors
	pixels   *ort.Tensor[float32] // [1, C, H, W]
	features *ort.Tensor[float32] // [1, N, Dv]
	scores   *ort.Tensor[float32] // [1, F], nil without findings
	views    *ort.Tensor[float32] // [1, V], nil without views
	image    *ort.Tensor[float32] // [1, T, Dm]
	decoys   [][]float32          // [N, Dv] each
}

// Open verifies the bundle in dir, makes its weights where the cache lacks them, loads its graphs and runs the prompts of the
// decoys and of a blank image once, so that Read finds them in the cache. It takes about as long as reading the weights from disk.
//
// Where the device is Auto and the bundle does not work on CUDA, it is loaded for the CPU.
//
// Errors: those of Verify and Prepare, and of ONNX Runtime, each wrapping a sentinel of package pipeline.
func Open(ctx context.Context, r *Runtime, dir string, o Options) (*Model, error) {
	if o.Base == nil || o.Label == nil || o.Now == nil {
		return nil, fmt.Errorf("%w options: Base, Label and Now must be set", pipeline.ErrInvalid)
	}
	b, err := Verify(dir)
	if err != nil {
		return nil, err
	}
	if b.Manifest.Kind == KindRemote {
		return nil, fmt.Errorf("bundle %s: %w: its model runs elsewhere, and here one is needed that runs here", b.Manifest.Name, pipeline.ErrUnsupported)
	}
	base := ""
	if part := b.Manifest.Base.Part; part != "" {
		if base, err = o.Base(ctx, part); err != nil {
			return nil, fmt.Errorf("bundle %s: its base model: %w", b.Manifest.Name, err)
		}
	}
	prepare := BaseModel{Path: base, Cache: o.Cache, Progress: o.Progress}
	m, err := loadModel(ctx, r, b, prepare, o)
	if err != nil && r.device == CUDA && r.asked == Auto && ctx.Err() == nil {
		why := oneLine(err)
		o.Devices, o.Memory = nil, 0 // they were about GPUs
		if m, err = loadModel(ctx, r.onCPU(), b, prepare, o); err == nil {
			m.fallback = why
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", b.Manifest.Name, err)
	}
	return m, nil
}

func loadModel(ctx context.Context, r *Runtime, b *Bundle, base BaseModel, o Options) (*Model, error) {
	task, err := b.task(o.Language, o.Structured)
	if err != nil {
		return nil, err
	}
	form, err := b.Manifest.form(o.Form, r.device)
	if err != nil {
		return nil, err
	}
	prepared, err := b.Prepare(ctx, form, base)
	if err != nil {
		return nil, err
	}
	m := &Model{opened: &opened{bundle: b, task: task, form: form, eight: o.EightBits, label: o.Label, knows: o.Knows, rules: rules{o.Check, o.Policy}, now: o.Now, device: r.device,
		fallback: r.Fallback()}}
	loras, faults := b.loras(o.Adapters)
	if faults = append(faults, b.unfit(loras, form)...); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if m.loras = loras; form.Kind != KindFlat {
		m.loras = loras[:1]
	}
	if err := m.load(ctx, r, prepared, o); err != nil {
		m.free()
		return nil, err
	}
	return m, nil
}

// Device is where the model runs: CPU or CUDA.
func (m *Model) Device() Device { return m.device }

// Fallback says why the model runs on the CPU though Auto was asked for; else it is empty. CUDA may load and still not do for a bundle.
func (m *Model) Fallback() string { return m.fallback }

// Form is the name of the form of the language model that runs.
func (m *Model) Form() string { return m.form.Name }

// Bundle is what the model was opened from.
func (m *Model) Bundle() *Bundle { return m.bundle }

// Close waits for the readings that run and frees the graphs. Later calls of Read fail; Close may be called twice.
func (m *Model) Close() error {
	_ = m.eyes.enter(context.Background(), classUrgent) // never fails
	defer m.eyes.leave()
	if !m.closed {
		m.closed = true
		m.free()
	}
	return nil
}

func (m *Model) free() {
	if m.engine != nil {
		m.engine.close()
		m.talks.end()
	}
	m.vision.close()
	m.adapter.close()
	for _, d := range m.decoders {
		d.close()
	}
	m.tensors.destroy()
}

func (m *Model) load(ctx context.Context, r *Runtime, prepared string, o Options) error {
	f := m.bundle.Manifest
	threads := o.Threads
	if threads <= 0 {
		threads = runtime.NumCPU()
	}
	devices := o.Devices
	if len(devices) == 0 {
		devices = []int{0}
	}
	var err error
	if m.prompt, err = m.bundle.prompt(); err != nil {
		return err
	}
	if err := m.prepareTask(); err != nil {
		return err
	}
	if m.pre, err = NewPreprocessor(f.Preprocess); err != nil {
		return err
	}
	var decoys [][]float32
	held := 0
	if f.sighted() {
		if decoys, err = m.bundle.decoys(); err != nil {
			return err
		}
		held, m.decoys = len(decoys)+1, decoys
		if err := m.loadEyes(r.on(devices[0], o.Memory), threads, o.Spin); err != nil {
			return err
		}
	}
	texts := o.Texts
	if texts <= 0 {
		texts = defaultTexts
	}
	for _, n := range devices {
		d, err := r.on(n, o.Memory).newDecoder(prepared, m.bundle, m.form, m.loras, texts+held*len(m.loras), f.Decoder.MaxLength, threads, o.Spin, o.EightBits)
		if err != nil {
			return err
		}
		m.decoders = append(m.decoders, d)
	}
	m.decoder = m.decoders[0]
	for _, l := range m.loras {
		l.matrices = nil // the decoders have them
	}
	if err := m.allocate(); err != nil {
		return err
	}
	c, err := begin(ctx)
	if err != nil {
		return err
	}
	defer c.end()
	for _, d := range m.decoders {
		if err := m.warm(c, d, texts, decoys); err != nil {
			return err
		}
	}
	m.engine = &crew{}
	for _, d := range m.decoders {
		work, err := begin(context.Background())
		if err != nil {
			return err
		}
		e := newEngine(d, f, texts, held, f.Decoder.MaxLength, maxWaiting)
		e.pieces = piecesOf(r.device)
		m.engine.add(e)
		go func() {
			e.work(work)
			work.end()
		}()
	}
	return nil
}

// defaultTexts is how many texts are written side by side, maxWaiting how many may wait for a slot.
const (
	defaultTexts = 4
	maxWaiting   = 256
)

// allocate makes the tensors of the vision graph and the adapter. Images of any size have theirs made for each.
func (m *Model) allocate() error {
	f, t := m.bundle.Manifest, &m.tensors
	if !f.sighted() || f.bySize() {
		return nil
	}
	p, v, hidden := f.Preprocess, f.Vision, f.Decoder.Hidden
	m.pixels = newTensor(t, make([]float32, p.Channels*p.Height*p.Width), 1, int64(p.Channels), int64(p.Height), int64(p.Width))
	m.features = newTensor(t, make([]float32, v.FeatureTokens*v.FeatureDim), 1, int64(v.FeatureTokens), int64(v.FeatureDim))
	if len(v.Findings) > 0 {
		m.scores = newTensor(t, make([]float32, len(v.Findings)), 1, int64(len(v.Findings)))
	}
	if len(v.Views) > 0 {
		m.views = newTensor(t, make([]float32, len(v.Views)), 1, int64(len(v.Views)))
	}
	m.image = newTensor(t, make([]float32, v.ImageTokens*hidden), 1, int64(v.ImageTokens), int64(hidden))
	return t.err
}

// warm fills the held slots of each adapter, behind texts, with the prompts of the decoys and of the blank image; where the model takes no images, the
// first slot with the template. On the last it proves that the cache works in place: a place that is fed again must give the same logits.
func (m *Model) warm(c *call, d decoder, texts int, decoys [][]float32) error {
	hidden, template := m.bundle.Manifest.Decoder.Hidden, m.task.template
	var b batch
	var last []float32
	hold := func(slot, worn int, seen ...*sight) error {
		said, err := m.compose(c, template, seen)
		if err != nil {
			return err
		}
		n := len(said.places.ids)
		last = said.embeds[(n-1)*hidden:]
		d.wear(slot, worn)
		b.clear()
		b.add(slot, 0, said.embeds, n, said.places)
		b.want()
		return d.run(c, &b)
	}
	slot := 0
	if m.bundle.Manifest.sighted() {
		var images [][]float32
		for _, features := range decoys {
			image, err := m.adaptFeatures(c, features)
			if err != nil {
				return err
			}
			images = append(images, image)
		}
		image, err := m.blank(c)
		if err != nil {
			return err
		}
		slot = texts - 1
		for worn := range m.loras {
			for _, image := range append(images, image) {
				slot++
				if err := hold(slot, worn, m.usualSight(image)); err != nil {
					return err
				}
			}
		}
	} else if err := hold(slot, 0); err != nil {
		return err
	}
	want := slices.Clone(b.logits)
	b.clear()
	b.add(slot, m.prompt.length()-1, last, 1, m.prompt.template)
	b.want()
	if err := d.run(c, &b); err != nil {
		return err
	}
	if far := moved(b.logits, want); !(far <= sameLogits[m.form.Precision]) {
		return fmt.Errorf("%w: the decoder's KV cache does not work in place on this device (its logits move by %.2g of their size); choose the device cpu", pipeline.ErrUnsupported, far)
	}
	return nil
}

// sameLogits is by how much logits may differ, as moved tells it, that other kernels make of the same values. A cache that is not there
// moves them by about their size.
var sameLogits = map[string]float64{"": 1e-3, precisionFloat32: 1e-3, precisionFloat16: 0.02, precisionBFloat16: 0.1}

// moved is by how much got differs from want: the root of the mean square of the difference, in terms of that of want.
func moved(got, want []float32) float64 {
	var difference, size float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		difference += d * d
		size += float64(w) * float64(w)
	}
	return math.Sqrt(difference / size)
}

// Load is what the model has to do: texts that wait for a slot and texts that are being written.
func (m *Model) Load() (waiting, active int) { return m.engine.load() }

var errClosed = fmt.Errorf("%w: the model is closed", pipeline.ErrNotFound)
