package modelrt

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// flat is a decoder of the kind flat: tokens of many texts in one run of the graph, on the CPU. Its caches are one tensor a layer for
// keys and one for values, [slots, kv_heads, capacity, head_dim], which the graph writes in place (modelrt/kernel/attention.h has their order).
type flat struct {
	shape           Decoder
	slots, capacity int
	embed, graph    *graph
	reserved        [][]byte // the caches' memory
	tensors         tensors
	fixed           []ort.Value   // caches, in the order of the graph's inputs after those of a feed
	loras           [][]ort.Value // of each adapter, behind the caches
	worn            []int         // by each slot
	group           batch         // the part of a batch whose slots wear the same
	mixed           []float32     // logits of batches whose slots wear different ones
	rotaries        []*rotary     // of all layers, or of full and of local ones; none where positions are learned
	feeds           map[feedKey]*flatFeed
	looking         sync.Mutex // held by who uses what follows
	lookups         map[int]*flatLookup
	logits          []float32 // of long runs
}

// flatFeed is the tensors of a run of T tokens and M logits.
type flatFeed struct {
	x              *ort.Tensor[float32]
	turns          []*ort.Tensor[float32] // cosines and sines of each rotary
	slot, at, upto *ort.Tensor[int32]
	wanted         *ort.Tensor[int64]
	positions      *ort.Tensor[int64] // learned ones
	logits         *ort.Tensor[float32]
	run            *kernel.Run
	made           tensors
}

func (f *flatFeed) free() {
	f.run.Close()
	f.made.destroy()
}

// feedKey is what feeds are told apart by.
type feedKey struct{ tokens, wanted, adapter int }

// The tensors of runs of few tokens, those of decoding, are kept: of keptFeeds sizes up to keptTokens.
const (
	keptFeeds  = 64
	keptTokens = 16
)

func (r *Runtime) newFlat(dir string, b *Bundle, form *Form, loras []*lora, slots, capacity, threads int, eightBits bool) (f *flat, err error) {
	if r.device != CPU {
		return nil, fmt.Errorf("%w: the form %s of bundle %s runs on the CPU only; choose the device cpu", pipeline.ErrUnsupported, form.Name, b.Manifest.Name)
	}
	m := b.Manifest
	if eightBits {
		layout, _, err := b.weights(form)
		if err != nil {
			return nil, err
		}
		if layout != nil && !slices.ContainsFunc(layout, func(s slot) bool { return s.Op == "pack_q4_1" || s.Op == "pack_q8_0" }) {
			return nil, fmt.Errorf("%w: the form %s of bundle %s has no matrices of 4 or 8 bits, so its activations stay float32; choose another form or model.activations: exact",
				pipeline.ErrUnsupported, form.Name, m.Name)
		}
	}
	capacity = (capacity + kernel.KeyBlock - 1) / kernel.KeyBlock * kernel.KeyBlock
	f = &flat{shape: m.Decoder, slots: slots, capacity: capacity, worn: make([]int, slots), feeds: map[feedKey]*flatFeed{}, lookups: map[int]*flatLookup{}}
	made := f // a return of nil takes f away
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	kernel.Start(threads)
	if f.embed, err = r.load(dir+"/"+form.Embed, []string{"input_ids"}, []string{"inputs_embeds"}, 1, false); err != nil {
		return nil, err
	}
	d := m.Decoder
	f.rotaries = rotariesOf(d, capacity)
	in := []string{"inputs_embeds", "slot", "at", "upto", "logits_indices"}
	for i := range f.rotaries {
		suffix := [2]string{"", "_local"}[i]
		in = append(in, "cos"+suffix, "sin"+suffix)
	}
	if len(f.rotaries) == 0 {
		in = append(in, "positions")
	}
	values := (d.HeadDim + kernel.KeyBlock - 1) / kernel.KeyBlock * kernel.KeyBlock
	for l := range d.Layers {
		in = append(in, "keys"+strconv.Itoa(l), "values"+strconv.Itoa(l))
		for _, dim := range []int{d.HeadDim, values} {
			memory, err := f.reserve(slots * d.KVHeads * capacity * dim)
			if err != nil {
				return nil, err
			}
			f.fixed = append(f.fixed, newTensor(&f.tensors, memory, int64(slots), int64(d.KVHeads), int64(capacity), int64(dim)))
		}
	}
	names, err := f.dress(b, form, loras)
	if err != nil {
		return nil, err
	}
	if f.tensors.err != nil {
		return nil, f.tensors.err
	}
	// ONNX Runtime's own threads would have nothing to do: the operators have theirs.
	if f.graph, err = r.loadWithoutArena(dir+"/"+form.Decoder, append(in, names...), []string{"logits"}, 1, false, eightBits); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *flat) close() {
	f.graph.close()
	f.embed.close()
	for _, feed := range f.feeds {
		feed.free()
	}
	for _, l := range f.lookups {
		l.free()
	}
	f.tensors.destroy()
	for _, b := range f.reserved {
		_ = syscall.Munmap(b) // it was mapped
	}
	f.reserved = nil
}

