package modelrt

import (
	"maps"
	"slices"

	ort "github.com/yalue/onnxruntime_go"
)

// dress makes the tensors of the adapters, empty ones where a product has none, and returns the names of their inputs.
func (f *flat) dress(b *Bundle, form *Form, loras []*lora) (names []string, err error) {
	products, err := b.products(form)
	if err != nil {
		return nil, err
	}
	places := slices.Sorted(maps.Keys(products))
	for _, name := range places {
		names = append(names, loraA+name, loraB+name)
	}
	for _, l := range loras {
		var all []ort.Value
		for _, name := range places {
			x, y := l.sideBySide(products[name], f.shape)
			all = append(all, newTensor(&f.tensors, x, int64(len(x))), newTensor(&f.tensors, y, int64(len(y))))
		}
		f.loras = append(f.loras, all)
	}
	return names, f.tensors.err
}

// runMixed runs a batch whose slots wear different adapters, those of each by themselves.
func (f *flat) runMixed(c *call, b *batch) error {
	if need := len(b.wanted) * f.shape.Vocab; cap(f.mixed) < need {
		f.mixed = make([]float32, need)
	}
	mixed := f.mixed[:len(b.wanted)*f.shape.Vocab]
	for adapter := range f.loras {
		rows := f.part(b, adapter)
		if f.group.tokens() == 0 {
			continue
		}
		if len(rows) == 0 {
			f.group.want() // the graph has logits in any case
		}
		if err := f.runAlike(c, &f.group, adapter); err != nil {
			return err
		}
		for i, row := range rows {
			copy(mixed[row*f.shape.Vocab:][:f.shape.Vocab], f.group.logits[i*f.shape.Vocab:])
		}
	}
	b.logits = mixed
	return nil
}

// part puts the tokens of b whose slots wear an adapter into the group, and returns which rows of b's logits theirs are.
func (f *flat) part(b *batch, adapter int) (rows []int) {
	g, hidden, next := &f.group, f.shape.Hidden, 0
	g.clear()
	for i, slot := range b.slot {
		mine := f.worn[slot] == adapter
		if mine {
			g.x = append(g.x, b.x[i*hidden:(i+1)*hidden]...)
			g.slot, g.at, g.upto, g.position = append(g.slot, slot), append(g.at, b.at[i]), append(g.upto, b.upto[i]), append(g.position, b.position[i])
		}
		if next < len(b.wanted) && b.wanted[next] == int64(i) {
			if mine {
				rows = append(rows, next)
				g.want()
			}
			next++
		}
	}
	return rows
}
