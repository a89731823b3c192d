package modelrt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// lora is an adapter of a language model, low-rank additions to its matrices, as the Python package peft writes it: a folder with
// adapter_config.json and adapter_model.safetensors.
type lora struct {
	name     string
	digest   pipeline.Digest // of both files
	matrices map[string]lowRank
}

// lowRank is the addition B·A to one matrix: a [rank, in], b [out, rank], peft's scale in b. Rows of query and key are in the order for
// half-split rope.
type lowRank struct {
	rank, in, out int
	a, b          []float32
}

const (
	loraFolder  = "adapters" // of a bundle; each folder in it is an adapter
	loraConfig  = "adapter_config.json"
	loraTensors = "adapter_model.safetensors"
	maxLoRAs    = 64
	maxRank     = 1024 // of a product, as modelrt/kernel has it
	maxRefName  = 64   // characters of bundle and adapter together: a Long String of DICOM

	refSeparator = ":" // between them
)

// openLoRA reads the adapter in dir, which is called like the folder, and refuses one that was not made for the base model whose digest is base. That it fits the
// matrices is checked by faults. All that is wrong is in the error, a sentence each.
func openLoRA(dir string, base pipeline.Digest) (*lora, error) {
	l := &lora{name: filepath.Base(dir), matrices: map[string]lowRank{}}
	files, err := readLoRAFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", l.name, err)
	}
	l.digest = digestOf(files[0], files[1])
	s, faults := parseLoRAConfig(files[0], base)
	if !wordName.MatchString(l.name) {
		faults = append(faults, fmt.Errorf("%w: its folder's name is no name of letters, digits, dots, hyphens and underscores", pipeline.ErrInvalid))
	}
	if s != nil {
		faults = append(faults, l.fill(files[1], s)...)
	}
	for i, f := range faults {
		faults[i] = fmt.Errorf("adapter %s: %w", l.name, f)
	}
	return l, errors.Join(faults...)
}

