package modelrt

import (
	"fmt"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// gqa is a decoder of the kind gqa, on any device. Its caches are one tensor a layer for keys and one for values, [slots, kv_heads, capacity,
// head_dim], in the memory that the graph works in. A run is given rows of them, both as past and as present: GroupQueryAttention then
// appends in place, and nothing of a cache is copied.
//
// GroupQueryAttention takes several positions behind a filled cache for one text at a time only, so pieces of prompts are run by
// themselves. Texts of which one token is fed are run side by side: all rows from the first of them to the last. A row between them that
// is not fed gets a token behind the last place that it was fed at, where nothing counts.
type gqa struct {
	shape           Decoder
	element         kernel.Element // of the caches
	slots, capacity int
	embed           *graph // on the CPU: a table is read
	graph           *graph
	copier          *graph // caches to caches
	device          *kernel.Device
	caches          []kernel.Memory // keys and values of layer 0, of layer 1, ...
	filled          []int           // of each slot, the place behind that fed last
	views           map[rowRange][]*kernel.Tensor
	steps           map[rowRange]*gqaFeed // runs of one token of each row
	single          []single
	x, logits       []float32 // of steps; logits of others are in a batch's memory
	seqlens         []int32
	given           []float32 // what b.logits points into
}

// rowRange is rows from ... to-1 of the caches.
type rowRange struct{ from, to int }

// single is the only token of its slot in a batch, and which of the wanted logits are its own; -1 for none.
type single struct{ token, wanted int }

// elements are the values of caches by the precision of a form.
var elements = map[string]kernel.Element{"": kernel.Float32, precisionFloat32: kernel.Float32, precisionFloat16: kernel.Float16, precisionBFloat16: kernel.BFloat16}

func (r *Runtime) newGQA(dir string, m *Manifest, form *Form, slots, capacity, threads int, spin bool) (d *gqa, err error) {
	if r.device == CUDA && !form.halved() {
		return nil, fmt.Errorf("%w: the form %s of bundle %s is of float32, which ONNX Runtime's GroupQueryAttention does not take on CUDA; choose a form of float16 or bfloat16, or the device cpu",
			pipeline.ErrUnsupported, form.Name, m.Name)
	}
	s := m.Decoder
	d = &gqa{shape: s, element: elements[form.Precision], slots: slots, capacity: capacity, filled: make([]int, slots), views: map[rowRange][]*kernel.Tensor{}, steps: map[rowRange]*gqaFeed{},
		x: make([]float32, slots*s.Hidden), logits: make([]float32, slots*s.Vocab), seqlens: make([]int32, slots)}
	made := d // a return of nil takes d away
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	if d.embed, err = r.onCPU().load(dir+"/"+form.Embed, []string{"input_ids"}, []string{"inputs_embeds"}, 1, false); err != nil {
		return nil, err
	}
	in, out := []string{"inputs_embeds", "seqlens_k", "total_seq", "logits_indices"}, []string{"logits"}
	for l := range s.Layers {
		n := strconv.Itoa(l)
		in = append(in, "past_k"+n, "past_v"+n)
		out = append(out, "present_k"+n, "present_v"+n)
	}
	if d.graph, err = r.load(dir+"/"+form.Decoder, in, out, threads, spin); err != nil {
		return nil, err
	}
	if d.copier, err = r.loadCopier(2*s.Layers, d.element); err != nil {
		return nil, err
	}
	name, id := r.memory()
	if d.device, err = kernel.OpenDevice(r.library, d.graph.session, name, id); err != nil {
		return nil, fmt.Errorf("%w: ONNX Runtime gives no access to the memory of %s: %s", pipeline.ErrUnsupported, r.where(), oneLine(err))
	}
	for range 2 * s.Layers {
		bytes := slots * d.row() * d.element.Bytes()
		cache, err := d.device.Alloc(bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: the caches of %d texts of %d tokens take %d MB of %s, which are not there; set fewer model.texts: %s",
				pipeline.ErrBusy, slots, capacity, 2*s.Layers*bytes>>20, r.where(), oneLine(err))
		}
		d.caches = append(d.caches, cache)
	}
	if r.device == CUDA { // what memory held before may be no number, and no kernel may be trusted to leave it out
		return d, d.clear(r)
	}
	return d, nil
}

// row is the values of one slot in a cache.
func (d *gqa) row() int { return d.shape.KVHeads * d.capacity * d.shape.HeadDim }

func (d *gqa) close() {
	d.room(keptRows + 1)
	d.device.Close()
	d.copier.close()
	d.graph.close()
	d.embed.close()
}

