package modelrt

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"chatxray/modelrt/kernel"
)

// BenchmarkGPU measures a decoder of random weights in the folder CHATXRAY_SHAPE (train/shape.py makes it, bench/cuda/run.sh calls both): the
// bytes that it reads for a token beside the speed of the memory, and reports a minute side by side beside one at a time. CHATXRAY_GPU chooses the
// device: cuda, or cpu to try the script.
func BenchmarkGPU(b *testing.B) {
	dir := os.Getenv("CHATXRAY_SHAPE")
	if dir == "" {
		b.Skip("needs a GPU; bench/cuda/run.sh runs it where one is")
	}
	var shape struct {
		Name    string
		Decoder Decoder
		Form    Form
	}
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, "shape.json"))), &shape); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := fillWeights(dir, &shape.Form); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\nweights of %s, %s: %.2f GB, filled in %.0f s\n", shape.Name, shape.Form.Precision, float64(shape.Form.WeightsBytes)/1e9, time.Since(began).Seconds())
	var r *Runtime
	if os.Getenv("CHATXRAY_GPU") == "cuda" {
		r = gpuRuntime(b)
		for i, g := range FindCUDA("").GPUs {
			fmt.Printf("GPU %d: %s, %.1f of %.1f GiB free\n", i, g.Name, float64(g.Free)/(1<<30), float64(g.Total)/(1<<30))
		}
	} else {
		r = runtimeFor(b)
	}
	slots := must(strconv.Atoi(cmp.Or(os.Getenv("SLOTS"), "32")))
	prompt, answer := must(strconv.Atoi(cmp.Or(os.Getenv("PROMPT"), "640"))), must(strconv.Atoi(cmp.Or(os.Getenv("ANSWER"), "160")))
	began = time.Now()
	d, err := r.newGQA(dir, &Manifest{Name: shape.Name, Decoder: shape.Decoder}, &shape.Form, slots, prompt+answer+1, 0, false)
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	fmt.Printf("loaded in %.0f s: %d slots of %d tokens, caches %.2f GB\n", time.Since(began).Seconds(), slots, d.capacity, float64(slots*d.row()*len(d.caches)*d.element.Bytes())/1e9)

	bandwidth := copyBandwidth(b, r, d)
	step := decodeStep(b, d, prompt, answer)
	weights := int64(0)
	for _, o := range must(readSignature(filepath.Join(dir, shape.Form.Decoder))).outside {
		weights += o.length
	}
	caches := int64(prompt+answer/2) * int64(len(d.caches)*shape.Decoder.KVHeads*shape.Decoder.HeadDim*d.element.Bytes())
	fmt.Printf("memory: %.0f GB/s read and written by a copy\n", bandwidth/1e9)
	fmt.Printf("decode, B=1 behind %d tokens: %.2f ms a token (median of %d), %.2f GB of weights and %.3f GB of caches: %.0f GB/s\n",
		prompt, 1e3*step, answer, float64(weights)/1e9, float64(caches)/1e9, float64(weights+caches)/step/1e9)
	fmt.Printf("bytes a token / bandwidth of the copy: %.2f", float64(weights+caches)/step/bandwidth)
	if nominal, err := strconv.ParseFloat(os.Getenv("NOMINAL_GBS"), 64); err == nil {
		fmt.Printf("; of the nominal %.0f GB/s: %.2f", nominal, float64(weights+caches)/step/1e9/nominal)
	}
	fmt.Println(" (bar 0.6)")

	e := newEngine(d, &Manifest{Decoder: shape.Decoder}, slots, 0, d.capacity, maxWaiting)
	e.pieces = piecesOf(r.device)
	c := must(begin(context.Background()))
	go e.work(c)
	defer c.end()
	defer e.close()
	reports := func(beside, n int) float64 {
		began, turn := time.Now(), make(chan struct{}, beside)
		var wait sync.WaitGroup
		for range n {
			turn <- struct{}{}
			wait.Go(func() {
				random := rand.New(rand.NewPCG(rand.Uint64(), 1))
				t := &text{ctx: context.Background(), keys: make([]uint64, prompt), prompt: make([]float32, prompt*shape.Decoder.Hidden), choose: greedy}
				for i := range t.keys {
					t.keys[i] = random.Uint64() // nothing is known of it
				}
				for i := range t.prompt {
					t.prompt[i] = random.Float32() - 0.5
				}
				count := 0
				t.take = func(int32, float64) bool { count++; return count < answer }
				if err := e.write(t); err != nil {
					b.Error(err)
				}
				<-turn
			})
		}
		wait.Wait()
		return float64(n) / time.Since(began).Minutes()
	}
	reports(slots, slots) // every size of step has been there once
	var one, many []float64
	for range 3 {
		one, many = append(one, reports(1, 4)), append(many, reports(slots, 2*slots))
	}
	fmt.Printf("reports a minute (%d tokens of prompt, %d of answer, medians of 3): %.1f one at a time, %.1f with %d slots: %.1f times (bar 12 at 32 slots)\n",
		prompt, answer, middle(one), middle(many), slots, middle(many)/middle(one))
}

