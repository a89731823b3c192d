package modelrt

import (
	"fmt"
	"math"
	"strconv"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/pipeline"
)

// decoder is the language model: the embedding and decoder graphs with their KV caches. A cache is one tensor a layer for keys and
// one for values, [1, kv_heads, capacity, head_dim], given to the graph both as past and as present: GroupQueryAttention then
// appends in place. Going back is feeding positions again. It is for one goroutine at a time.
type decoder struct {
	shape    Decoder
	capacity int
	embed    *graph
	graph    *graph
	tensors  tensors
	rows     []cache // the image that is read, then each decoy, then the blank image
	step     *feed   // one position
	score    []float32
	logits   []float32
}

// cache holds past_k0, past_v0, past_k1, ... of one row.
type cache []ort.Value

// scoreChunk bounds the positions whose logits are held at once when a text is scored.
const scoreChunk = 32

func (r *Runtime) newDecoder(dir string, m *Manifest, rows, capacity, threads int, spin bool) (d *decoder, err error) {
	d = &decoder{shape: m.Decoder, capacity: capacity}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.embed, err = r.load(dir+"/"+m.Graphs.Embed, []string{"input_ids"}, []string{"inputs_embeds"}, 1, false); err != nil {
		return nil, err
	}
	in := []string{"inputs_embeds", "seqlens_k", "total_seq", "logits_indices", "target_ids"}
	out := []string{"logits", "target_logprobs"}
	for l := range m.Decoder.Layers {
		n := strconv.Itoa(l)
		in = append(in, "past_k"+n, "past_v"+n)
		out = append(out, "present_k"+n, "present_v"+n)
	}
	if d.graph, err = r.load(dir+"/"+m.Graphs.Decoder, in, out, threads, spin); err != nil {
		return nil, err
	}
	size := m.Decoder.KVHeads * capacity * m.Decoder.HeadDim
	for range rows {
		var c cache
		for range 2 * m.Decoder.Layers {
			c = append(c, newTensor(&d.tensors, make([]float32, size), 1, int64(m.Decoder.KVHeads), int64(capacity), int64(m.Decoder.HeadDim)))
		}
		d.rows = append(d.rows, c)
	}
	d.score = make([]float32, scoreChunk*m.Decoder.Hidden)
	d.logits = make([]float32, scoreChunk*m.Decoder.Vocab)
	d.step = d.newFeed(&d.tensors, make([]float32, m.Decoder.Hidden), make([]float32, m.Decoder.Vocab), 1)
	if d.tensors.err != nil {
		return nil, d.tensors.err
	}
	return d, nil
}

func (d *decoder) close() {
	d.graph.close()
	d.embed.close()
	d.tensors.destroy()
}

// feed is the tensors of one run but the caches: S positions in, the logits of the last M of them out.
type feed struct {
	positions, wanted int
	x                 *ort.Tensor[float32] // [1, S, hidden]
	seqlens, total    *ort.Tensor[int32]
	targets           *ort.Tensor[int64]   // [1, M]
	logits            *ort.Tensor[float32] // [1, M, vocab]
	logprobs          *ort.Tensor[float32] // [1, M]
	in, out           []ort.Value
}

// newFeed makes a feed over the given memory: x of S×hidden, logits of at least M×vocab.
func (d *decoder) newFeed(t *tensors, x, logits []float32, wanted int) *feed {
	s, m := int64(len(x)/d.shape.Hidden), int64(wanted)
	indices := make([]int64, wanted)
	for i := range indices {
		indices[i] = s - m + int64(i)
	}
	f := &feed{
		positions: int(s), wanted: wanted,
		x:        newTensor(t, x, 1, s, int64(d.shape.Hidden)),
		seqlens:  newTensor(t, make([]int32, 1), 1),
		total:    newTensor(t, make([]int32, 1), 1),
		targets:  newTensor(t, make([]int64, wanted), 1, m),
		logits:   newTensor(t, logits, 1, m, int64(d.shape.Vocab)),
		logprobs: newTensor(t, make([]float32, wanted), 1, m),
	}
	f.in = append(f.in, f.x, f.seqlens, f.total, newTensor(t, indices, m), f.targets)
	f.out = append(f.out, f.logits, f.logprobs)
	return f
}