func freeAll(tensors []*kernel.Tensor) {
	for _, t := range tensors {
		t.Free()
	}
}

// wear does nothing: the one adapter is in the weights.
func (d *gqa) wear(int, int) {}

func (d *gqa) lookup(c *call, ids []int32, dst []float32) error {
	var t tensors
	defer t.destroy()
	wide := make([]int64, len(ids))
	for i, id := range ids {
		wide[i] = int64(id)
	}
	n := int64(len(ids))
	in, out := newTensor(&t, wide, 1, n), newTensor(&t, dst, 1, n, int64(d.shape.Hidden))
	if t.err != nil {
		return t.err
	}
	return c.run(d.embed, []ort.Value{in}, []ort.Value{out})
}

// keptRows bounds the views and the feeds that are kept.
const keptRows = 64

// view returns tensors of rows of all caches, which last until room makes room.
func (d *gqa) view(rows rowRange) ([]*kernel.Tensor, error) {
	if kept, ok := d.views[rows]; ok {
		return kept, nil
	}
	var made []*kernel.Tensor
	for _, cache := range d.caches {
		v, err := cache.Tensor(rows.from*d.row(), d.element, int64(rows.to-rows.from), int64(d.shape.KVHeads), int64(d.capacity), int64(d.shape.HeadDim))
		if err != nil {
			freeAll(made)
			return nil, fmt.Errorf("%w: %s", pipeline.ErrModel, oneLine(err))
		}
		made = append(made, v)
	}
	d.views[rows] = made
	return made, nil
}

// room frees what is kept where n more views would be too many.
func (d *gqa) room(n int) {
	if len(d.views)+n <= keptRows {
		return
	}
	for _, f := range d.steps {
		f.free()
	}
	for _, v := range d.views {
		freeAll(v)
	}
	clear(d.steps)
	clear(d.views)
}

// gqaFeed is a run of rows, each with as many tokens.
type gqaFeed struct {
	total *ort.Tensor[int32]
	run   *kernel.Run
	made  tensors
}

func (f *gqaFeed) free() {
	f.run.Close()
	f.made.destroy()
}

// newFeed makes a feed over the given memory: x of rows×S×hidden, seqlens of rows, logits of rows×wanted×vocab.
func (d *gqa) newFeed(rows rowRange, x []float32, seqlens []int32, wanted []int64, logits []float32) (*gqaFeed, error) {
	d.room(1)
	caches, err := d.view(rows)
	if err != nil {
		return nil, err
	}
	f := &gqaFeed{}
	t, n, hidden := &f.made, int64(rows.to-rows.from), int64(d.shape.Hidden)
	f.total = newTensor(t, make([]int32, 1), 1)
	in := []ort.Value{newTensor(t, x, n, int64(len(x))/n/hidden, hidden), newTensor(t, seqlens, n), f.total, newTensor(t, wanted, int64(len(wanted)))}
	out := newTensor(t, logits, n, int64(len(wanted)), int64(d.shape.Vocab))
	if t.err != nil {
		t.destroy()
		return nil, t.err
	}
	var ins, outs []kernel.Operand
	for _, v := range in {
		ins = append(ins, v)
	}
	outs = append(outs, out)
	for _, c := range caches {
		ins, outs = append(ins, c), append(outs, c)
	}
	if f.run, err = kernel.NewRun(d.graph.library, d.graph.session, d.graph.inputs, d.graph.outputs, ins, outs); err != nil {
		t.destroy()
		return nil, fmt.Errorf("%w: %s: %v", pipeline.ErrUnsupported, d.graph.name, err)
	}
	return f, nil
}

func (d *gqa) run(c *call, b *batch) error {
	if err := b.check(d.slots, d.capacity, d.shape.Hidden); err != nil {
		return err
	}
	vocab := d.shape.Vocab
	if need := len(b.wanted) * vocab; cap(d.given) < need {
		d.given = make([]float32, need)
	}
	b.logits = d.given[:len(b.wanted)*vocab]
	d.single = d.single[:0]
	done := 0
	for from := 0; from < b.tokens(); {
		to := from + 1
		for to < b.tokens() && b.slot[to] == b.slot[from] {
			if b.at[to] != b.at[to-1]+1 {
				return fmt.Errorf("%w: this form wants the places of a text one after another", pipeline.ErrUnsupported)
			}
			to++
		}
		first := done
		for done < len(b.wanted) && b.wanted[done] < int64(to) {
			done++
		}
		switch {
		case to-from > 1:
			if err := d.piece(c, b, from, to, b.wanted[first:done], b.logits[first*vocab:done*vocab]); err != nil {
				return err
			}
		case first < done:
			d.single = append(d.single, single{from, first})
		default:
			d.single = append(d.single, single{from, -1})
		}
		from = to
	}
	if len(d.single) > 0 {
		return d.step(c, b)
	}
	return nil
}

