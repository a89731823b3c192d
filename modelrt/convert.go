package modelrt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"chatxray/pipeline"
)

// conversion turns a base model into weights.bin.
type conversion struct {
	base     *gguf
	layout   []slot
	lora     map[string]lowRank
	headDim  int
	total    int64
	progress func(done, total int64)
}

// conversion reads what the conversion needs and checks that the base model is of the decoder's shape.
func (b *Bundle) conversion(base *os.File, form *Form) (*conversion, error) {
	info, err := base.Stat()
	if err != nil {
		return nil, err
	}
	m := b.Manifest
	c := &conversion{headDim: m.Decoder.HeadDim, total: form.WeightsBytes}
	if c.base, err = openGGUF(base, info.Size()); err != nil {
		return nil, err
	}
	if a := c.base.words["general.architecture"]; a != "llama" {
		return nil, fmt.Errorf("%w base model: its architecture is %q; llama is read", pipeline.ErrUnsupported, a)
	}
	for _, n := range []struct {
		key  string
		want int
	}{
		{"block_count", m.Decoder.Layers}, {"embedding_length", m.Decoder.Hidden},
		{"attention.head_count", m.Decoder.Heads}, {"attention.head_count_kv", m.Decoder.KVHeads},
	} {
		if got := c.base.numbers["llama."+n.key]; got != uint64(n.want) {
			return nil, fmt.Errorf("%w base model: its llama.%s is %d, the bundle's decoder wants %d; it is not the one that the bundle was made for", pipeline.ErrInvalid, n.key, got, n.want)
		}
	}
	if c.layout, err = readLayout(b.path(form.Layout), form.WeightsBytes); err != nil {
		return nil, err
	}
	if form.Kind == KindGQA && m.Base.Adapter != "" {
		loras, faults := b.loras("")
		if len(faults) > 0 {
			return nil, errors.Join(faults...)
		}
		c.lora = loras[0].matrices
	}
	return c, nil
}

// write writes weights.bin and returns its sum. Making a piece and hashing and writing the piece before it go on side by side.
func (c *conversion) write(ctx context.Context, w io.Writer) (pipeline.Digest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan []byte, 4)
	made := make(chan error, 1)
	go func() {
		defer close(pieces)
		made <- c.pieces(ctx, pieces)
	}()
	sum := sha256.New()
	out := bufio.NewWriterSize(w, 1<<20)
	err := c.drain(pieces, out, sum)
	cancel()
	for range pieces {
	}
	if e := <-made; err == nil {
		err = e
	}
	if err == nil {
		err = out.Flush()
	}
	return pipeline.Digest(sum.Sum(nil)), err
}

func (c *conversion) drain(pieces <-chan []byte, w io.Writer, sum hash.Hash) error {
	var done int64
	for p := range pieces {
		sum.Write(p)
		if _, err := w.Write(p); err != nil {
			return err
		}
		done += int64(len(p))
		if c.progress != nil {
			c.progress(done, c.total)
		}
	}
	return nil
}

// pieces sends the bytes of weights.bin in order.
func (c *conversion) pieces(ctx context.Context, to chan<- []byte) error {
	send := func(p []byte) error {
		select {
		case to <- p:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	at := int64(0)
	for _, s := range c.layout {
		for at < s.Offset {
			gap := min(s.Offset-at, 1<<20)
			if err := send(make([]byte, gap)); err != nil {
				return err
			}
			at += gap
		}
		err := operations[s.Op].make(c, s, func(b []byte) error {
			at += int64(len(b))
			return send(bytes.Clone(b))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