var wordName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$`)

// digestOf is the digest of several files in an order.
func digestOf(files ...[]byte) pipeline.Digest {
	h := sha256.New()
	for _, f := range files {
		sum := sha256.Sum256(f)
		h.Write(sum[:])
	}
	return pipeline.Digest(h.Sum(nil))
}

// readLoRAFiles reads the two files through os.Root, so that no link leads out of the folder.
func readLoRAFiles(dir string) (files [2][]byte, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return files, fmt.Errorf("%w: %v; an adapter is a folder with %s and %s", pipeline.ErrNotFound, err, loraConfig, loraTensors)
	}
	defer root.Close()
	for i, name := range []string{loraConfig, loraTensors} {
		limit := []int64{maxManifest, maxTensorFile}[i]
		f, err := root.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return files, fmt.Errorf("%w: %s is missing", pipeline.ErrNotFound, name)
		}
		if err != nil {
			return files, fmt.Errorf("%w: %s cannot be opened: %v", pipeline.ErrInvalid, name, err)
		}
		files[i], err = io.ReadAll(io.LimitReader(f, limit+1))
		f.Close()
		if err != nil {
			return files, err
		}
		if int64(len(files[i])) > limit {
			return files, fmt.Errorf("%w: %s is larger than %d bytes", pipeline.ErrInvalid, name, limit)
		}
	}
	return files, nil
}

// fill takes the tensors, which are named base_model.model.MODULE.lora_A.weight and ...lora_B.weight.
func (l *lora) fill(file []byte, s *loraSettings) (faults []error) {
	tensors, err := parseTensors(file)
	if err != nil {
		return []error{err}
	}
	bad := func(name, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w: %s: %s", pipeline.ErrInvalid, name, fmt.Sprintf(format, a...)))
	}
	const sideA, sideB = ".lora_A.weight", ".lora_B.weight"
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		stem, isA := strings.CutSuffix(name, sideA)
		if !isA {
			stem, isB := strings.CutSuffix(name, sideB)
			if _, paired := tensors[stem+sideA]; !isB || !paired {
				bad(name, "has no partner, or is no part of a LoRA")
			}
			continue
		}
		b, paired := tensors[stem+sideB]
		if !paired {
			bad(name, "has no partner")
			continue
		}
		module := strings.TrimPrefix(stem, "base_model.model.")
		source, known := sourceOf(module)
		if !known {
			bad(name, "no matrix of a language model is known by this name")
			continue
		}
		a := tensors[name]
		if len(a.shape) != 2 || len(b.shape) != 2 || a.shape[0] != b.shape[1] || a.shape[0] < 1 {
			bad(name, "shapes %v and %v are no A [rank, in] and B [out, rank]", a.shape, b.shape)
			continue
		}
		if !finite(a.values) || !finite(b.values) {
			bad(name, "holds numbers that are not finite")
		}
		if want := s.rankOf(module); a.shape[0] != want {
			bad(name, "has the rank %d, %s says %d", a.shape[0], loraConfig, want)
		}
		if !s.targeted(module) {
			bad(name, "is none of the target_modules of %s", loraConfig)
		}
		scale := s.scaleOf(module)
		for i := range b.values {
			b.values[i] *= scale
		}
		l.matrices[source] = lowRank{rank: a.shape[0], in: a.shape[1], out: b.shape[0], a: a.values, b: b.values}
	}
	for _, target := range s.unmet() {
		bad(loraTensors, "has nothing for the target module %q", target)
	}
	if len(l.matrices) == 0 && len(faults) == 0 {
		bad(loraTensors, "is empty")
	}
	return faults
}

var modules = regexp.MustCompile(`^(?:model\.|language_model\.|model\.language_model\.|language_model\.model\.)?layers\.(0|[1-9][0-9]{0,2})\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj$`)

// sourceOf translates a module of transformers' Llama-like models to the tensor's name in a GGUF file.
func sourceOf(module string) (string, bool) {
	part := modules.FindStringSubmatch(module)
	if part == nil {
		return "", false
	}
	name, ok := map[string]string{
		"self_attn.q": "attn_q", "self_attn.k": "attn_k", "self_attn.v": "attn_v", "self_attn.o": "attn_output",
		"mlp.gate": "ffn_gate", "mlp.up": "ffn_up", "mlp.down": "ffn_down",
	}[part[2]+"."+part[3]]
	return "blk." + part[1] + "." + name + ".weight", ok
}

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

// BaseDigest is what adapters name their base model by.
func (b *Bundle) BaseDigest() (d pipeline.Digest, err error) {
	m := b.Manifest
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

// addTo adds the LoRA to columns from.. of a matrix [in, wide]. Every product and sum is rounded to float32 by itself and in the order
// of the ranks, so that the bytes are the same on every machine.
func (l lowRank) addTo(w []float32, wide, from int) {
	row := make([]float32, l.out)
	for i := range l.in {
		clear(row)
		for r := range l.rank {
			a := l.a[r*l.in+i]
			for o := range row {
				row[o] = float32(row[o] + float32(a*l.b[o*l.rank+r]))
			}
		}
		for o, v := range row {
			w[i*wide+from+o] = float32(w[i*wide+from+o] + v)
		}
	}
}

// sideBySide packs the LoRAs of the matrices of one product: A [in, ranks] has the matrices' ranks side by side, B [ranks, out] each matrix's
// own in its own columns. Both are empty where none of the matrices has a LoRA.
func (l *lora) sideBySide(p product, d Decoder) (a, b []float32) {
	ranks := 0
	for _, source := range p.sources {
		ranks += l.matrices[source].rank
	}
	if ranks == 0 {
		return nil, nil
	}
	wideA, wideB := make([]float32, p.in*ranks), make([]float32, ranks*p.out)
	rank, column := 0, 0
	for _, source := range p.sources {
		m := l.matrices[source]
		for r := range m.rank {
			for i := range m.in {
				wideA[i*ranks+rank+r] = m.a[r*m.in+i]
			}
			for o := range m.out {
				wideB[(rank+r)*p.out+column+o] = m.b[o*m.rank+r]
			}
		}
		rank, column = rank+m.rank, column+p.columns(source, d)
	}
	return kernel.PackF32(wideA, p.in, ranks), kernel.PackF32(wideB, ranks, p.out)
}