// piece feeds tokens from ... to-1 of b, which are of one slot.
func (d *gqa) piece(c *call, b *batch, from, to int, wanted []int64, logits []float32) error {
	at := make([]int64, 0, len(wanted)+1)
	for _, w := range wanted {
		at = append(at, w-int64(from))
	}
	if len(at) == 0 { // the graph has logits in any case
		at, logits = append(at, 0), d.logits[:d.shape.Vocab]
	}
	slot, total := int(b.slot[from]), b.at[to-1]+1
	f, err := d.newFeed(rowRange{slot, slot + 1}, b.x[from*d.shape.Hidden:to*d.shape.Hidden], []int32{total - 1}, at, logits)
	if err != nil {
		return err
	}
	defer f.free()
	f.total.GetData()[0] = total
	if err := c.repeat(d.graph, f.run); err != nil {
		return err
	}
	d.filled[slot] = int(total)
	return nil
}

// step feeds the single tokens of b.
func (d *gqa) step(c *call, b *batch) error {
	rows := rowRange{d.slots, 0}
	for _, s := range d.single {
		slot := int(b.slot[s.token])
		rows.from, rows.to = min(rows.from, slot), max(rows.to, slot+1)
	}
	f, ok := d.steps[rows]
	if !ok {
		n := rows.to - rows.from
		var err error
		if f, err = d.newFeed(rows, d.x[:n*d.shape.Hidden], d.seqlens[:n], []int64{0}, d.logits[:n*d.shape.Vocab]); err != nil {
			return err
		}
		d.steps[rows] = f
	}
	hidden, vocab, total := d.shape.Hidden, d.shape.Vocab, int32(0)
	for i := range rows.to - rows.from {
		// No text begins with what a full slot held at its last place, which is fed in any case.
		d.seqlens[i] = int32(min(d.filled[rows.from+i], d.capacity-1))
	}
	for _, s := range d.single {
		i := int(b.slot[s.token]) - rows.from
		d.seqlens[i] = b.at[s.token]
		copy(d.x[i*hidden:][:hidden], b.x[s.token*hidden:])
	}
	for _, n := range d.seqlens[:rows.to-rows.from] {
		total = max(total, n+1)
	}
	f.total.GetData()[0] = total
	if err := c.repeat(d.graph, f.run); err != nil {
		return err
	}
	for _, s := range d.single {
		slot := int(b.slot[s.token])
		d.filled[slot] = int(b.at[s.token]) + 1
		if s.wanted >= 0 {
			copy(b.logits[s.wanted*vocab:][:vocab], d.logits[(slot-rows.from)*vocab:])
		}
	}
	return nil
}

// share copies a whole row: it is one piece of memory.
func (d *gqa) share(from, to, n int) error {
	d.room(2)
	source, err := d.view(rowRange{from, from + 1})
	if err != nil {
		return err
	}
	target, err := d.view(rowRange{to, to + 1})
	if err != nil {
		return err
	}
	if err := copyCaches(d.copier, source, target); err != nil {
		return err
	}
	d.filled[to] = n
	return nil
}

// clear fills the caches with zeros: the first row, cache after cache, with one of ours, the others with the first.
func (d *gqa) clear(r *Runtime) error {
	copier, err := r.loadCopier(1, d.element)
	if err != nil {
		return err
	}
	defer copier.close()
	zero, err := ort.NewCustomDataTensor(ort.NewShape(1, int64(d.shape.KVHeads), int64(d.capacity), int64(d.shape.HeadDim)), make([]byte, d.row()*d.element.Bytes()), ort.TensorElementDataType(d.element))
	if err != nil {
		return err
	}
	defer func() { _ = zero.Destroy() }()
	first, err := d.view(rowRange{0, 1})
	if err != nil {
		return err
	}
	for i := range first {
		if err := copyCaches(copier, []*ort.CustomDataTensor{zero}, first[i:i+1]); err != nil {
			return err
		}
	}
	for s := 1; s < d.slots; s++ {
		if err := d.share(0, s, 0); err != nil {
			return err
		}
	}
	return nil
}