// copyBandwidth is the bytes a second that a copy in the device's memory reads and writes.
func copyBandwidth(b *testing.B, r *Runtime, d *gqa) float64 {
	values := 1 << 30 // 2 GiB in 16 bits
	if r.device == CPU {
		values = 1 << 26
	}
	copier, err := r.loadCopier(1, d.element)
	if err != nil {
		b.Fatal(err)
	}
	defer copier.close()
	name, id := r.memory()
	memory := must(kernel.OpenDevice(r.library, copier.session, name, id))
	defer memory.Close()
	var tensors [2]*kernel.Tensor
	for i := range tensors {
		tensors[i] = must(must(memory.Alloc(values*d.element.Bytes())).Tensor(0, d.element, 1, 1, 1, int64(values)))
		defer tensors[i].Free()
	}
	var speeds []float64
	for range 10 {
		began := time.Now()
		if err := copyCaches(copier, tensors[:1], tensors[1:]); err != nil {
			b.Fatal(err)
		}
		speeds = append(speeds, float64(2*values*d.element.Bytes())/time.Since(began).Seconds())
	}
	return middle(speeds)
}

// decodeStep is the seconds of a token of one text behind a prompt: with the look-up of its embedding, without an engine.
func decodeStep(b *testing.B, d *gqa, prompt, answer int) float64 {
	c := must(begin(context.Background()))
	defer c.end()
	x := make([]float32, prompt*d.shape.Hidden)
	for i := range x {
		x[i] = rand.Float32() - 0.5
	}
	var next batch
	next.add(0, 0, x, prompt, nil)
	next.want()
	if err := d.run(c, &next); err != nil {
		b.Fatal(err)
	}
	row := make([]float32, d.shape.Hidden)
	var steps []float64
	for i := range answer {
		began := time.Now()
		id, _ := kernel.Best(next.logits)
		if err := d.lookup(c, []int32{id}, row); err != nil {
			b.Fatal(err)
		}
		next.clear()
		next.add(0, prompt+i, row, 1, nil)
		next.want()
		if err := d.run(c, &next); err != nil {
			b.Fatal(err)
		}
		steps = append(steps, time.Since(began).Seconds())
	}
	for i, v := range next.logits {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			b.Fatalf("logit %d is %v", i, v)
		}
	}
	return middle(steps)
}

// fillWeights writes weights.bin of a layout where there is none of its size: gains of norms are 1, matrices normal, so that activations keep their size
// from layer to layer. The numbers repeat after a million.
func fillWeights(dir string, form *Form) error {
	path := filepath.Join(dir, weightsName)
	if info, err := os.Stat(path); err == nil && info.Size() == form.WeightsBytes {
		return nil
	}
	layout, err := readLayout(filepath.Join(dir, form.Layout), form.WeightsBytes)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const period = 1 << 20
	random := rand.New(rand.NewPCG(1, 2))
	normal := make([]float32, period)
	for i := range normal {
		normal[i] = float32(random.NormFloat64())
	}
	w := bufio.NewWriterSize(f, 1<<22)
	at := int64(0)
	for _, s := range layout {
		if _, err := io.CopyN(w, zeros{}, s.Offset-at); err != nil {
			return err
		}
		values := slices.Clone(normal)
		switch size := float32(1); s.Op {
		case "f32":
			for i := range values {
				values[i] = 1
			}
		default:
			inputs := s.Shape[0]
			if s.Op == "q8deq" { // the table, which is the head too: logits spread by 2
				inputs, size = s.Shape[1], 2
			}
			for i := range values {
				values[i] *= size / float32(math.Sqrt(float64(inputs)))
			}
		}
		piece := encoded(values, s.DType)
		shift := random.IntN(period) * len(piece) / period &^ 3
		for left := s.Bytes; left > 0; {
			n := min(left, int64(len(piece)-shift))
			if _, err := w.Write(piece[shift:][:n]); err != nil {
				return err
			}
			left, shift = left-n, 0
		}
		at = s.Offset + s.Bytes
	}
	return w.Flush()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
