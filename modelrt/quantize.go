package modelrt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// Quantization is what Quantize did.
type Quantization struct {
	Form      string   // of the source
	Matrices  int      // that were quantised
	Kept      []string // that were not, with the reason
	Bytes     int64    // of the language model's graphs and weights
	FromBytes int64    // of the source's
}

// quantForm is what Quantize makes: of the layers' matrices, and of the table and the head, which every token goes through.
type quantForm struct{ layers, table kernel.Form }

var quantForms = map[string]quantForm{
	"q4": {kernel.Q41, kernel.Q80},
	"q8": {kernel.Q80, kernel.Q80},
}

// QuantForms names what Quantize makes.
func QuantForms() []string { return []string{"q4", "q8"} }

// Quantize writes to the folder out, which must not be there, a bundle whose language model is that of b in blocks of 4 or 8 bits, as "to" says: the one
// form that it has, with weights of its own. It starts from the form called form; empty is the one of the most bytes. What the bundle is
// otherwise, its adapter too, stays; adapters of b's base model fit the new bundle.
//
// Errors: ErrUnsupported, with the reason, where it cannot be done; ErrInvalid where out is there already; those of Prepare.
func Quantize(ctx context.Context, b *Bundle, base BaseModel, form, to, out string) (q *Quantization, err error) {
	want, ok := quantForms[to]
	if !ok {
		return nil, fmt.Errorf("%w: %.40q is none of %s; matrices of 16 bits are for CUDA, whose graphs train/ writes", pipeline.ErrUnsupported, to, strings.Join(QuantForms(), ", "))
	}
	if err := b.CanQuantize(); err != nil {
		return nil, err
	}
	source, err := b.widest(form)
	if err != nil {
		return nil, err
	}
	digest, err := b.BaseDigest()
	if err != nil {
		return nil, err
	}
	prepared, err := b.Prepare(ctx, source, base)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(out, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(out)
		}
	}()
	z := &quantizer{want: want, done: map[string]span{}, Quantization: Quantization{Form: source.Name}}
	if err := z.convert(ctx, prepared, source, out); err != nil {
		return nil, fmt.Errorf("bundle %s: %w", b.Manifest.Name, err)
	}
	return &z.Quantization, b.writeQuantized(source, to, digest, out)
}

// CanQuantize says why Quantize would refuse the bundle, whatever is made of it.
func (b *Bundle) CanQuantize() error {
	if b.Manifest.Kind == KindRemote {
		return fmt.Errorf("%w: bundle %s has no weights that could be quantised: its model is elsewhere", pipeline.ErrUnsupported, b.Manifest.Name)
	}
	return nil
}

