package modelrt

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"chatxray/pipeline"
)

// product is matrices side by side that a LoRA may be for: [in, out].
type product struct {
	sources []string
	in, out int
}

// columns is how many of the product's columns a source has. The attention's matrices are as wide as their heads; others that stand
// together are alike.
func (p product) columns(source string, d Decoder) int {
	switch {
	case len(p.sources) == 1:
		return p.out
	case strings.HasSuffix(source, ".attn_q.weight"):
		return d.Heads * d.HeadDim
	case strings.HasSuffix(source, ".attn_k.weight"), strings.HasSuffix(source, ".attn_v.weight"):
		return d.KVHeads * d.HeadDim
	}
	return p.out / len(p.sources)
}

// products are those of a form that a LoRA may be for, by their names: where LoRAs stand beside the matrices, the places of the graph, else
// the layout's matrices.
func (b *Bundle) products(form *Form) (map[string]product, error) {
	all := map[string]product{}
	if form.Kind == KindFlat {
		s, err := readSignature(b.path(form.Decoder))
		if err != nil {
			return nil, err
		}
		for name, p := range s.places {
			p, columns := product{strings.Split(name, "+"), int(p.k), int(p.n)}, 0
			for _, source := range p.sources {
				columns += p.columns(source, b.Manifest.Decoder)
			}
			if columns != p.out || p.in < 1 || p.in > maxWidth || p.out < 1 {
				return nil, fmt.Errorf("%w: %s: the product %s is %d×%d, its matrices have %d columns", pipeline.ErrInvalid, form.Decoder, name, p.in, p.out, columns)
			}
			all[name] = p
		}
		return all, nil
	}
	layout, _, err := b.weights(form)
	if err != nil {
		return nil, err
	}
	for _, s := range layout {
		if operations[s.Op].joins && len(s.Shape) == 2 {
			all[strings.Join(s.Src, "+")] = product{s.Src, s.Shape[0], s.Shape[1]}
		}
	}
	return all, nil
}

// loras reads the adapters in the bundle's folder and in another one, where that is not empty. The first is the one that the manifest names, or none at all.
func (b *Bundle) loras(more string) (list []*lora, faults []error) {
	list = []*lora{{}}
	base, err := b.BaseDigest()
	var dirs []string
	for _, folder := range []string{filepath.Join(b.Dir, loraFolder), more} {
		found, _ := filepath.Glob(filepath.Join(globEscape.Replace(folder), "*", loraConfig)) // the pattern is well-formed
		for _, f := range found {
			if folder != "" {
				dirs = append(dirs, filepath.Dir(f))
			}
		}
	}
	if len(dirs) > maxLoRAs {
		return list, []error{fmt.Errorf("%w: %d adapters; up to %d are loaded", pipeline.ErrInvalid, len(dirs), maxLoRAs)}
	}
	if len(dirs) > 0 && err != nil {
		return list, []error{err}
	}
	seen := map[string]bool{}
	for _, dir := range dirs {
		l, err := openLoRA(dir, base)
		switch {
		case err != nil:
			faults = append(faults, err)
		case seen[l.name]:
			faults = append(faults, fmt.Errorf("adapter %s: %w: there are two of this name", l.name, pipeline.ErrInvalid))
		case utf8.RuneCountInString(b.Manifest.Name+refSeparator+l.name) > maxRefName:
			faults = append(faults, fmt.Errorf("adapter %s: %w: its name and the bundle's have more than %d characters together", l.name, pipeline.ErrInvalid, maxRefName))
		case l.name == b.Manifest.Base.Adapter:
			list[0] = l
		default:
			list = append(list, l)
		}
		seen[filepath.Base(dir)] = true
	}
	if a := b.Manifest.Base.Adapter; a != "" && !seen[a] {
		faults = append(faults, fmt.Errorf("adapter %s: %w: base.adapter names it, and there is none", a, pipeline.ErrNotFound))
	}
	return list, faults
}

