package modelrt

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// Every way in which a bundle or an adapter may be wrong is refused at load, all reasons at once, and nothing is loaded.
func TestBadBundles(t *testing.T) {
	other := strings.Repeat("ab", 32)
	config := func(changes map[string]any) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := loraFolder + "/report/" + loraConfig
			put(t, dir, path, changed(t, must(os.ReadFile(filepath.Join(dir, path))), changes))
			relist(t, dir, nil)
		}
	}
	tensors := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := loraFolder + "/report/" + loraTensors
			b := must(os.ReadFile(filepath.Join(dir, path)))
			if len(from) != len(to) || !bytes.Contains(b, []byte(from)) {
				t.Fatalf("%q is not there, or %q is longer", from, to)
			}
			put(t, dir, path, bytes.ReplaceAll(b, []byte(from), []byte(to)))
			relist(t, dir, nil)
		}
	}
	manifest := func(changes map[string]any) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { relist(t, dir, changes) }
	}
	for _, c := range []struct {
		name     string
		spoil    func(t *testing.T, dir string)
		sentinel error
		want     []string
	}{
		{"unknown keys", manifest(map[string]any{"colour": "red", "decoder/layer": 3}), pipeline.ErrInvalid, []string{"unknown key colour", "unknown key decoder.layer"}},
		{"a missing graph, and a hash", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "vision.onnx"))
			put(t, dir, "README.md", []byte("The tiny bundle of the tests: it reads circles, not radiograph.\n\n"))
		}, pipeline.ErrNotFound, []string{"vision.onnx is missing", "README.md has the sha256"}},
		{"something at every stage", func(t *testing.T, dir string) {
			put(t, dir, manifestName, edited(t, map[string]any{"colour": "red", "decoder/hidden": 63}))
			os.Remove(filepath.Join(dir, "vision.onnx"))
			put(t, dir, "tokenizer.json", append(must(os.ReadFile(filepath.Join(dir, "tokenizer.json"))), ' '))
			path := loraFolder + "/report/" + loraConfig
			put(t, dir, path, bytes.Replace(must(os.ReadFile(filepath.Join(dir, path))), []byte("LORA"), []byte("LOHA"), 1))
		}, pipeline.ErrInvalid, []string{"unknown key colour", "vision.onnx is missing", "tokenizer.json has ", "adapter_config.json has the sha256",
			"adapter.onnx: output image_embeds is float32 [?, 4, 64], the manifest wants float32 [?, 4, 63]", "embed.q4.onnx: output inputs_embeds"}},
		{"a wrong manifest, and files", func(t *testing.T, dir string) {
			put(t, dir, manifestName, edited(t, map[string]any{"colour": "red", "decoder/layers": 0}))
			os.Remove(filepath.Join(dir, "vision.onnx"))
		}, pipeline.ErrInvalid, []string{"unknown key colour", "decoder.layers: 0 is not from 1", "vision.onnx is missing"}},
		{"swapped graphs", manifest(map[string]any{"graphs/vision": "adapter.onnx", "graphs/adapter": "vision.onnx"}), pipeline.ErrInvalid,
			[]string{"adapter.onnx: input pixel_values is missing", "vision.onnx: output image_embeds is missing"}},
		{"swapped graphs of two forms", func(t *testing.T, dir string) {
			m := must(ParseManifest(tinyManifest(t)))
			m.Base.Forms[0].Decoder, m.Base.Forms[2].Decoder = m.Base.Forms[2].Decoder, m.Base.Forms[0].Decoder
			relist(t, dir, map[string]any{"base/forms": m.Base.Forms})
		}, pipeline.ErrInvalid, []string{"decoder.standard.onnx: input slot is missing", "decoder.q4.onnx: input seqlens_k is missing"}},
		{"shapes", manifest(map[string]any{"decoder/hidden": 63, "vision/image_tokens": 5}), pipeline.ErrInvalid,
			[]string{"adapter.onnx: output image_embeds is float32 [?, 4, 64], the manifest wants float32 [?, 5, 63]", "embed.q4.onnx: output inputs_embeds"}},
		{"a tokenizer of another vocabulary", func(t *testing.T, dir string) {
			put(t, dir, "tokenizer.json", must(os.ReadFile("testdata/../token/testdata/bytelevel.json")))
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{"tokenizer.json"}},
		{"a tokenizer of more tokens", manifest(map[string]any{"decoder/vocab": 300}), pipeline.ErrInvalid,
			[]string{"tokenizer.json has 352 tokens, decoder.vocab is 300", "decoder.q4.onnx: output logits is float32 [?, 352]"}},
		{"external data outside the folder", func(t *testing.T, dir string) {
			b := must(os.ReadFile(filepath.Join(dir, "decoder.q4.onnx")))
			put(t, dir, "decoder.q4.onnx", bytes.ReplaceAll(b, []byte("weights.bin"), []byte("../shadow.x")))
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{`is kept in "../shadow.x"; only weights.bin is allowed`}},
		{"a file outside the folder", func(t *testing.T, dir string) {
			put(t, dir, manifestName, edited(t, map[string]any{"tokenizer/file": "../tokenizer.json", "files/..~1tokenizer.json": map[string]any{"sha256": other, "bytes": 1}}))
		}, pipeline.ErrInvalid, []string{`"../tokenizer.json" is no file of the folder`}},
		{"an adapter that is not there", manifest(map[string]any{"base/adapter": "prose"}), pipeline.ErrInvalid,
			[]string{`base.adapter: "adapters/prose/adapter_config.json" is not in files`, `"adapters/prose/adapter_model.safetensors" is not in files`}},
		{"an adapter outside the folder", manifest(map[string]any{"base/adapter": "../../report"}), pipeline.ErrInvalid, []string{`base.adapter: "../../report" is no name`}},
		{"an adapter that is a link out of the folder", func(t *testing.T, dir string) {
			path := filepath.Join(dir, loraFolder, "report", loraTensors)
			elsewhere := filepath.Join(t.TempDir(), "x")
			if err := os.Rename(path, elsewhere); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(elsewhere, path); err != nil {
				t.Fatal(err)
			}
		}, pipeline.ErrInvalid, []string{"adapters/report/adapter_model.safetensors cannot be opened"}},
		{"an adapter of another base", config(map[string]any{"base_sha256": other}), pipeline.ErrInvalid,
			[]string{"adapter report: ", "it was made for the base model with the sha256 " + other + ", this bundle's has ee5286797087609bc1058f1baaac70e556a07ed1c5ee4d4f99707fe408f253e3"}},
		{"an adapter without a base", config(map[string]any{"base_sha256": nil}), pipeline.ErrInvalid, []string{"has no base_sha256"}},
		{"another base than the adapter's", manifest(map[string]any{"base/sha256": other}), pipeline.ErrInvalid, []string{"this bundle's has " + other}},
		{"an adapter with many faults", config(map[string]any{"base_sha256": other, "r": 7, "peft_type": "LOHA", "use_dora": true, "bias": "all", "target_modules": []string{"q_proj", "lm_head"}, "modules_to_save": []string{"lm_head"}}),
			pipeline.ErrInvalid, []string{"was made for the base model", "has the rank 4, adapter_config.json says 7", `peft_type is "LOHA"`, "use_dora is true", `bias is "all"`,
				"layers.0.self_attn.k_proj.lora_A.weight: is none of the target_modules", `nothing for the target module "lm_head"`, "modules_to_save"}},
		{"a pattern that Go does not read", config(map[string]any{"alpha_pattern": map[string]any{"(?<=x)q": 3}}), pipeline.ErrUnsupported, []string{"the pattern"}},
		{"a config that is none", func(t *testing.T, dir string) {
			put(t, dir, loraFolder+"/report/"+loraConfig, []byte("[]"))
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{"adapter report: invalid: adapter_config.json"}},
		{"an adapter for no matrix", tensors("layers.1.self_attn.q_proj", "layers.7.self_attn.q_proj"), pipeline.ErrInvalid,
			[]string{"blk.7.attn_q.weight: the form q4 has no place for a LoRA of it", "the form fp32 has no place", "the form standard has no place"}},
		{"an adapter of other modules", tensors("layers.1.self_attn.q_proj", "layers.1.self_attn.z_proj"), pipeline.ErrInvalid, []string{"no matrix of a language model is known by this name"}},
		{"an adapter without its partner", tensors("layers.1.self_attn.q_proj.lora_A", "layers.0.self_attn.q_proj.lora_C"), pipeline.ErrInvalid, []string{"has no partner"}},
		{"an adapter of other shapes", tensors("layers.1.self_attn.o_proj", "layers.0.self_attn.k_proj"), pipeline.ErrInvalid, []string{"adapter report: ", "the form q4 has one of 64×32"}},
		{"an adapter that is cut short", func(t *testing.T, dir string) {
			path := loraFolder + "/report/" + loraTensors
			b := must(os.ReadFile(filepath.Join(dir, path)))
			put(t, dir, path, b[:len(b)-100])
			relist(t, dir, nil)
		}, pipeline.ErrInvalid, []string{"lies outside the file"}},
		{"no stop, and two prompts", manifest(map[string]any{"generation/stop_tokens": []string{}, "prompt/template": "x"}), pipeline.ErrInvalid,
			[]string{"stop_tokens: is empty", "prompt.instruction: stands beside prompt.template"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyBundle(t)
			c.spoil(t, dir)
			_, err := Open(context.Background(), runtimeFor(t), dir, tinyOptions(t))
			if !errors.Is(err, c.sentinel) {
				t.Fatalf("%v, want it to wrap %q", err, c.sentinel)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

// Adapters of another folder are refused like those of the bundle: by name too.
func TestBadAdapters(t *testing.T) {
	copied := func(t *testing.T, names ...string) string {
		dir := t.TempDir()
		for _, n := range names {
			if err := os.CopyFS(filepath.Join(dir, n), os.DirFS("testdata/adapters/tiny/wide")); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, c := range []struct {
		name, folder string
		want         []string
	}{
		{"of another bundle", "testdata/adapters/llama", []string{"adapter narrow: ", "adapter uneven: ", "adapter wide: ", "was made for the base model"}},
		{"called like the bundle's own", copied(t, "report"), []string{"adapter report: invalid: there are two of this name"}},
		{"a name with a colon", copied(t, "a:b"), []string{"is no name"}},
		{"a long name", copied(t, strings.Repeat("n", 49)), []string{"is no name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := tinyOptions(t)
			o.Adapters = c.folder
			_, err := Open(context.Background(), runtimeFor(t), "testdata/tiny", o)
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
		})
	}
}

// A bundle is a folder: nothing unpacks an archive, so that none can write outside of one.
func TestArchiveIsNoBundle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle.zip")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := must(z.Create("../../escaped")).Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(path)
	if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "a bundle is a folder") {
		t.Errorf("%v", err)
	}
}

func FuzzLoRAConfig(f *testing.F) {
	f.Add(must(os.ReadFile("testdata/tiny/adapters/report/adapter_config.json")))
	f.Add(must(os.ReadFile("testdata/adapters/tiny/uneven/adapter_config.json")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, faults := parseLoRAConfig(b, pipeline.Digest{})
		if s == nil && len(faults) == 0 {
			t.Error("nothing, and no fault")
		}
		if s != nil && len(faults) == 0 && !json.Valid(b) {
			t.Error("no JSON, and no fault")
		}
		if s != nil {
			s.scaleOf("model.layers.0.self_attn.q_proj")
			s.targeted("model.layers.0.self_attn.q_proj")
		}
	})
}
