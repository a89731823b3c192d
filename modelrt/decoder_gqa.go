package modelrt

import (
	"fmt"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/pipeline"
)

// gqa is a decoder of the kind gqa. Its caches are, for each slot, one tensor a layer for keys and one for values, [1, kv_heads, capacity,
// head_dim], given to the graph both as past and as present: GroupQueryAttention then appends in place. It takes several positions
// behind a filled cache for one text at a time only, so a batch is run slot after slot.
type gqa struct {
	shape    Decoder
	capacity int
	embed    *graph
	graph    *graph
	tensors  tensors
	slots    [][]ort.Value // past_k0, past_v0, past_k1, ...
	step     *gqaFeed      // one position
	logits   []float32
}

func (r *Runtime) newGQA(dir string, m *Manifest, form *Form, slots, capacity, threads int, spin bool) (d *gqa, err error) {
	d = &gqa{shape: m.Decoder, capacity: capacity}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.embed, err = r.load(dir+"/"+form.Embed, []string{"input_ids"}, []string{"inputs_embeds"}, 1, false); err != nil {
		return nil, err
	}
	in := []string{"inputs_embeds", "seqlens_k", "total_seq", "logits_indices", "target_ids"}
	out := []string{"logits", "target_logprobs"}
	for l := range m.Decoder.Layers {
		n := strconv.Itoa(l)
		in = append(in, "past_k"+n, "past_v"+n)
		out = append(out, "present_k"+n, "present_v"+n)
	}
	if d.graph, err = r.load(dir+"/"+form.Decoder, in, out, threads, spin); err != nil {
		return nil, err
	}
	size := m.Decoder.KVHeads * capacity * m.Decoder.HeadDim
	for range slots {
		var c []ort.Value
		for range 2 * m.Decoder.Layers {
			c = append(c, newTensor(&d.tensors, make([]float32, size), 1, int64(m.Decoder.KVHeads), int64(capacity), int64(m.Decoder.HeadDim)))
		}
		d.slots = append(d.slots, c)
	}
	d.step = d.newFeed(&d.tensors, make([]float32, m.Decoder.Hidden), []int64{0}, make([]float32, m.Decoder.Vocab))
	if d.tensors.err != nil {
		return nil, d.tensors.err
	}
	return d, nil
}

func (d *gqa) close() {
	d.graph.close()
	d.embed.close()
	d.tensors.destroy()
}

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

// gqaFeed is the tensors of one run but the caches.
type gqaFeed struct {
	x              *ort.Tensor[float32] // [1, S, hidden]
	seqlens, total *ort.Tensor[int32]
	in, out        []ort.Value
}

// newFeed makes a feed over the given memory: x of S×hidden, logits of wanted×vocab.
func (d *gqa) newFeed(t *tensors, x []float32, wanted []int64, logits []float32) *gqaFeed {
	s, m := int64(len(x)/d.shape.Hidden), int64(len(wanted))
	f := &gqaFeed{
		x:       newTensor(t, x, 1, s, int64(d.shape.Hidden)),
		seqlens: newTensor(t, make([]int32, 1), 1),
		total:   newTensor(t, make([]int32, 1), 1),
	}
	targets := newTensor(t, make([]int64, m), 1, m)
	f.in = append(f.in, f.x, f.seqlens, f.total, newTensor(t, wanted, m), targets)
	f.out = append(f.out, newTensor(t, logits, 1, m, int64(d.shape.Vocab)), newTensor(t, make([]float32, m), 1, m))
	return f
}

func (d *gqa) share(from, to, n int) error {
	for i := range d.slots[from] {
		source, target := d.slots[from][i].(*ort.Tensor[float32]).GetData(), d.slots[to][i].(*ort.Tensor[float32]).GetData()
		head := d.capacity * d.shape.HeadDim
		for h := range d.shape.KVHeads {
			copy(target[h*head:][:n*d.shape.HeadDim], source[h*head:][:n*d.shape.HeadDim])
		}
	}
	return nil
}

func (d *gqa) run(c *call, b *batch) error {
	if err := b.check(len(d.slots), d.capacity, d.shape.Hidden); err != nil {
		return err
	}
	vocab := d.shape.Vocab
	if need := len(b.wanted) * vocab; cap(d.logits) < need {
		d.logits = make([]float32, need)
	}
	b.logits = d.logits[:len(b.wanted)*vocab]
	done := 0
	for from := 0; from < b.tokens(); {
		to := from + 1
		for to < b.tokens() && b.slot[to] == b.slot[from] {
			if b.at[to] != b.at[to-1]+1 {
				return fmt.Errorf("%w: this form wants the places of a text one after another", pipeline.ErrUnsupported)
			}
			to++
		}
		var wanted []int64
		for done+len(wanted) < len(b.wanted) && b.wanted[done+len(wanted)] < int64(to) {
			wanted = append(wanted, b.wanted[done+len(wanted)]-int64(from))
		}
		if err := d.text(c, b, from, to, wanted, b.logits[done*vocab:(done+len(wanted))*vocab]); err != nil {
			return err
		}
		done += len(wanted)
		from = to
	}
	return nil
}

// text feeds tokens from ... to-1 of b, which are of one slot.
func (d *gqa) text(c *call, b *batch, from, to int, wanted []int64, logits []float32) error {
	var t tensors
	defer t.destroy()
	hidden, f, single := d.shape.Hidden, d.step, to-from == 1 && len(wanted) == 1
	if single {
		copy(f.x.GetData(), b.x[from*hidden:])
	} else {
		if len(wanted) == 0 { // the graph has logits in any case
			wanted, logits = []int64{0}, make([]float32, d.shape.Vocab)
		}
		f = d.newFeed(&t, b.x[from*hidden:to*hidden], wanted, logits)
		if t.err != nil {
			return t.err
		}
	}
	total := b.at[to-1] + 1
	f.total.GetData()[0] = total
	f.seqlens.GetData()[0] = total - 1
	slot := d.slots[b.slot[from]]
	if err := c.run(d.graph, append(f.in[:5:5], slot...), append(f.out[:2:2], slot...)); err != nil {
		return err
	}
	if single {
		copy(logits, f.out[0].(*ort.Tensor[float32]).GetData())
	}
	return nil
}