// run feeds f to a row of which past positions are filled.
func (d *decoder) run(c *call, row cache, f *feed, past int) error {
	total := past + f.positions
	if total > d.capacity {
		return fmt.Errorf("%w: %d positions in a cache of %d", pipeline.ErrModel, total, d.capacity)
	}
	f.total.GetData()[0] = int32(total)
	f.seqlens.GetData()[0] = int32(total - 1)
	in := append(f.in[:5:5], row...)
	out := append(f.out[:2:2], row...)
	return c.run(d.graph, in, out)
}

// lookup writes the embeddings of ids to dst, len(ids)×hidden.
func (d *decoder) lookup(c *call, ids []int32, dst []float32) error {
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

// prefill fills a row with the prompt x, positions×hidden, and returns the logits after it. They are valid until the next run.
func (d *decoder) prefill(c *call, row int, x []float32) ([]float32, error) {
	var t tensors
	defer t.destroy()
	f := d.newFeed(&t, x, d.step.logits.GetData(), 1)
	if t.err != nil {
		return nil, t.err
	}
	if err := d.run(c, d.rows[row], f, 0); err != nil {
		return nil, err
	}
	return d.step.logits.GetData(), nil
}

// next feeds one token at position past of a row and returns the logits after it. They are valid until the next run.
func (d *decoder) next(c *call, row int, id int32, past int) ([]float32, error) {
	if err := d.lookup(c, []int32{id}, d.step.x.GetData()); err != nil {
		return nil, err
	}
	if err := d.run(c, d.rows[row], d.step, past); err != nil {
		return nil, err
	}
	return d.step.logits.GetData(), nil
}

// scores returns, for each row, the log-probability (natural logarithm) of each of ids when they follow the row's prompt of length
// past, whose last token is last. Each row keeps its prompt.
//
// GroupQueryAttention takes several positions after a filled cache for one row at a time only, so rows are run one after another,
// in chunks; the prompts are in the caches already and are not computed again.
func (d *decoder) scores(c *call, last int32, past int, ids []int32) ([][]float64, error) {
	fed := append([]int32{last}, ids[:len(ids)-1]...)
	result := make([][]float64, len(d.rows))
	for from := 0; from < len(ids); from += scoreChunk {
		n := min(scoreChunk, len(ids)-from)
		if err := d.scoreChunk(c, fed[from:from+n], ids[from:from+n], past-1+from, result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (d *decoder) scoreChunk(c *call, fed, targets []int32, past int, result [][]float64) error {
	var t tensors
	defer t.destroy()
	n := len(fed)
	x := d.score[:n*d.shape.Hidden]
	if err := d.lookup(c, fed, x); err != nil {
		return err
	}
	f := d.newFeed(&t, x, d.logits[:n*d.shape.Vocab], n)
	if t.err != nil {
		return t.err
	}
	for i, id := range targets {
		f.targets.GetData()[i] = int64(id)
	}
	for r := range d.rows {
		if err := d.run(c, d.rows[r], f, past); err != nil {
			return err
		}
		for _, v := range f.logprobs.GetData() {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) || v > 1e-3 {
				return fmt.Errorf("%w: a log-probability is %v", pipeline.ErrModel, v)
			}
			result[r] = append(result[r], float64(v))
		}
	}
	return nil
}

// greedy returns the likeliest token; of equal ones the first.
func greedy(logits []float32) (int32, error) {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	if v := float64(logits[best]); math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%w: the decoder's logits are not finite", pipeline.ErrModel)
	}
	return int32(best), nil
}