// reserve takes zeroed memory for n values from the system. On Go's heap the caches, most of which no text ever touches, would let as much
// garbage lie before it is collected.
func (f *flat) reserve(n int) ([]float32, error) {
	b, err := syscall.Mmap(-1, 0, 4*n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("%w: no memory for the decoder's cache: %v", pipeline.ErrBusy, err)
	}
	f.reserved = append(f.reserved, b)
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), n), nil
}

func (f *flat) lookup(c *call, ids []int32, dst []float32) error {
	f.looking.Lock()
	defer f.looking.Unlock()
	l, err := f.lookupOf(len(ids))
	if err != nil {
		return err
	}
	if len(ids) > keptTokens {
		defer l.free()
	}
	for i, id := range ids {
		l.ids.GetData()[i] = int64(id)
	}
	if err := c.repeat(f.embed, l.run); err != nil {
		return err
	}
	copy(dst, l.rows.GetData())
	return nil
}

// flatLookup is the tensors of a run of the embed graph.
type flatLookup struct {
	ids  *ort.Tensor[int64]
	rows *ort.Tensor[float32]
	run  *kernel.Run
	made tensors
}

func (l *flatLookup) free() {
	l.run.Close()
	l.made.destroy()
}

// lookupOf returns tensors for n tokens; those for up to keptTokens are kept.
func (f *flat) lookupOf(n int) (*flatLookup, error) {
	if kept, ok := f.lookups[n]; ok {
		return kept, nil
	}
	l := &flatLookup{}
	l.ids = newTensor(&l.made, make([]int64, n), int64(n))
	l.rows = newTensor(&l.made, make([]float32, n*f.shape.Hidden), int64(n), int64(f.shape.Hidden))
	if l.made.err != nil {
		l.made.destroy()
		return nil, l.made.err
	}
	run, err := f.embed.prepare([]ort.Value{l.ids}, []ort.Value{l.rows})
	if err != nil {
		l.made.destroy()
		return nil, err
	}
	l.run = run
	if n <= keptTokens {
		f.lookups[n] = l
	}
	return l, nil
}

func (f *flat) share(from, to, n int) error {
	d := f.shape
	for i := range 2 * d.Layers {
		data := f.fixed[i].(*ort.Tensor[float32]).GetData()
		head := len(data) / f.slots / d.KVHeads // of one text
		// Keys stand in blocks of KeyBlock places; the block that n lies in is copied whole.
		filled := (n + kernel.KeyBlock - 1) / kernel.KeyBlock * kernel.KeyBlock * (head / f.capacity)
		for h := range d.KVHeads {
			copy(data[(to*d.KVHeads+h)*head:][:filled], data[(from*d.KVHeads+h)*head:][:filled])
		}
	}
	return nil
}