// widest finds the form to start from.
func (b *Bundle) widest(name string) (*Form, error) {
	if name != "" {
		f, err := b.Manifest.form(name, CPU)
		if err == nil && f.Kind != KindFlat {
			err = fmt.Errorf("%w: the form %s of bundle %s is of the kind %s; one of the kind %s is quantised", pipeline.ErrUnsupported, name, b.Manifest.Name, f.Kind, KindFlat)
		}
		return f, err
	}
	var best *Form
	for i := range b.Manifest.Base.Forms {
		if f := &b.Manifest.Base.Forms[i]; f.Kind == KindFlat && (best == nil || f.WeightsBytes > best.WeightsBytes) {
			best = f
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: bundle %s has no form of the kind %s, whose matrices could be quantised", pipeline.ErrUnsupported, b.Manifest.Name, KindFlat)
	}
	return best, nil
}

// span is where bytes are in the new weights.bin.
type span struct{ offset, length int64 }

// quantizer converts the graphs of a form one after the other into one weights.bin.
type quantizer struct {
	Quantization
	want    quantForm
	weights []byte // of the source
	out     *bufio.Writer
	end     int64
	done    map[string]span // by what they are made of
}

func (z *quantizer) convert(ctx context.Context, dir string, form *Form, out string) error {
	weights, unmap, err := mapped(filepath.Join(dir, weightsName))
	if err != nil {
		return err
	}
	defer unmap()
	z.weights, z.FromBytes = weights, int64(len(weights))
	file, err := os.Create(filepath.Join(out, weightsName))
	if err != nil {
		return err
	}
	defer file.Close()
	z.out = bufio.NewWriterSize(file, 1<<20)
	for _, name := range []string{form.Embed, form.Decoder} {
		b, err := readBounded(filepath.Join(dir, name), maxGraph)
		if err != nil {
			return err
		}
		made, err := z.graph(ctx, b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		z.FromBytes, z.Bytes = z.FromBytes+int64(len(b)), z.Bytes+int64(len(made))
		if err := writeSynced(filepath.Join(out, name), made); err != nil {
			return err
		}
	}
	if z.Matrices == 0 {
		return fmt.Errorf("%w: no matrix of its form %s can be quantised: %s", pipeline.ErrUnsupported, form.Name, strings.Join(z.Kept, "; "))
	}
	z.Bytes += z.end
	return errors.Join(z.out.Flush(), file.Sync())
}

// graph converts one graph. A matrix that two nodes share must be the same for both.
func (z *quantizer) graph(ctx context.Context, model []byte) ([]byte, error) {
	nodes := map[string]packedNode{} // by their matrix
	target := func(n packedNode) kernel.Form {
		if n.kind == "Embed" || slices.Contains(n.outputs, "logits") {
			return z.want.table
		}
		return z.want.layers
	}
	plain := func(b []byte) ([]byte, error) { return b, nil }
	_, err := rewriteGraph(model, func(b []byte) ([]byte, error) {
		n, err := parsePackedNode(b)
		if (n.kind == "Linear" || n.kind == "Embed") && len(n.inputs) > 1 {
			nodes[n.inputs[1]] = n
		}
		return b, err
	}, plain)
	if err != nil {
		return nil, err
	}
	fits := func(n packedNode) bool {
		return kernel.Form(n.numbers["form"]) != target(n) && n.numbers["k"]%32 == 0 && n.numbers["k"] > 0
	}
	return rewriteGraph(model, func(b []byte) ([]byte, error) {
		n, err := parsePackedNode(b)
		if err != nil || (n.kind != "Linear" && n.kind != "Embed") || len(n.inputs) < 2 || !fits(n) {
			return b, err
		}
		return withForm(b, int(target(n)))
	}, func(b []byte) ([]byte, error) {
		t, err := parseInitializer(b)
		if err != nil || ctx.Err() != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		raw := t.raw
		if o := t.outside; o != nil {
			if o.location != weightsName || o.offset < 0 || o.length < 0 || o.offset > int64(len(z.weights)) || o.length > int64(len(z.weights))-o.offset {
				return nil, fmt.Errorf("%w: initializer %s lies outside %s", pipeline.ErrInvalid, t.name, weightsName)
			}
			raw = z.weights[o.offset:][:o.length]
		}
		n, isMatrix := nodes[t.name]
		switch {
		case isMatrix && fits(n):
			z.Matrices++
			return z.matrix(ctx, b, raw, n, target(n))
		case isMatrix:
			why := fmt.Sprintf("%s is in that form already", t.name)
			if k := n.numbers["k"]; k%32 != 0 {
				why = fmt.Sprintf("%s has %d inputs, no multiple of 32", t.name, k)
			}
			z.Kept = append(z.Kept, why)
		}
		if t.outside == nil {
			return b, nil
		}
		at, err := z.put(fmt.Sprintf("%d %d", t.outside.offset, t.outside.length), raw)
		if err != nil {
			return nil, err
		}
		return outsideTensor(b, nil, at.offset, at.length)
	})
}

// matrix packs a matrix anew.
func (z *quantizer) matrix(ctx context.Context, tensor, raw []byte, n packedNode, to kernel.Form) ([]byte, error) {
	from, k, columns := kernel.Form(n.numbers["form"]), int(n.numbers["k"]), int(n.numbers["n"])
	if from.Bytes(k, columns) != int64(len(raw)) {
		return nil, fmt.Errorf("%w: a matrix of %d×%d has %d bytes", pipeline.ErrInvalid, k, columns, len(raw))
	}
	key := fmt.Sprintf("%x %d %d", sha256.Sum256(raw), to, columns)
	at, ok := z.done[key]
	if !ok {
		packed, err := repacked(ctx, raw, from, to, k, columns)
		if err != nil {
			return nil, err
		}
		if at, err = z.put(key, packed); err != nil {
			return nil, err
		}
	}
	return outsideTensor(tensor, []int64{at.length}, at.offset, at.length)
}

// put appends bytes to weights.bin, at a page, once for a key.
func (z *quantizer) put(key string, b []byte) (span, error) {
	if at, ok := z.done[key]; ok {
		return at, nil
	}
	const page = 4096
	gap := -z.end & (page - 1)
	if _, err := z.out.Write(make([]byte, gap)); err != nil {
		return span{}, err
	}
	at := span{z.end + gap, int64(len(b))}
	z.end = at.offset + at.length
	z.done[key] = at
	_, err := z.out.Write(b)
	return at, err
}

// repacked turns a packed matrix into another form, panel after panel.
func repacked(ctx context.Context, raw []byte, from, to kernel.Form, k, columns int) ([]byte, error) {
	if uintptr(unsafe.Pointer(unsafe.SliceData(raw)))%4 != 0 {
		raw = append(make([]byte, 0, len(raw)+4), raw...) // Go's memory is aligned
	}
	quantize, panel, size := quantizeQ80, packQ80, 34
	if to == kernel.Q41 {
		quantize, panel, size = quantizeQ41, packQ41, 20
	}
	out := make([]byte, to.Bytes(k, columns))
	panels := (columns + kernel.Panel - 1) / kernel.Panel
	each := len(out) / panels
	rows := make([][]byte, kernel.Panel)
	for p := range panels {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		for j := range rows {
			rows[j] = make([]byte, k/32*size)
			at := p*kernel.Panel + j
			if at >= columns {
				continue
			}
			values, err := kernel.Column(raw, from, k, columns, at)
			if err != nil {
				return nil, err
			}
			if !finite(values) {
				return nil, fmt.Errorf("%w: a matrix holds numbers that are not finite", pipeline.ErrInvalid)
			}
			for b := range k / 32 {
				quantize(rows[j][b*size:][:size], values[32*b:][:32])
			}
		}
		panel(out[p*each:][:each], rows, blockFormat{values: 32, bytes: int64(size)})
	}
	return out, nil
}

// mapped is a file of weights, in memory as far as it is read; nil where there is none.
func mapped(path string) (b []byte, unmap func(), err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, func() {}, err
	}
	b, err = syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	return b, func() { _ = syscall.Munmap(b) }, err // it was mapped
}
