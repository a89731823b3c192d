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