func (f *flat) wear(slot, adapter int) { f.worn[slot] = adapter }

func (f *flat) run(c *call, b *batch) error {
	if err := b.check(f.slots, f.capacity, f.shape.Hidden); err != nil {
		return err
	}
	first := f.worn[b.slot[0]]
	if !slices.ContainsFunc(b.slot, func(s int32) bool { return f.worn[s] != first }) {
		return f.runAlike(c, b, first)
	}
	return f.runMixed(c, b)
}

// runAlike runs a batch whose slots wear the same adapter.
func (f *flat) runAlike(c *call, b *batch, adapter int) error {
	feed, err := f.feed(feedKey{b.tokens(), len(b.wanted), adapter})
	if err != nil {
		return err
	}
	if b.tokens() > keptTokens {
		defer feed.free()
	}
	copy(feed.x.GetData(), b.x)
	copy(feed.slot.GetData(), b.slot)
	copy(feed.at.GetData(), b.at)
	copy(feed.wanted.GetData(), b.wanted)
	copy(feed.upto.GetData(), b.upto)
	for i, r := range f.rotaries {
		r.fill(feed.turns[2*i].GetData(), feed.turns[2*i+1].GetData(), b.position)
	}
	if feed.positions != nil {
		for i, p := range b.position {
			feed.positions.GetData()[i] = int64(p[0])
		}
	}
	b.logits = feed.logits.GetData()
	return c.repeat(f.graph, feed.run)
}

// feed returns tensors for a run of so many tokens and logits with an adapter. Those of up to keptTokens are kept.
func (f *flat) feed(key feedKey) (*flatFeed, error) {
	if kept, ok := f.feeds[key]; ok {
		return kept, nil
	}
	logits := key.wanted * f.shape.Vocab
	if key.tokens > keptTokens {
		if cap(f.logits) < logits {
			f.logits = make([]float32, logits)
		}
		return f.newFeed(key, f.logits[:logits])
	}
	if len(f.feeds) >= keptFeeds {
		for k, old := range f.feeds {
			old.free()
			delete(f.feeds, k)
		}
	}
	feed, err := f.newFeed(key, make([]float32, logits))
	if err == nil {
		f.feeds[key] = feed
	}
	return feed, err
}

func (f *flat) newFeed(key feedKey, logits []float32) (*flatFeed, error) {
	feed, tokens, wanted := &flatFeed{}, key.tokens, key.wanted
	t, n := &feed.made, int64(tokens)
	feed.x = newTensor(t, make([]float32, tokens*f.shape.Hidden), n, int64(f.shape.Hidden))
	for _, r := range f.rotaries {
		for range 2 {
			feed.turns = append(feed.turns, newTensor(t, make([]float32, tokens*r.half), n, int64(r.half)))
		}
	}
	feed.slot = newTensor(t, make([]int32, tokens), n)
	feed.at = newTensor(t, make([]int32, tokens), n)
	feed.upto = newTensor(t, make([]int32, tokens), n)
	feed.wanted = newTensor(t, make([]int64, wanted), int64(wanted))
	if len(f.rotaries) == 0 {
		feed.positions = newTensor(t, make([]int64, tokens), n)
	}
	feed.logits = newTensor(t, logits, int64(wanted), int64(f.shape.Vocab))
	if t.err != nil {
		t.destroy()
		return nil, t.err
	}
	in := []ort.Value{feed.x, feed.slot, feed.at, feed.upto, feed.wanted}
	for _, turn := range feed.turns {
		in = append(in, turn)
	}
	if feed.positions != nil {
		in = append(in, feed.positions)
	}
	run, err := f.graph.prepare(slices.Concat(in, f.fixed, f.loras[key.adapter]), []ort.Value{feed.logits})
	if err != nil {
		t.destroy()
		return nil, err
	}
	feed.run = run
	return feed, nil
}