var globEscape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// BaseDigest is what adapters name their base model by. The error wraps ErrUnsupported where the model is elsewhere, ErrInvalid where the manifest does not tell it.
func (b *Bundle) BaseDigest() (d pipeline.Digest, err error) {
	m := b.Manifest
	if m.Kind == KindRemote {
		return d, fmt.Errorf("%w: the model of bundle %s is elsewhere; adapters are its endpoint's to have", pipeline.ErrUnsupported, m.Name)
	}
	if m.Base.SHA256 != "" {
		return d, d.UnmarshalText([]byte(m.Base.SHA256))
	}
	if m.Base.Part != "" {
		return d, fmt.Errorf("%w: base.sha256 is empty, so that no adapter can be known to be for this base model", pipeline.ErrInvalid)
	}
	if f, ok := m.Files[weightsName]; ok {
		return f.SHA256, nil
	}
	return m.Files[m.Base.Forms[0].Decoder].SHA256, nil
}

// unfit says what of the adapters does not fit a form. Where LoRAs are in the weights, the first counts.
func (b *Bundle) unfit(list []*lora, form *Form) (faults []error) {
	products, err := b.products(form)
	if err != nil {
		return []error{err}
	}
	if form.Kind != KindFlat {
		list = list[:1]
	}
	for _, l := range list {
		faults = append(faults, l.faults(form.Name, products, b.Manifest.Decoder)...)
	}
	return faults
}

// faults says what of the LoRA does not fit a form.
func (l *lora) faults(form string, products map[string]product, d Decoder) (faults []error) {
	bad := func(source, format string, a ...any) {
		faults = append(faults, fmt.Errorf("adapter %s: %w: %s: %s", l.name, pipeline.ErrInvalid, source, fmt.Sprintf(format, a...)))
	}
	in := map[string]product{}
	for _, p := range products {
		rank := 0
		for _, source := range p.sources {
			in[source] = p
			rank += l.matrices[source].rank
		}
		if rank > maxRank {
			bad(strings.Join(p.sources, "+"), "the ranks are %d together; up to %d are taken", rank, maxRank)
		}
	}
	for _, source := range slices.Sorted(maps.Keys(l.matrices)) {
		m := l.matrices[source]
		p, ok := in[source]
		if !ok {
			bad(source, "the form %s has no place for a LoRA of it", form)
		} else if want := p.columns(source, d); m.in != p.in || m.out != want {
			bad(source, "A and B make a matrix of %d×%d, the form %s has one of %d×%d", m.in, m.out, form, p.in, want)
		}
	}
	return faults
}

// Ref names the model in readings and documents. A model whose activations are rounded is another version, since its texts may differ. With another adapter than the bundle's own it is another model: it has the adapter in its name,
// and a digest of both.
func (m *Model) Ref() pipeline.ModelRef {
	r := pipeline.ModelRef{Name: m.bundle.Manifest.Name, Version: m.bundle.Manifest.Revision, Digest: m.bundle.Digest}
	if m.eight {
		r.Version += "+int8"
	}
	if m.worn != 0 {
		l := m.loras[m.worn]
		r.Name += refSeparator + l.name
		r.Digest = sha256.Sum256(slices.Concat(r.Digest[:], l.digest[:]))
	}
	return r
}

// Adapters names the adapters that With takes, the one that is used where none is asked for first; it may have no name.
func (m *Model) Adapters() (names []string) {
	for _, l := range m.loras {
		names = append(names, l.name)
	}
	return names
}

// With returns the model with an adapter, by its name; "" is the bundle's own. It shares everything with m and needs no Close. The error wraps
// ErrNotFound.
func (m *Model) With(adapter string) (*Model, error) {
	if adapter == "" {
		return &Model{m.opened, 0}, nil
	}
	names := m.Adapters()
	if i := slices.Index(names, adapter); i >= 0 {
		return &Model{m.opened, i}, nil
	}
	why := ""
	if m.form.Kind != KindFlat {
		why = fmt.Sprintf("; the form %s has its adapter in its weights, choose one of the kind %s for others", m.form.Name, KindFlat)
	}
	return nil, fmt.Errorf("%w: bundle %s has no adapter %.100q; it has %q%s", pipeline.ErrNotFound, m.bundle.Manifest.Name, adapter, slices.DeleteFunc(names, func(n string) bool { return n == "" }), why)
}
